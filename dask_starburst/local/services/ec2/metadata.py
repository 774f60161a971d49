"""Instance metadata, task metadata and task credentials.

One WSGI application answers for all instances and tasks; the path names the caller. The router has already checked the
secret in the path, which only that instance or task has (`keys.Keys.path`)::

    /imds/<instance id>/latest/...      instance metadata, version 2 only
    /ecs/v4/<task id>[/task]            task metadata, version 4
    /credentials/<task id>              credentials of a task's role

so ``AWS_EC2_METADATA_SERVICE_ENDPOINT``, ``ECS_CONTAINER_METADATA_URI_V4`` and
``AWS_CONTAINER_CREDENTIALS_FULL_URI`` direct every AWS SDK here. Paths and shapes are those of
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html and
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-metadata-endpoint-v4.html.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from dask_starburst.local.backend.account import dns_suffix, partition
from dask_starburst.local.backend.keys import Keys

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

_LONGEST_TTL = 21_600
_CREDENTIALS_SECONDS = 6 * 3600
_RENEWED_SECONDS = 3600  # how often credentials are renewed
_GRAVITON = re.compile(r"(a1|[a-z]+\d+g[a-z]*)\.")


@dataclass(frozen=True)
class InstanceMetadata:
    """The metadata of an EC2 instance; ``instance_action`` and ``rebalance`` once there is a notice."""

    instance_id: str
    instance_type: str
    region: str
    zone: str
    private_ip: str
    public_ip: str | None
    image_id: str
    account_id: str
    role_name: str | None
    lifecycle: str
    tags: Mapping[str, str]
    instance_action: Mapping[str, str] | None = None
    rebalance: Mapping[str, str] | None = None


@dataclass(frozen=True)
class TaskMetadata:
    """The metadata of an ECS task: ``cpu`` in units (1,024 a vCPU), ``memory`` in MiB.

    ``stopping``: whether ECS stops it, in contrast to a shutdown of its instance.
    """

    arn: str
    cluster: str
    family: str
    revision: int
    container: str
    image: str
    cpu: int
    memory: int
    zone: str
    role_arn: str | None
    instance_id: str
    started: float | None
    log_group: str | None
    log_stream: str | None
    launch_type: str = "EC2"
    interface_ip: str | None = None  # of network mode awsvpc
    stopping: bool = False


class MetadataSource(Protocol):
    """The source of metadata. None means that the instance or task does not exist."""

    def instance(self, id: str) -> InstanceMetadata | None:
        """Return the metadata of an instance."""

    def task(self, id: str) -> TaskMetadata | None:
        """Return the metadata of a task by the last part of its ARN."""


@dataclass(frozen=True)
class _Reply:
    status: HTTPStatus
    body: str = ""
    type: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()


class MetadataApp:
    """The WSGI application. Tokens and credentials expire by ``now``, which is real time; answers are dated ``date``.

    Both are seconds since 1970. Notices use the virtual clock, so the answers that contain them use it too.
    """

    def __init__(
        self,
        source: MetadataSource,
        keys: Keys,
        now: Callable[[], float] = time.time,
        date: Callable[[], float] | None = None,
    ) -> None:
        self._source = source
        self._keys = keys
        self._now = now
        self._date = date or now
        self._tokens = _Tokens(now)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        reply = self._route(environ)
        body = reply.body.encode()
        date = formatdate(self._date(), usegmt=True)
        headers = [("Content-Type", reply.type), ("Content-Length", str(len(body))), ("Date", date), *reply.headers]
        start_response(f"{reply.status.value} {reply.status.phrase}", headers)
        return [body if environ["REQUEST_METHOD"] != "HEAD" else b""]

    def _route(self, environ: WSGIEnvironment) -> _Reply:
        match environ.get("PATH_INFO", "").lstrip("/").split("/", 2):
            case ["imds", instance_id, path]:
                return self._imds(instance_id, path, environ)
            case ["ecs", "v4", path]:
                return self._task_metadata(path)
            case ["credentials", task_id]:
                return self._task_credentials(task_id)
        return _not_found()

    def _imds(self, instance_id: str, path: str, environ: WSGIEnvironment) -> _Reply:
        metadata = self._source.instance(instance_id)
        if metadata is None:
            return _not_found()
        method = environ["REQUEST_METHOD"]
        if path == "latest/api/token":
            return self._token(instance_id, environ) if method == "PUT" else _Reply(HTTPStatus.METHOD_NOT_ALLOWED)
        if method not in ("GET", "HEAD"):
            return _Reply(HTTPStatus.METHOD_NOT_ALLOWED)
        if not self._tokens.valid(instance_id, environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN", "")):
            return _Reply(HTTPStatus.UNAUTHORIZED)
        found = _look_up({"latest": self._instance_tree(metadata)}, path)
        return _not_found() if found is None else _Reply(HTTPStatus.OK, found)

    def _token(self, instance_id: str, environ: WSGIEnvironment) -> _Reply:
        # AWS refuses a token to forwarded requests, because they may come from anywhere.
        if "HTTP_X_FORWARDED_FOR" in environ:
            return _Reply(HTTPStatus.FORBIDDEN)
        seconds = environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN_TTL_SECONDS", "")
        if not (seconds.isascii() and seconds.isdigit() and 1 <= int(seconds) <= _LONGEST_TTL):
            return _Reply(HTTPStatus.BAD_REQUEST)
        token = self._tokens.issue(instance_id, int(seconds))
        return _Reply(HTTPStatus.OK, token, headers=(("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", seconds),))

    def _task_metadata(self, path: str) -> _Reply:
        task_id, _, rest = path.rstrip("/").partition("/")
        task = self._source.task(task_id)
        if task is None or rest not in ("", "task"):
            return _not_found()
        instance = self._source.instance(task.instance_id)
        container = _container_document(task, instance)
        return _json_reply(container if rest == "" else _task_document(task, container))

    def _task_credentials(self, task_id: str) -> _Reply:
        task = self._source.task(task_id)
        if task is None or task.role_arn is None:
            # The ECS agent's message and status for an unknown id.
            error = {
                "code": "InvalidIdInRequest",
                "message": "CredentialsV2Request: ID not found",
                "HTTPErrorCode": 400,
            }
            return _json_reply(error, HTTPStatus.BAD_REQUEST)
        return _json_reply({"RoleArn": task.role_arn, **self._credentials(task.role_arn, task_id)})

    def _credentials(self, role_arn: str, session: str) -> dict[str, str]:
        until = (self._now() // _RENEWED_SECONDS) * _RENEWED_SECONDS + _CREDENTIALS_SECONDS
        credentials = self._keys.of_role(role_arn, until, session)
        return {
            "AccessKeyId": credentials.access_key,
            "SecretAccessKey": credentials.secret_key,
            "Token": credentials.token or "",
            "Expiration": _iso(until),
        }

    def _instance_tree(self, metadata: InstanceMetadata) -> dict[str, Any]:
        """Return the tree under ``/latest``: folders are dictionaries, documents are strings."""
        iam = {}
        if metadata.role_name:
            role_arn = f"arn:{partition()}:iam::{metadata.account_id}:role/{metadata.role_name}"
            about = {"Code": "Success", "LastUpdated": _iso(self._now()), "Type": "AWS-HMAC"}
            document = json.dumps({**about, **self._credentials(role_arn, metadata.instance_id)}, indent=2)
            iam = {"iam": {"security-credentials": {metadata.role_name: document}}}
        return {"dynamic": _dynamic_tree(metadata), "meta-data": _metadata_tree(metadata) | iam | _notices(metadata)}


class _Tokens:
    """Self-signed session tokens, so that none has to be stored."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._key = os.urandom(32)

    def issue(self, instance_id: str, seconds: int) -> str:
        return self._sign(instance_id, f"{self._now() + seconds:.3f}")

    def valid(self, instance_id: str, token: str) -> bool:
        try:
            until = base64.urlsafe_b64decode(token).split(b"|")[0].decode()
            expired = self._now() >= float(until)
        except ValueError:
            return False
        return hmac.compare_digest(token.encode(), self._sign(instance_id, until).encode()) and not expired

    def _sign(self, instance_id: str, until: str) -> str:
        proof = hmac.digest(self._key, f"{instance_id} {until}".encode(), "sha256")
        return base64.urlsafe_b64encode(until.encode() + b"|" + proof).decode()


def _metadata_tree(metadata: InstanceMetadata) -> dict[str, Any]:
    host = f"ip-{metadata.private_ip.replace('.', '-')}.{_domain(metadata.region)}"
    meta: dict[str, Any] = {
        "ami-id": metadata.image_id,
        "hostname": host,
        "instance-id": metadata.instance_id,
        "instance-life-cycle": metadata.lifecycle,
        "instance-type": metadata.instance_type,
        "local-hostname": host,
        "local-ipv4": metadata.private_ip,
        "placement": {"availability-zone": metadata.zone, "region": metadata.region},
        "services": {"domain": dns_suffix(), "partition": partition()},
    }
    if metadata.public_ip:
        meta["public-ipv4"] = metadata.public_ip
    if metadata.tags:
        meta["tags"] = {"instance": dict(metadata.tags)}
    return meta


def _dynamic_tree(metadata: InstanceMetadata) -> dict[str, Any]:
    document = {
        "accountId": metadata.account_id,
        "architecture": "arm64" if _GRAVITON.match(metadata.instance_type) else "x86_64",
        "availabilityZone": metadata.zone,
        "billingProducts": None,
        "devpayProductCodes": None,
        "marketplaceProductCodes": None,
        "imageId": metadata.image_id,
        "instanceId": metadata.instance_id,
        "instanceType": metadata.instance_type,
        "kernelId": None,
        "privateIp": metadata.private_ip,
        "ramdiskId": None,
        "region": metadata.region,
        "version": "2017-09-30",
    }
    return {"instance-identity": {"document": json.dumps(document, indent=2)}}


def _notices(metadata: InstanceMetadata) -> dict[str, Any]:
    """Return the branches of notices. Without a notice they are missing, and pollers get 404."""
    tree: dict[str, Any] = {}
    if metadata.instance_action is not None:
        tree["spot"] = {"instance-action": json.dumps(dict(metadata.instance_action))}
        if metadata.instance_action.get("action") == "terminate":
            tree["spot"]["termination-time"] = metadata.instance_action["time"]
    if metadata.rebalance is not None:
        tree["events"] = {"recommendations": {"rebalance": json.dumps(dict(metadata.rebalance))}}
    return tree


def _look_up(tree: Mapping[str, Any], path: str) -> str | None:
    """Return a document, or the listing of a folder, in which folders end with a slash."""
    node: Any = tree
    for name in path.rstrip("/").split("/"):
        if not isinstance(node, Mapping) or name not in node:
            return None
        node = node[name]
    if isinstance(node, str):
        return node  # also with a trailing slash, which AWS accepts and botocore uses for the zone
    return "\n".join(f"{name}/" if isinstance(node[name], Mapping) else name for name in sorted(node))


def _container_document(task: TaskMetadata, instance: InstanceMetadata | None) -> dict[str, Any]:
    docker_id = hashlib.sha256(task.arn.encode()).hexdigest()
    document: dict[str, Any] = {
        "DockerId": docker_id,
        "Name": task.container,
        "DockerName": f"ecs-{task.family}-{task.revision}-{task.container}-{docker_id[:20]}",
        "Image": task.image,
        "ImageID": f"sha256:{hashlib.sha256(task.image.encode()).hexdigest()}",
        "Labels": {
            "com.amazonaws.ecs.cluster": task.cluster,
            "com.amazonaws.ecs.container-name": task.container,
            "com.amazonaws.ecs.task-arn": task.arn,
            "com.amazonaws.ecs.task-definition-family": task.family,
            "com.amazonaws.ecs.task-definition-version": str(task.revision),
        },
        "DesiredStatus": "STOPPED" if task.stopping else "RUNNING",
        "KnownStatus": _status(task),
        "Limits": {"CPU": task.cpu, "Memory": task.memory},
        "Type": "NORMAL",
        "ContainerARN": f"{task.arn.replace(':task/', ':container/')}/{docker_id[:32]}",
        "Networks": [_network(task, instance)],
    }
    if task.started is not None:
        document |= {"CreatedAt": _iso(task.started), "StartedAt": _iso(task.started)}
    return document | _log_options(task)


def _network(task: TaskMetadata, instance: InstanceMetadata | None) -> dict[str, Any]:
    if task.interface_ip is not None:
        return {"NetworkMode": "awsvpc", "IPv4Addresses": [task.interface_ip]}
    return {"NetworkMode": "host", "IPv4Addresses": [instance.private_ip] if instance else []}


def _log_options(task: TaskMetadata) -> dict[str, Any]:
    if not task.log_group or not task.log_stream:
        return {}
    options = {
        "awslogs-group": task.log_group,
        "awslogs-region": task.arn.split(":")[3],
        "awslogs-stream": task.log_stream,
    }
    return {"LogDriver": "awslogs", "LogOptions": options}


def _task_document(task: TaskMetadata, container: dict[str, Any]) -> dict[str, Any]:
    return {
        "Cluster": task.cluster,
        "TaskARN": task.arn,
        "Family": task.family,
        "Revision": str(task.revision),
        "DesiredStatus": "STOPPED" if task.stopping else "RUNNING",
        "KnownStatus": _status(task),
        "Limits": {"CPU": task.cpu / 1024, "Memory": task.memory},
        "AvailabilityZone": task.zone,
        "LaunchType": task.launch_type,
        "Containers": [container],
    }


def _status(task: TaskMetadata) -> str:
    return "PENDING" if task.started is None else "RUNNING"


def _domain(region: str) -> str:
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _json_reply(document: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> _Reply:
    return _Reply(status, json.dumps(document), "application/json")


def _not_found() -> _Reply:
    return _Reply(HTTPStatus.NOT_FOUND)
