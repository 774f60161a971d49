"""A client of the instance metadata service (IMDSv2), and of ECS's task metadata."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

#: The link-local address of every instance's metadata service.
_DEFAULT = "http://169.254.169.254/"
#: The longest lifetime of a token (docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html).
_TOKEN_SECONDS = 21_600
#: Seconds before its expiry from which a token is not used.
_SPARE = 60

#: Errors of a read that may succeed when it is repeated.
METADATA_ERRORS = (OSError, HTTPException, ValueError)

_opener = build_opener(ProxyHandler({}))  # never through a proxy


@dataclass(frozen=True)
class Answer:
    """One value, and the time by the service's clock (seconds since the epoch)."""

    text: str
    now: float


class Metadata:
    """The metadata service, with a token that is reused until it expires.

    Parameters
    ----------
    root : str, optional
        URL of the service. Defaults to the one that the AWS SDKs use.
    timeout : float
        Timeout of a request in seconds.
    """

    def __init__(self, root: str | None = None, timeout: float = 5.0) -> None:
        root = root or os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", _DEFAULT)
        self._root = root.rstrip("/") + "/"
        self._timeout = timeout
        self._token = ""
        self._until = 0.0

    def get(self, path: str) -> Answer | None:
        """Return one value, or None where there is none (404).

        Raises
        ------
        OSError, http.client.HTTPException, ValueError
            The service does not answer, or the answer is not valid; see `METADATA_ERRORS`.
        """
        used = self._until > 0
        try:
            return self._get(path)
        except HTTPError as error:
            error.close()
            if error.code == HTTPStatus.NOT_FOUND:
                return None
            if error.code != HTTPStatus.UNAUTHORIZED or not used:
                raise
        self._until = 0.0  # the token has expired: retry with a new one
        return self.get(path)

    def _get(self, path: str) -> Answer:
        if time.monotonic() >= self._until:
            lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_SECONDS)}
            self._token = self._open(Request(self._root + "latest/api/token", method="PUT", headers=lifetime)).text
            self._until = time.monotonic() + _TOKEN_SECONDS - _SPARE
        return self._open(Request(self._root + path, headers={"X-aws-ec2-metadata-token": self._token}))

    def _open(self, request: Request) -> Answer:
        with _opener.open(request, timeout=self._timeout) as reply:
            said = reply.headers.get("Date")
            now = parsedate_to_datetime(said).timestamp() if said else time.time()
            return Answer(reply.read().decode(), now)


def is_stopped_by_ecs(timeout: float) -> bool:
    """Return whether ECS stops this task, in contrast to a shutdown of the instance; True where nothing tells.

    ECS's agent changes the desired status before it sends SIGTERM (Amazon ECS developer guide, "task metadata endpoint
    version 4"). At a shutdown Docker sends the signal, and the agent has not been asked to stop the task.
    """
    root = os.environ.get("ECS_CONTAINER_METADATA_URI_V4")
    if not root:
        return True
    try:
        with _opener.open(f"{root}/task", timeout=timeout) as reply:
            return bool(json.load(reply).get("DesiredStatus") != "RUNNING")
    except METADATA_ERRORS:
        return True


def own_address() -> str:
    """Return the private IPv4 address of this instance.

    A container in host mode has the same address. Without it Dask would listen on all addresses and guess which one
    other hosts can reach.
    """
    return _read("latest/meta-data/local-ipv4")


def own_instance() -> str:
    """Return the EC2 id of this instance."""
    return _read("latest/meta-data/instance-id")


def _read(path: str) -> str:
    answer = Metadata().get(path)
    if answer is None:
        raise OSError(f"the instance metadata service has no {path}")
    return answer.text
