"""The embedded AWS, seen from outside: to start one, to call it, to ask what it does."""

from __future__ import annotations

import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dask_starburst.errors import LocalAWSError
from dask_starburst.local import endpoints
from dask_starburst.local.backend.keys import TOKEN_HEADER, Keys, Private
from dask_starburst.local.faults.events import Error, Event
from dask_starburst.local.faults.scenario import Scenario
from dask_starburst.local.launcher import Hello, Server, server_options
from dask_starburst.local.sdk import environment, session

if TYPE_CHECKING:
    import boto3

_TIMEOUT_SECONDS = 10.0


class LocalAWS:
    """An AWS on this computer, for as long as it is open.

    Every method may be called from any thread. A process forked from this one may use it, but only the process that
    started it can stop it.

    Parameters
    ----------
    region : str
        The region to play.
    timing : {"none", "fast", "realistic"}
        How long instances and tasks take to start: no time at all, a little, or as published measurements say. Whatever
        is measured with any of them is *simulated*.
    speed : float
        How many of its seconds pass in one of ours.
    seed : int
        What its random choices start from.
    aliases : bool, optional
        Whether each instance has an address of its own. By default, wherever the computer can do that (Linux).
    processes : bool
        Whether tasks run as processes. Without, they are only written down: for thousands of them.
    latency : tuple of float
        Between how many of our seconds, drawn evenly, every AWS call is held back. AWS takes some tens of milliseconds.
    images : mapping of str to str, optional
        Which Python runs containers of foreign images: path of its executable by the beginning of the image's name,
        such as ``"daskdev/"``. All other images run in the embedded AWS's own.

    Raises
    ------
    LocalAWSError
        When it is started: it does not come up within a minute, or moto is not installed.

    Examples
    --------
    >>> with LocalAWS() as aws:
    ...     aws.client("ecs").list_clusters()["clusterArns"]
    []
    """

    def __init__(
        self,
        *,
        region: str = "us-east-1",
        timing: str = "fast",
        speed: float = 1.0,
        seed: int = 0,
        aliases: bool | None = None,
        processes: bool = True,
        latency: tuple[float, float] = (0.0, 0.0),
        images: Mapping[str, str] | None = None,
    ) -> None:
        self.region = region
        self._options = server_options(
            region=region,
            timing=timing,
            speed=speed,
            seed=seed,
            aliases=aliases,
            processes=processes,
            latency=latency,
            images=images,
        )
        self._lock = threading.RLock()
        self._server: Server | None = None
        self._hello: Hello | None = None
        self._keys: Keys | None = None
        self._session: boto3.Session | None = None

    @classmethod
    def connect(cls, endpoint_url: str) -> LocalAWS:
        """Return a handle on one that runs already. Stopping the handle leaves it alone.

        Only the user who has started it can do that: its token is in a file that no other user can read.
        """
        keys = Keys(endpoints.read(endpoint_url).token)
        status = Control(endpoint_url, keys.token).status()
        handle = cls(region=status.region)
        handle._keys = keys
        handle._hello = Hello(
            endpoint_url.rstrip("/"), status.pid, status.network, status.aliases, status.scheduler_port
        )
        return handle

    def start(self) -> LocalAWS:
        """Start it, unless it runs, and return it."""
        with self._lock:
            if self._hello is None:
                server = Server(self._options)
                hello = server.wait_for_hello()
                try:
                    found = endpoints.read(hello.endpoint_url)
                except LocalAWSError:
                    server.stop(at_once=True)
                    raise
                endpoints.remember(found)
                self._keys, self._hello, self._server = Keys(found.token), hello, server
        return self

    def stop(self) -> None:
        """Stop it and all that it runs. It is safe to call it twice, or before it was started."""
        with self._lock:
            if self._server is not None and self._server.owner == os.getpid():
                self._server.stop()
                self._server = self._hello = self._session = self._keys = None

    def __enter__(self) -> LocalAWS:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        """Where it answers, for ``endpoint_url=`` and ``AWS_ENDPOINT_URL``."""
        return self._running.endpoint_url

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._running.pid

    @property
    def network(self) -> str:
        """The loopback network that its instances have their addresses in."""
        return self._running.network

    @property
    def aliases(self) -> bool:
        """Whether each instance has an address of its own."""
        return self._running.aliases

    @property
    def scheduler_port(self) -> int:
        """The port that a Dask scheduler should listen on."""
        return self._running.scheduler_port

    @property
    def environment(self) -> dict[str, str]:
        """What makes every AWS SDK of a child process, and the AWS CLI, talk to this one, as the account's owner."""
        return environment(self.endpoint_url, self.region, self._own_keys.owner)

    def session(self) -> boto3.Session:
        """Return a boto3 session all of whose clients talk to this one."""
        return session(self.endpoint_url, self.region, self._own_keys.owner)

    def private_url(self, private: Private, id: str) -> str:
        """Return the address at which an instance or a task asks about itself.

        It cannot be guessed: only the processes of that instance or task, and the owner, know it.

        Parameters
        ----------
        private : {"imds", "agent", "ecs/v4", "credentials", "checkip"}
            Instance metadata or the ECS agent, by the id of an instance; task metadata or credentials, by the id of a
            task; or what tells a caller its address, by any word.
        id : str
            Which instance or task.
        """
        return self.endpoint_url + self._own_keys.path(private, id)

    def client(self, service: str) -> Any:
        """Return a boto3 client of one service, such as ``"ecs"``."""
        # From one session, which reads the description of each service once; it makes one client at a time.
        with self._lock:
            self._session = self._session or self.session()
            return self._session.client(service)

    def status(self) -> LocalStatus:
        """Return what it is doing now."""
        return self._control.status()

    def now(self) -> float:
        """Return its time, in seconds since 1970."""
        return self.status().now

    def advance(self, seconds: float) -> None:
        """Let this much of its time pass at once."""
        self._control.post("clock", {"advance": seconds})

    def set_speed(self, speed: float) -> None:
        """Let ``speed`` of its seconds pass in one of ours from now on."""
        self._control.post("clock", {"speed": speed})

    def inject(self, action: str, code: str, message: str, *, status: int = 400, times: int = 1) -> None:
        """Let the next ``times`` calls of an action, such as ``"ecs:RunTask"``, fail with an AWS error."""
        self.play([Error(action=action, code=code, message=message, status=status, count=times)])

    def play(self, scenario: Scenario | Iterable[Event], *, seed: int = 0) -> None:
        """Play a scenario of faults: those that are due at once have happened when this returns.

        Parameters
        ----------
        scenario : Scenario or iterable of Event
            Faults of `dask_starburst.local.faults`. Their times count from now.
        seed : int
            Chooses the targets that are left open, if only events are given.
        """
        script = scenario if isinstance(scenario, Scenario) else Scenario(scenario, seed)
        self._control.post("faults", script.to_json())

    def past_faults(self) -> list[dict[str, Any]]:
        """Return what has happened: ``at`` (seconds since 1970), ``kind``, and ``hit``, ids of instances or tasks."""
        return self._control.past_faults()

    def throttle(self, on: bool) -> None:
        """Hold callers to AWS's documented request limits, or not (as at the start)."""
        self._control.post("throttle", {"on": on})

    def tasks(self) -> list[dict[str, Any]]:
        """Return every ECS task, with when its instance connected and what it was told; no AWS call is counted."""
        return self._control.listing("tasks")

    def instances(self) -> list[dict[str, Any]]:
        """Return every EC2 instance that there ever was, with its times of launch and end; no AWS call is counted."""
        return self._control.listing("instances")

    def end_task(self, task_id: str) -> None:
        """Let a task's container end by itself, with exit code 0; only without ``processes``."""
        self._control.post("end", {"task": task_id})

    def reset(self) -> None:
        """Kill all containers and forget everything: a new account at the same address, for the next test."""
        self._control.post("reset", {})

    def shut_down(self) -> None:
        """End it and all that it runs, also one that was started to stay. It answers before it has ended."""
        self._control.post("shutdown", {})

    @property
    def _running(self) -> Hello:
        hello = self._hello
        if hello is None:
            raise LocalAWSError("This embedded AWS is not running. Use it in a `with` block, or call start().")
        return hello

    @property
    def _own_keys(self) -> Keys:
        assert self._running is not None  # or it says that it is not running
        assert self._keys is not None
        return self._keys

    @property
    def _control(self) -> Control:
        return Control(self.endpoint_url, self._own_keys.token)


@dataclass(frozen=True)
class LocalStatus:
    """What an embedded AWS is doing at one moment.

    Attributes
    ----------
    pid : int
        Process id of its server.
    region : str
        The region that it plays.
    instances_running, instances_pending : int
        EC2 instances in these states.
    tasks_running : int
        ECS tasks in the state RUNNING.
    clusters : tuple of str
        Names of the ECS clusters that are active.
    desired : int
        Sum of the desired capacity of all Auto Scaling groups.
    containers : mapping of str to int
        Key and process id of every real process that plays a container.
    calls : mapping of str to int
        How often each action was called, as ``"ecs:RunTask"``.
    throttled : int
        How many of these calls were throttled.
    now : float
        Its time, in seconds since 1970.
    speed : float
        How many of its seconds pass in one of ours.
    late : float
        The most of its seconds by which something happened after its time, for want of processor.
    network : str
        The loopback network that its instances have their addresses in.
    aliases : bool
        Whether each instance has an address of its own.
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
        """Read the server's answer."""
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
        # A proxy of the company has nothing to do with 127.0.0.1.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def status(self) -> LocalStatus:
        """Ask what it is doing."""
        try:
            return LocalStatus.from_json(json.loads(self._ask("status")))
        except (ValueError, KeyError, TypeError) as error:
            raise LocalAWSError(
                f"What answers at {self._endpoint_url} is not an embedded AWS of this version ({error!r})."
            ) from error

    def listing(self, what: str) -> list[dict[str, Any]]:
        """Ask what became of every one of ``tasks`` or ``instances``."""
        found: list[dict[str, Any]] = json.loads(self._ask(what))
        return found

    def past_faults(self) -> list[dict[str, Any]]:
        """Ask which faults have been injected."""
        past: list[dict[str, Any]] = json.loads(self._ask("faults"))
        return past

    def post(self, path: str, body: Mapping[str, Any]) -> None:
        """Ask it to do something."""
        self._ask(path, json.dumps(body).encode())

    def _ask(self, path: str, body: bytes | None = None) -> bytes:
        url = f"{self._endpoint_url}/_local/{path}"
        request = urllib.request.Request(url, data=body, headers=self._headers)
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as reply:
                answer: bytes = reply.read()
                return answer
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:500]
            raise LocalAWSError(f"The embedded AWS refused {path} ({error.code}): {said}") from error
        except OSError as error:
            raise LocalAWSError(f"No embedded AWS answers at {self._endpoint_url} ({error}).") from error
