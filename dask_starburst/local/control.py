"""The control API under ``/_local/``, for tests and for `LocalAWS`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dask_starburst.local.backend.addresses import Network
from dask_starburst.local.backend.backend import Backend
from dask_starburst.local.containers.fake import FakeContainers
from dask_starburst.local.containers.processes import Containers
from dask_starburst.local.faults.scenario import Scenario
from dask_starburst.local.http.router import Router
from dask_starburst.local.iam.enforcer import Enforcer
from dask_starburst.local.iam.model import enforcement
from dask_starburst.local.injector import Injector

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

Reply = tuple[str, str]  # content type, body
_JSON = "application/json"


class RequestError(Exception):
    """A request that is not valid. The message says why."""


class Control:
    """The WSGI application of the control API.

    Parameters
    ----------
    backend, network, containers : Backend, Network, Containers
        The objects that it reports on.
    shutdown : callable
        Requests the shutdown of the server. It returns at once.
    reset : callable
        Resets the server.
    """

    def __init__(
        self,
        backend: Backend,
        network: Network,
        containers: Containers | FakeContainers,
        shutdown: Callable[[], None],
        reset: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._network = network
        self._containers = containers
        self._shutdown = shutdown
        self._reset = reset
        self.router: Router | None = None  # set later: the router and the injector need this object
        self.enforcer: Enforcer | None = None
        self.injector: Injector | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        try:
            status, (kind, text) = HTTPStatus.OK, self._route(environ)
        except RequestError as error:
            status, kind, text = HTTPStatus.BAD_REQUEST, _JSON, json.dumps({"error": str(error)})
        body = text.encode()
        start_response(f"{status.value} {status.phrase}", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    def _route(self, environ: WSGIEnvironment) -> Reply:
        name = environ.get("PATH_INFO", "").removeprefix("/_local/").strip("/")
        readings: dict[str, Callable[[], Any]] = {
            "status": self._status,
            "faults": self._past,
            "tasks": self._tasks,
            "instances": self._instances,
            "decisions": self._decisions,
        }
        match environ["REQUEST_METHOD"], name:
            case "GET", reading if reading in readings:
                return _JSON, json.dumps(readings[reading]())
            case "POST", "clock":
                return self._set_clock(_document(environ))
            case "POST", "faults":
                return self._inject(_document(environ))
            case "POST", "throttle":
                return self._set_throttle(_document(environ))
            case "POST", "iam":
                return self._set_iam(_document(environ))
            case "POST", "end":
                return self._end(_document(environ))
            case "POST", "reset":
                self._reset()
                return _JSON, "{}"
            case "POST", "shutdown":
                self._shutdown()
                return _JSON, "{}"
        raise RequestError(f"unknown request: {environ['REQUEST_METHOD']} /_local/{name}")

    def _status(self) -> dict[str, Any]:
        with self._backend.lock:
            states = [ec2_instance.state for ec2_instance in self._backend.ec2_instances.values()]
            running = sum(task.status == "RUNNING" for task in self._backend.tasks.values())
            clusters = sorted(each.name for each in self._backend.clusters.values() if each.status == "ACTIVE")
            desired = sum(group.desired for group in self._backend.groups.values())
        calls, throttled = self._router.snapshot()
        return {
            "pid": os.getpid(),
            "region": self._backend.region,
            "instances": {"running": states.count("running"), "pending": states.count("pending")},
            "tasks": {"running": running},
            "clusters": clusters,
            "desired": desired,
            "containers": self._containers.running(),
            "calls": calls,
            "throttled": throttled,
            "now": self._backend.now(),
            "speed": self._backend.clock.speed,
            "late": self._backend.late,
            "network": self._network.cidr,
            "aliases": self._network.aliases,
            "scheduler_port": self._network.scheduler_port,
        }

    def _tasks(self) -> list[dict[str, Any]]:
        with self._backend.lock:
            return [
                {
                    "id": task.id,
                    "status": task.status,
                    "containerInstanceArn": task.placed_on and task.placed_on.arn,
                    "overrides": task.overrides,
                    "connected_at": task.placed_on and task.placed_on.connected_at,
                    "created_at": task.created_at,
                    "started_at": task.times.get("startedAt"),
                }
                for task in self._backend.tasks.values()
            ]

    def _instances(self) -> list[dict[str, Any]]:
        with self._backend.lock:
            return [
                {
                    "id": ec2_instance.id,
                    "type": ec2_instance.instance_type,
                    "market": ec2_instance.lifecycle,
                    "zone": ec2_instance.zone,
                    "state": ec2_instance.state,
                    "group": ec2_instance.group,
                    "launched_at": ec2_instance.launched_at,
                    "ended_at": ec2_instance.ended_at,
                    "interrupted": ec2_instance.interrupted,
                }
                for ec2_instance in self._backend.history
            ]

    def _end(self, requested: Mapping[str, Any]) -> Reply:
        task = self._backend.tasks.get(str(requested.get("task")))
        if task is None or not isinstance(self._containers, FakeContainers):
            raise RequestError("only an existing task without a process can be ended")
        for container in task.containers:
            self._containers.end(task.container_key(container), 0)
        return _JSON, "{}"

    def _set_clock(self, requested: Mapping[str, Any]) -> Reply:
        try:
            if "speed" in requested:
                self._backend.clock.set_speed(float(requested["speed"]))
            if "advance" in requested:
                self._backend.clock.advance(float(requested["advance"]))
        except (TypeError, ValueError) as error:
            raise RequestError(str(error)) from error
        return _JSON, json.dumps({"now": self._backend.now(), "speed": self._backend.clock.speed})

    def _inject(self, requested: Mapping[str, Any]) -> Reply:
        assert self.injector is not None
        try:
            self.injector.play(Scenario.from_json(requested))
        except ValueError as error:
            raise RequestError(str(error)) from error
        return _JSON, "{}"

    def _past(self) -> list[dict[str, Any]]:
        assert self.injector is not None
        with self._backend.lock:
            return list(self.injector.past)

    def _set_throttle(self, requested: Mapping[str, Any]) -> Reply:
        self._router.throttle.enabled = bool(requested.get("on"))
        return _JSON, json.dumps({"on": self._router.throttle.enabled})

    def _decisions(self) -> dict[str, Any]:
        assert self.enforcer is not None
        return self.enforcer.decided()

    def _set_iam(self, requested: Mapping[str, Any]) -> Reply:
        assert self.enforcer is not None
        try:
            self.enforcer.enforcement = enforcement(str(requested.get("enforcement")))
        except ValueError as error:
            raise RequestError(str(error)) from error
        return _JSON, "{}"

    @property
    def _router(self) -> Router:
        assert self.router is not None
        return self.router


def own_address(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Return the caller's address, like https://checkip.amazonaws.com."""
    body = f"{environ.get('REMOTE_ADDR', '127.0.0.1')}\n".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def _document(environ: WSGIEnvironment) -> Mapping[str, Any]:
    try:
        document = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or b"{}")
    except ValueError as error:
        raise RequestError("the body must be JSON") from error
    if not isinstance(document, dict):
        raise RequestError("the body must be a JSON object")
    return document
