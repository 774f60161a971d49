"""The control API under ``/_local/``: what a test wants to see and to change."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dask_starburst.local.backend.addresses import Network
from dask_starburst.local.backend.world import World
from dask_starburst.local.containers.fake import PlayedContainers
from dask_starburst.local.containers.processes import Containers
from dask_starburst.local.faults.scenario import Scenario
from dask_starburst.local.http.router import Gate
from dask_starburst.local.injector import Injector

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

Reply = tuple[str, str]  # content type, body
_JSON = "application/json"


class RequestError(Exception):
    """A request that makes no sense. The message says why."""


class Control:
    """The WSGI application of the control API.

    Parameters
    ----------
    world, network, containers : World, Network, Containers
        What it tells of.
    shutdown : callable
        What ends the server. It returns at once.
    reset : callable
        What makes it as new.
    """

    def __init__(
        self,
        world: World,
        network: Network,
        containers: Containers | PlayedContainers,
        shutdown: Callable[[], None],
        reset: Callable[[], None],
    ) -> None:
        self._world = world
        self._network = network
        self._containers = containers
        self._shutdown = shutdown
        self._reset = reset
        self.gate: Gate | None = None  # the router and the injector are built last: they need this object
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
        match environ["REQUEST_METHOD"], name:
            case "GET", "status":
                return _JSON, json.dumps(self._status())
            case "POST", "clock":
                return self._set_clock(_document(environ))
            case "GET", "faults":
                return _JSON, json.dumps(self._past())
            case "POST", "faults":
                return self._order(_document(environ))
            case "POST", "throttle":
                return self._set_throttle(_document(environ))
            case "GET", "tasks":
                return _JSON, json.dumps(self._tasks())
            case "GET", "instances":
                return _JSON, json.dumps(self._instances())
            case "POST", "end":
                return self._end(_document(environ))
            case "POST", "reset":
                self._reset()
                return _JSON, "{}"
            case "POST", "shutdown":
                self._shutdown()
                return _JSON, "{}"
        raise RequestError(f"there is no {environ['REQUEST_METHOD']} /_local/{name}")

    def _status(self) -> dict[str, Any]:
        with self._world.lock:
            machines = [machine.state for machine in self._world.machines.values()]
            running = sum(task.status == "RUNNING" for task in self._world.tasks.values())
            clusters = sorted(each.name for each in self._world.clusters.values() if each.status == "ACTIVE")
            desired = sum(group.desired for group in self._world.groups.values())
        calls, throttled = self._gate.snapshot()
        return {
            "pid": os.getpid(),
            "region": self._world.region,
            "instances": {"running": machines.count("running"), "pending": machines.count("pending")},
            "tasks": {"running": running},
            "clusters": clusters,
            "desired": desired,
            "containers": self._containers.running(),
            "calls": calls,
            "throttled": throttled,
            "now": self._world.now(),
            "speed": self._world.clock.speed,
            "late": self._world.late,
            "network": self._network.cidr,
            "aliases": self._network.aliases,
            "scheduler_port": self._network.scheduler_port,
        }

    def _tasks(self) -> list[dict[str, Any]]:
        with self._world.lock:
            return [
                {
                    "id": task.id,
                    "status": task.status,
                    "containerInstanceArn": task.instance.arn,
                    "overrides": task.overrides,
                    "connected_at": task.instance.connected_at,
                    "created_at": task.created_at,
                    "started_at": task.times.get("startedAt"),
                }
                for task in self._world.tasks.values()
            ]

    def _instances(self) -> list[dict[str, Any]]:
        with self._world.lock:
            return [
                {
                    "id": machine.id,
                    "type": machine.instance_type,
                    "market": machine.lifecycle,
                    "zone": machine.zone,
                    "state": machine.state,
                    "group": machine.group,
                    "launched_at": machine.launched_at,
                    "ended_at": machine.ended_at,
                    "interrupted": machine.taken,
                }
                for machine in self._world.history
            ]

    def _end(self, wanted: Mapping[str, Any]) -> Reply:
        task = self._world.tasks.get(str(wanted.get("task")))
        if task is None or not isinstance(self._containers, PlayedContainers):
            raise RequestError("only a task that exists and is no process can be ended so")
        for container in task.containers:
            self._containers.end(task.container_key(container), 0)
        return _JSON, "{}"

    def _set_clock(self, wanted: Mapping[str, Any]) -> Reply:
        try:
            if "speed" in wanted:
                self._world.clock.set_speed(float(wanted["speed"]))
            if "advance" in wanted:
                self._world.clock.advance(float(wanted["advance"]))
        except (TypeError, ValueError) as error:
            raise RequestError(str(error)) from error
        return _JSON, json.dumps({"now": self._world.now(), "speed": self._world.clock.speed})

    def _order(self, wanted: Mapping[str, Any]) -> Reply:
        assert self.injector is not None
        try:
            self.injector.order(Scenario.from_json(wanted))
        except ValueError as error:
            raise RequestError(str(error)) from error
        return _JSON, "{}"

    def _past(self) -> list[dict[str, Any]]:
        assert self.injector is not None
        with self._world.lock:
            return list(self.injector.past)

    def _set_throttle(self, wanted: Mapping[str, Any]) -> Reply:
        self._gate.throttle.enabled = bool(wanted.get("on"))
        return _JSON, json.dumps({"on": self._gate.throttle.enabled})

    @property
    def _gate(self) -> Gate:
        assert self.gate is not None
        return self.gate


def own_address(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Tell a caller its address, as https://checkip.amazonaws.com does."""
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
