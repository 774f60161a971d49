"""Calls to the control API of an embedded AWS, and the status that it answers."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dask_starburst.errors import LocalAWSError
from dask_starburst.local.backend.keys import TOKEN_HEADER

_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class LocalStatus:
    """The status of an embedded AWS.

    Attributes
    ----------
    pid : int
        Process id of its server.
    region : str
        The simulated region.
    instances_running, instances_pending : int
        Number of EC2 instances in these states.
    tasks_running : int
        Number of ECS tasks in the state RUNNING.
    clusters : tuple of str
        Names of the active ECS clusters.
    desired : int
        Sum of the desired capacity of all Auto Scaling groups.
    containers : mapping of str to int
        Key and process id of every process that runs as a container.
    calls : mapping of str to int
        Number of calls of each action, as ``"ecs:RunTask"``.
    throttled : int
        Number of throttled calls.
    now : float
        The virtual time in seconds since 1970.
    speed : float
        Virtual seconds in one real second.
    late : float
        The largest delay of a timer in virtual seconds, when the processor is busy.
    network : str
        The loopback network of its instances' addresses.
    aliases : bool
        Whether each instance has its own address.
    scheduler_port : int
        The port that a Dask scheduler should listen on.
    """

    pid: int
    region: str
    instances_running: int
    instances_pending: int
    tasks_running: int
    clusters: tuple[str, ...]
    desired: int
    containers: Mapping[str, int]
    calls: Mapping[str, int]
    throttled: int
    now: float
    speed: float
    late: float
    network: str
    aliases: bool
    scheduler_port: int

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LocalStatus:
        """Parse the server's answer."""
        return cls(
            pid=data["pid"],
            region=data["region"],
            instances_running=data["instances"]["running"],
            instances_pending=data["instances"]["pending"],
            tasks_running=data["tasks"]["running"],
            clusters=tuple(data["clusters"]),
            desired=data["desired"],
            containers=data["containers"],
            calls=data["calls"],
            throttled=data["throttled"],
            now=data["now"],
            speed=data["speed"],
            late=data["late"],
            network=data["network"],
            aliases=data["aliases"],
            scheduler_port=data["scheduler_port"],
        )


class Control:
    """Calls to ``/_local/*`` of one endpoint, with its token."""

    def __init__(self, endpoint_url: str, token: str) -> None:
        self._endpoint_url = endpoint_url.rstrip("/")
        self._headers = {"Content-Type": "application/json", TOKEN_HEADER: token}
        # Never use a configured proxy for 127.0.0.1.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def status(self) -> LocalStatus:
        """Return its status."""
        try:
            return LocalStatus.from_json(json.loads(self._ask("status")))
        except (ValueError, KeyError, TypeError) as error:
            raise LocalAWSError(
                f"The server at {self._endpoint_url} is not an embedded AWS of this version ({error!r})."
            ) from error

    def listing(self, what: str) -> list[dict[str, Any]]:
        """Return the list of all ``tasks`` or ``instances``."""
        found: list[dict[str, Any]] = json.loads(self._ask(what))
        return found

    def decisions(self) -> dict[str, Any]:
        """Return the decisions of IAM."""
        found: dict[str, Any] = json.loads(self._ask("decisions"))
        return found

    def past_faults(self) -> list[dict[str, Any]]:
        """Return the injected faults."""
        past: list[dict[str, Any]] = json.loads(self._ask("faults"))
        return past

    def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Send a command."""
        self._ask(path, json.dumps(body).encode())

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        url = f"{self._endpoint_url}/_local/{path}"
        request = urllib.request.Request(url, data=body, headers=self._headers)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as reply:
                answer: bytes = reply.read()
                return answer
        except urllib.error.HTTPError as error:
            text = error.read().decode(errors="replace")[:500]
            raise LocalAWSError(f"The embedded AWS refused {path} ({error.code}): {text}") from error
        except OSError as error:
            raise LocalAWSError(f"No embedded AWS answers at {self._endpoint_url} ({error}).") from error
