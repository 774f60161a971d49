"""The client of the embedded AWS: start it, control it, and read its status."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from dask_starburst.errors import LocalAWSError
from dask_starburst.local import endpoints
from dask_starburst.local.backend.keys import Credentials, Keys, Private
from dask_starburst.local.control_client import Control, LocalStatus
from dask_starburst.local.faults.events import Error, Event
from dask_starburst.local.faults.scenario import Scenario
from dask_starburst.local.launcher import Handshake, Server, server_options, word_of
from dask_starburst.local.sdk import environment, session

if TYPE_CHECKING:
    import boto3


class LocalAWS:
    """An embedded AWS on this computer.

    Every method is thread-safe. A forked process may use it, but only the process that
    started it can stop it.

    Parameters
    ----------
    region : str
        The region to simulate.
    timing : {"none", "fast", "realistic"}
        How long instances and tasks take to start: no time, a little, or as in published measurements. Whatever
        you measure with any of them is *simulated*.
    speed : float
        Virtual seconds in one real second.
    seed : int
        The seed of its random choices.
    aliases : bool, optional
        Whether each instance has its own address. By default, where the computer supports it (Linux).
    processes : bool
        Whether tasks run as processes. If not, they are only recorded, which allows thousands of them.
    latency : tuple of float
        The range in real seconds of a random delay of every AWS call. AWS takes some tens of milliseconds.
    images : mapping of str to str, optional
        The Python executable that runs containers of other images, by the prefix of the image's name,
        such as ``"daskdev/"``. All other images run in the Python of the embedded AWS.
    iam : bool or "templates"
        Whether to enforce the IAM policies of users and roles. The owner's credentials may do everything; create a user
        and an access key to try a policy. With ``"templates"`` every UpdateAutoScalingGroup also needs the rights of
        the group's launch template, as AWS may ask (its pages contradict each other).
    fork : bool
        Whether containers of Dask are forked from a process that has imported it, where the computer supports it
        (Linux). If not, each starts a new Python and imports everything, as a real container does.

    Raises
    ------
    LocalAWSError
        On start: it is not ready within a minute, or moto is not installed.

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
        iam: bool | str = False,
        fork: bool = True,
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
            iam=iam,
            fork=fork,
        )
        self._lock = threading.RLock()
        self._server: Server | None = None
        self._handshake: Handshake | None = None
        self._keys: Keys | None = None
        self._session: boto3.Session | None = None

    @classmethod
    def connect(cls, endpoint_url: str) -> LocalAWS:
        """Return a handle on a running one. Stopping the handle does not stop the server.

        Only the user who started it can connect: its token is in a file that no other user can read.
        """
        keys = Keys(endpoints.read(endpoint_url).token)
        status = Control(endpoint_url, keys.token).status()
        handle = cls(region=status.region)
        handle._keys = keys
        handle._handshake = Handshake(
            endpoint_url.rstrip("/"), status.pid, status.network, status.aliases, status.scheduler_port
        )
        return handle

    def start(self) -> LocalAWS:
        """Start it if it is not running, and return it."""
        with self._lock:
            if self._handshake is None:
                server = Server(self._options)
                handshake = server.wait_for_handshake()
                try:
                    found = endpoints.read(handshake.endpoint_url)
                except LocalAWSError:
                    server.stop(at_once=True)
                    raise
                endpoints.remember(found)
                self._keys, self._handshake, self._server = Keys(found.token), handshake, server
        return self

    def stop(self) -> None:
        """Stop it and everything that runs on it. Idempotent."""
        with self._lock:
            if self._server is not None and self._server.owner == os.getpid():
                self._server.stop()
                self._server = self._handshake = self._session = self._keys = None

    def __enter__(self) -> LocalAWS:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def endpoint_url(self) -> str:
        """Its URL, for ``endpoint_url=`` and ``AWS_ENDPOINT_URL``."""
        return self._running.endpoint_url

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._running.pid

    @property
    def network(self) -> str:
        """The loopback network of its instances' addresses."""
        return self._running.network

    @property
    def aliases(self) -> bool:
        """Whether each instance has its own address."""
        return self._running.aliases

    @property
    def scheduler_port(self) -> int:
        """The port that a Dask scheduler should listen on."""
        return self._running.scheduler_port

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that direct AWS SDKs and the AWS CLI to this one, with the owner's credentials."""
        return environment(self.endpoint_url, self.region, self._own_keys.owner)

    def session(self) -> boto3.Session:
        """Return a boto3 session whose clients all call this one."""
        return session(self.endpoint_url, self.region, self._own_keys.owner)

    def private_url(self, private: Private, id: str) -> str:
        """Return the secret URL of an instance's or a task's own metadata.

        Only the processes of that instance or task, and the owner, know it.

        Parameters
        ----------
        private : {"imds", "agent", "ecs/v4", "credentials", "checkip"}
            Instance metadata or the ECS agent, by the id of an instance; task metadata or credentials, by the id of a
            task; or the service that returns the caller's address, by any word.
        id : str
            The instance or task.
        """
        return self.endpoint_url + self._own_keys.path(private, id)

    def client(self, service: str) -> Any:
        """Return a boto3 client for a service, such as ``"ecs"``."""
        # One session, which loads each service model once. It is not thread-safe.
        with self._lock:
            self._session = self._session or self.session()
            return self._session.client(service)

    def status(self) -> LocalStatus:
        """Return its current status."""
        return self._control.status()

    def now(self) -> float:
        """Return the virtual time in seconds since 1970."""
        return self.status().now

    def advance(self, seconds: float) -> None:
        """Advance the virtual clock at once."""
        self._control.post("clock", {"advance": seconds})

    def set_speed(self, speed: float) -> None:
        """Set the number of virtual seconds in one real second."""
        self._control.post("clock", {"speed": speed})

    def inject(self, action: str, code: str, message: str, *, status: int = 400, times: int = 1) -> None:
        """Make the next ``times`` calls of an action, such as ``"ecs:RunTask"``, fail with an AWS error."""
        self.play([Error(action=action, code=code, message=message, status=status, count=times)])

    def play(self, scenario: Scenario | Iterable[Event], *, seed: int = 0) -> None:
        """Play a scenario of faults. Faults due at once have been applied when this returns.

        Parameters
        ----------
        scenario : Scenario or iterable of Event
            Faults of `dask_starburst.local.faults`. Their times are relative to now.
        seed : int
            Chooses open targets, if only events are given.
        """
        script = scenario if isinstance(scenario, Scenario) else Scenario(scenario, seed)
        self._control.post("faults", script.to_json())

    def past_faults(self) -> list[dict[str, Any]]:
        """Return the injected faults: ``at`` (seconds since 1970), ``kind``, and ``hit``, ids of instances or tasks."""
        return self._control.past_faults()

    def throttle(self, on: bool) -> None:
        """Turn AWS's documented request limits on or off (the default)."""
        self._control.post("throttle", {"on": on})

    def enforce_iam(self, enforcement: bool | str) -> None:
        """Turn the enforcement of IAM policies on or off, or to ``"templates"``; see the parameter `iam`."""
        self._control.post("iam", {"enforcement": word_of(enforcement)})

    def session_of(self, access_key: str, secret_key: str, token: str | None = None) -> boto3.Session:
        """Return a boto3 session with an access key of an IAM user, or with temporary credentials of a role."""
        return session(self.endpoint_url, self.region, Credentials(access_key, secret_key, token))

    def decisions(self) -> dict[str, Any]:
        """Return what IAM has decided: under ``"decided"`` each check, under ``"unknown"`` calls without known rights.

        A check has ``principal``, ``call``, ``action``, ``resource``, ``context``, ``allowed``, and ``by``, the
        statements that decided. Equal ones are listed once; calls of the owner are not listed.
        """
        return self._control.decisions()

    def tasks(self) -> list[dict[str, Any]]:
        """Return every ECS task, with its overrides and the time its instance connected, without an AWS call."""
        return self._control.listing("tasks")

    def instances(self) -> list[dict[str, Any]]:
        """Return every EC2 instance ever launched, with its launch and end times, without an AWS call."""
        return self._control.listing("instances")

    def end_task(self, task_id: str) -> None:
        """End a task's containers with exit code 0; only with ``processes=False``."""
        self._control.post("end", {"task": task_id})

    def reset(self) -> None:
        """Kill all containers and delete all state: an empty account at the same URL, for the next test."""
        self._control.post("reset", {})

    def shut_down(self) -> None:
        """Shut down the server and everything on it, even one started to stay. It answers before it exits."""
        self._control.post("shutdown", {})

    @property
    def _running(self) -> Handshake:
        handshake = self._handshake
        if handshake is None:
            raise LocalAWSError("This embedded AWS is not running. Use it in a `with` block, or call start().")
        return handshake

    @property
    def _own_keys(self) -> Keys:
        assert self._running is not None  # raises if it is not running
        assert self._keys is not None
        return self._keys

    @property
    def _control(self) -> Control:
        return Control(self.endpoint_url, self._own_keys.token)
