"""The life of a task: placed, pulled, started as a real process, stopped."""

from __future__ import annotations

import functools
import os
import signal

from dask_starburst.local.backend.state import Container, Task
from dask_starburst.local.backend.timing import Step
from dask_starburst.local.backend.world import World
from dask_starburst.local.containers.awslogs import LogShipper, log_stream
from dask_starburst.local.containers.fake import PlayedContainers
from dask_starburst.local.containers.images import Images
from dask_starburst.local.containers.processes import Containers
from dask_starburst.local.containers.secrets import SecretError, resolve
from dask_starburst.local.services.ecs.network import Interfaces
from dask_starburst.local.services.ecs.placement import release

_STOP_TIMEOUT = 30.0  # ECS_CONTAINER_STOP_TIMEOUT's default
_WATCHED_A_TICK = 100
_SHOWN = 3600.0  # ECS shows stopped tasks for at least an hour
# What a container may know of the computer that it runs on. Everything else of our environment stays outside.
_PASSED_ON = ("LANG", "TMPDIR", "PYTHONPATH")


class TaskLife:
    """Takes every task through its life.

    Parameters
    ----------
    world : World
        Where tasks are.
    containers : Containers
        What runs processes.
    logs : LogShipper
        Where their output goes.
    interfaces : Interfaces
        What takes back the network interfaces that tasks had for themselves.
    images : Images
        Whose Python runs which image.
    """

    def __init__(
        self,
        world: World,
        containers: Containers | PlayedContainers,
        logs: LogShipper,
        interfaces: Interfaces,
        images: Images,
    ) -> None:
        self._world = world
        self._containers = containers
        self._logs = logs
        self._interfaces = interfaces
        self._images = images
        self._live: dict[str, tuple[Task, Container]] = {}  # processes, by key
        self._turn: list[str] = []
        self._verdicts: dict[str, tuple[int, str | None]] = {}  # how a process that is killed is said to have ended

    def begin(self, task: Task) -> None:
        """Let a placed task go on."""
        if task.fargate:
            self._world.after("fargate host", lambda: self._pull(task))
        elif task.interface is not None:
            self._world.after("placement", lambda: self._world.after("interface", lambda: self._pull(task)))
        else:
            self._world.after("placement", lambda: self._pull(task))

    def stop(self, task: Task, reason: str, code: str) -> None:
        """Stop a task: SIGTERM, and SIGKILL when its containers' time is over."""
        if task.desired == "STOPPED":
            return
        task.desired = "STOPPED"
        task.stopped_reason, task.stop_code = reason, code
        self._mark(task, "stoppingAt")
        self._world.after("signal", lambda: self._terminate(task))

    def end(self, task: Task, reason: str) -> None:
        """End a task at once, with its host."""
        if task.status == "STOPPED":
            return
        task.desired = "STOPPED"
        if task.stop_code is None:
            task.stop_code, task.stopped_reason = "TerminationNotice", reason
        for container in task.containers:
            key = task.container_key(container)
            if key in self._live:
                self._containers.kill(key)
                del self._live[key]
                container.exit_code = 128 + signal.SIGKILL
        self._finish(task)

    def kill(self, task: Task, exit_code: int, reason: str | None) -> None:
        """Kill a task's processes, which end with an exit code and for a reason."""
        for key in self._live_keys(task):
            self._verdicts[key] = (exit_code, reason)
            self._containers.kill(key)

    def host_shuts_down(self, task: Task) -> None:
        """Send SIGTERM as Docker does when its host shuts down; the host does not wait for long."""
        task.stop_code = task.stop_code or "TerminationNotice"
        task.stopped_reason = task.stopped_reason or f"Host EC2 (instance {task.instance.machine.id}) terminated."
        task.desired = "STOPPED"
        self._signal(task, signal.SIGTERM)

    def watch(self) -> None:
        """Notice processes that have ended, and ship their logs first."""
        ended = []
        for key in self._next_to_watch():
            code = self._containers.poll(key)
            if code is not None:
                ended.append((key, *self._live[key], code))
        self._logs.ship()
        for key, task, container, code in ended:
            del self._live[key]
            container.exit_code, container.reason = self._verdicts.pop(key, (code, container.reason))
            container.status = "STOPPED"
            self._container_ended(task, container)

    def _next_to_watch(self) -> list[str]:
        """Take turns, so that a thousand processes do not cost every tick a thousand system calls."""
        if not self._turn:
            self._turn = list(self._live)
        keys, self._turn = self._turn[:_WATCHED_A_TICK], self._turn[_WATCHED_A_TICK:]
        return [key for key in keys if key in self._live]

    def _pull(self, task: Task) -> None:
        if task.desired == "STOPPED":
            return
        task.status = "PENDING"
        if task.interface is not None:
            task.interface.status = "ATTACHED"
        self._mark(task, "pullStartedAt")
        step: Step = "fargate start" if task.fargate else "cached" if _is_cached(task) else "pull"
        self._world.after(step, lambda: self._start(task))

    def _start(self, task: Task) -> None:
        if task.desired == "STOPPED":
            return
        self._mark(task, "pullStoppedAt")
        lacking = self._without_image(task)
        if lacking is not None:
            lacking.reason = _cannot_pull(lacking)
            self._fail(task, "Task failed to start")
            return
        task.instance.machine.images.update(_images(task))
        false_start = self._world.luck.false_start(task)
        try:
            for container in task.containers:
                self._spawn(task, container, self._environment(task, container), false_start)
        except SecretError as error:
            self._fail(task, str(error))
        except _StartError as error:
            error.container.reason = str(error)
            self._fail(task, "Task failed to start")
        else:
            task.status = "RUNNING"
            self._mark(task, "startedAt")
            self._mark(task, "connectivityAt")

    def _without_image(self, task: Task) -> Container | None:
        """Return a container whose image could not be pulled."""
        if _is_cached(task):
            return None
        if self._world.luck.pull_fails(task):
            return task.containers[0]
        return next((each for each in task.containers if self._images.missing(each.definition["image"])), None)

    def _spawn(
        self, task: Task, container: Container, environment: dict[str, str], false_start: tuple[int, str] | None
    ) -> None:
        definition = container.definition
        argv = [*(definition.get("entryPoint") or []), *(definition.get("command") or [])]
        if not argv:
            raise _StartError(container, "CannotStartContainerError: Error response from daemon: no command specified")
        stream = log_stream(task, container)
        if stream is not None and not self._logs.open(stream, self._world.now()):
            raise _StartError(
                container,
                "CannotStartContainerError: Error response from daemon: failed to initialize logging driver: failed to "
                "create Cloudwatch log stream: operation error CloudWatch Logs: CreateLogStream, https response error "
                "StatusCode: 400, ResourceNotFoundException: The specified log group does not exist.",
            )

        def on_line(when: float, line: str) -> None:
            if stream is not None:
                self._logs.append(stream, self._world.now(), line)

        key = task.container_key(container)
        argv, environment = self._images.dress(definition["image"], argv, environment, task.address)
        if false_start is not None:
            code, line = false_start
            if line:
                on_line(0.0, line.replace("{program}", argv[0]))
            self._verdicts[key] = (code, None)
            argv = ["false"]
        try:
            self._containers.start(key, argv, environment, on_line)
        except OSError as error:
            raise _StartError(
                container,
                "CannotStartContainerError: Error response from daemon: failed to create task for container: failed to "
                f"create shim task: OCI runtime create failed: unable to start container process: {error}",
            ) from error
        if false_start is not None:
            self._containers.kill(key)
        container.status, container.started = "RUNNING", True
        self._live[key] = (task, container)

    def _environment(self, task: Task, container: Container) -> dict[str, str]:
        url = self._world.private_url
        definition = container.definition
        metadata = url("imds", task.instance.machine.id) + "/"
        instance = {} if task.fargate else {"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata}
        return {
            **{name: os.environ[name] for name in _PASSED_ON if name in os.environ},
            "PATH": os.environ.get("PATH", os.defpath),
            "HOSTNAME": f"ip-{task.address.replace('.', '-')}.ec2.internal",
            "AWS_REGION": self._world.region,
            "AWS_DEFAULT_REGION": self._world.region,
            "AWS_ENDPOINT_URL": self._world.endpoint_url,
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE" if task.fargate else "AWS_ECS_EC2",
            **instance,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": url("credentials", task.id),
            "ECS_CONTAINER_METADATA_URI_V4": url("ecs/v4", task.id),
            **{item["name"]: item.get("value", "") for item in definition["environment"]},
            **{item["name"]: resolve(item["valueFrom"], self._world.region) for item in definition.get("secrets", [])},
        }

    def _terminate(self, task: Task) -> None:
        if task.status == "STOPPED":
            return
        if not self._live_keys(task):
            self._finish(task)
            return
        task.status = "STOPPING"
        task.version += 1
        self._signal(task, signal.SIGTERM)
        for container in task.containers:
            timeout = float(container.definition.get("stopTimeout") or _STOP_TIMEOUT)
            key = task.container_key(container)
            self._world.at(self._world.now() + timeout, functools.partial(self._kill, key))

    def _kill(self, key: str) -> None:
        if key in self._live:
            self._containers.kill(key)

    def _signal(self, task: Task, signum: int) -> None:
        for key in self._live_keys(task):
            self._containers.signal(key, signum)

    def _live_keys(self, task: Task) -> list[str]:
        return [key for key in map(task.container_key, task.containers) if key in self._live]

    def _container_ended(self, task: Task, container: Container) -> None:
        task.version += 1
        if not self._live_keys(task):
            if task.stop_code is None:
                task.stop_code = "EssentialContainerExited"
                task.stopped_reason = "Essential container in task exited"
            # While its host shuts down, nobody hears of it before the host is gone: the agent is gone too.
            self._finish(task)
        elif container.essential:
            self.stop(task, "Essential container in task exited", "EssentialContainerExited")

    def _fail(self, task: Task, reason: str) -> None:
        task.desired, task.stop_code, task.stopped_reason = "STOPPED", "TaskFailedToStart", reason
        for key in self._live_keys(task):
            self._containers.kill(key)
        if not self._live_keys(task):
            self._finish(task)

    def _finish(self, task: Task) -> None:
        if task.interface is None:
            self._stopped(task)
        elif task.status not in ("DEPROVISIONING", "STOPPED"):
            # Its interface is taken back first, and until then the task counts as active.
            task.status, task.desired = "DEPROVISIONING", "STOPPED"
            task.interface.status = "DETACHING"
            self._mark(task, "executionStoppedAt")
            self._world.after("deprovision", lambda: self._stopped(task))

    def _stopped(self, task: Task) -> None:
        if task.interface is not None:
            self._interfaces.delete(task.interface)
        task.status = task.desired = "STOPPED"
        for container in task.containers:
            container.status = "STOPPED"
        for name in ("stoppingAt", "executionStoppedAt", "stoppedAt"):
            task.times.setdefault(name, self._world.now())
        task.version += 1
        release(task)
        self._world.at(self._world.now() + _SHOWN, lambda: self._forget(task))

    def _forget(self, task: Task) -> None:
        self._world.tasks.pop(task.id, None)
        for key in map(task.container_key, task.containers):
            self._containers.forget(key)
            self._verdicts.pop(key, None)
        for stream in map(functools.partial(log_stream, task), task.containers):
            if stream is not None:
                self._logs.close(stream)
        cluster = self._world.clusters.get(task.cluster)
        if cluster is not None:
            cluster.tasks.pop(task.id, None)

    def _mark(self, task: Task, what: str) -> None:
        task.times[what] = self._world.now()
        task.version += 1


def _images(task: Task) -> set[str]:
    return {container.definition["image"] for container in task.containers}


def _is_cached(task: Task) -> bool:
    """Tell whether the instance has the images of a task, and its agent uses what it has."""
    machine = task.instance.machine
    return machine.prefers_cached and _images(task) <= machine.images


def _cannot_pull(container: Container) -> str:
    image = container.definition["image"]
    return (
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): failed to resolve ref "
        f"{image}: {image}: not found"
    )


class _StartError(Exception):
    def __init__(self, container: Container, message: str) -> None:
        super().__init__(message)
        self.container = container
