"""The lifecycle of a task: placed, image pulled, started as a real process, stopped."""

from __future__ import annotations

import functools
import os
import signal

from dask_starburst.local.backend.backend import Backend
from dask_starburst.local.backend.state import Container, Task
from dask_starburst.local.backend.timing import Step
from dask_starburst.local.containers.awslogs import LogShipper, log_stream
from dask_starburst.local.containers.fake import FakeContainers
from dask_starburst.local.containers.images import Images
from dask_starburst.local.containers.processes import Containers
from dask_starburst.local.containers.secrets import SecretError, resolve
from dask_starburst.local.services.ecs import rights
from dask_starburst.local.services.ecs.network import Interfaces
from dask_starburst.local.services.ecs.placement import release

_STOP_TIMEOUT = 30.0  # default of ECS_CONTAINER_STOP_TIMEOUT
_HOST_STOP_SECONDS = 10.0  # Docker's default between SIGTERM and SIGKILL, if the host shuts down
_WATCHED_A_TICK = 100
_SHOWN = 3600.0  # ECS shows stopped tasks for at least an hour
# The only environment variables of this computer that containers inherit.
_PASSED_ON = ("LANG", "TMPDIR", "PYTHONPATH")


def inherited() -> dict[str, str]:
    """Return the environment variables of this computer that containers inherit."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


class TaskLife:
    """Runs the lifecycle of every task.

    Parameters
    ----------
    backend : Backend
        The state and timers.
    containers : Containers
        The container processes.
    logs : LogShipper
        Receives their output.
    interfaces : Interfaces
        Deletes the network interfaces of tasks.
    images : Images
        The Python of each image.
    """

    def __init__(
        self,
        backend: Backend,
        containers: Containers | FakeContainers,
        logs: LogShipper,
        interfaces: Interfaces,
        images: Images,
    ) -> None:
        self._backend = backend
        self._containers = containers
        self._logs = logs
        self._interfaces = interfaces
        self._images = images
        self._live: dict[str, tuple[Task, Container]] = {}  # containers with a process, by key
        self._turn: list[str] = []
        self._exit_overrides: dict[str, tuple[int, str | None]] = {}  # exit code and reason of killed ones

    def begin(self, task: Task) -> None:
        """Continue a placed task."""
        if task.fargate:
            self._backend.after("fargate host", lambda: self._pull(task))
        elif task.interface is not None:
            self._backend.after("placement", lambda: self._backend.after("interface", lambda: self._pull(task)))
        else:
            self._backend.after("placement", lambda: self._pull(task))

    def stop(self, task: Task, reason: str, code: str) -> None:
        """Stop a task: SIGTERM, and SIGKILL after the stop timeout."""
        if task.desired == "STOPPED":
            return
        task.desired = "STOPPED"
        task.stopped_reason, task.stop_code = reason, code
        self._mark(task, "stoppingAt")
        self._backend.after("signal", lambda: self._terminate(task))

    def end(self, task: Task, reason: str) -> None:
        """End a task at once, together with its host."""
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
        """Kill a task's processes, and report an exit code and a reason."""
        for key in self._live_keys(task):
            self._exit_overrides[key] = (exit_code, reason)
            self._containers.kill(key)

    def fail(self, task: Task, reason: str) -> None:
        """Stop a task that cannot start, or cannot be placed."""
        task.desired, task.stop_code, task.stopped_reason = "STOPPED", "TaskFailedToStart", reason
        for key in self._live_keys(task):
            self._containers.kill(key)
        if not self._live_keys(task):
            self._finish(task)

    def host_shuts_down(self, task: Task) -> None:
        """Send SIGTERM as Docker does when its host shuts down, and SIGKILL after Docker's own timeout."""
        task.stop_code = task.stop_code or "TerminationNotice"
        task.stopped_reason = task.stopped_reason or f"Host EC2 (instance {task.instance.ec2_instance.id}) terminated."
        task.desired = "STOPPED"
        self._signal(task, signal.SIGTERM)
        for key in self._live_keys(task):
            self._backend.at(self._backend.now() + _HOST_STOP_SECONDS, functools.partial(self._kill, key))

    def watch(self) -> None:
        """Ship the logs, then check for processes that have exited."""
        ended = []
        for key in self._next_to_watch():
            code = self._containers.poll(key)
            if code is not None:
                ended.append((key, *self._live[key], code))
        self._logs.ship()
        for key, task, container, code in ended:
            del self._live[key]
            container.exit_code, container.reason = self._exit_overrides.pop(key, (code, container.reason))
            container.status = "STOPPED"
            self._container_ended(task, container)

    def _next_to_watch(self) -> list[str]:
        """Return a part of the containers, so that a tick does not poll a thousand processes."""
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
        self._backend.after(step, lambda: self._start(task))

    def _start(self, task: Task) -> None:
        if task.desired == "STOPPED":
            return
        self._mark(task, "pullStoppedAt")
        lacking = self._without_image(task)
        if lacking is not None:
            lacking.reason = rights.pull_denial(self._backend, task, lacking) or _cannot_pull(lacking)
            self.fail(task, "Task failed to start")
            return
        task.instance.ec2_instance.images.update(_images(task))
        false_start = self._backend.pending_faults.false_start(task)
        try:
            for container in task.containers:
                denied = rights.secrets_denial(self._backend, task, container)
                if denied is not None:
                    raise SecretError(denied)
                self._spawn(task, container, self._environment(task, container), false_start)
        except SecretError as error:
            self.fail(task, str(error))
        except _StartError as error:
            error.container.reason = str(error)
            self.fail(task, "Task failed to start")
        else:
            task.status = "RUNNING"
            self._mark(task, "startedAt")
            self._mark(task, "connectivityAt")

    def _without_image(self, task: Task) -> Container | None:
        """Return a container whose image is missing or whose pull fails."""
        if _is_cached(task):
            return None
        if self._backend.pending_faults.pull_fails(task):
            return task.containers[0]
        return next((each for each in task.containers if self._cannot_be_pulled(task, each)), None)

    def _cannot_be_pulled(self, task: Task, container: Container) -> bool:
        denied = rights.pull_denial(self._backend, task, container) is not None
        return denied or self._images.missing(container.definition["image"])

    def _spawn(
        self, task: Task, container: Container, environment: dict[str, str], false_start: tuple[int, str] | None
    ) -> None:
        definition = container.definition
        argv = [*(definition.get("entryPoint") or []), *(definition.get("command") or [])]
        if not argv:
            raise _StartError(container, "CannotStartContainerError: Error response from daemon: no command specified")
        stream, denied = log_stream(task, container), rights.log_denial(self._backend, task, container)
        if denied is not None:
            raise _StartError(container, denied)
        if stream is not None and not self._logs.open(stream, self._backend.now()):
            raise _StartError(
                container,
                "CannotStartContainerError: Error response from daemon: failed to initialize logging driver: failed to "
                "create Cloudwatch log stream: operation error CloudWatch Logs: CreateLogStream, https response error "
                "StatusCode: 400, ResourceNotFoundException: The specified log group does not exist.",
            )

        def on_line(when: float, line: str) -> None:
            if stream is not None:
                self._logs.append(stream, self._backend.now(), line)

        key = task.container_key(container)
        argv, environment = self._images.dress(definition["image"], argv, environment, task.address)
        if false_start is not None:
            code, line = false_start
            if line:
                on_line(0.0, line.replace("{program}", argv[0]))
            self._exit_overrides[key] = (code, None)
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
        url = self._backend.private_url
        definition = container.definition
        metadata = url("imds", task.instance.ec2_instance.id) + "/"
        instance = {} if task.fargate else {"AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata}
        return {
            **inherited(),
            "PATH": os.environ.get("PATH", os.defpath),
            "HOSTNAME": f"ip-{task.address.replace('.', '-')}.ec2.internal",
            "AWS_REGION": self._backend.region,
            "AWS_DEFAULT_REGION": self._backend.region,
            "AWS_ENDPOINT_URL": self._backend.endpoint_url,
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE" if task.fargate else "AWS_ECS_EC2",
            **instance,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": url("credentials", task.id),
            "ECS_CONTAINER_METADATA_URI_V4": url("ecs/v4", task.id),
            **{item["name"]: item.get("value", "") for item in definition["environment"]},
            **{
                item["name"]: resolve(item["valueFrom"], self._backend.region) for item in definition.get("secrets", [])
            },
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
            self._backend.at(self._backend.now() + timeout, functools.partial(self._kill, key))

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
            # While its host shuts down, ECS does not report it until the host is terminated: the agent is gone too.
            self._finish(task)
        elif container.essential:
            self.stop(task, "Essential container in task exited", "EssentialContainerExited")

    def _finish(self, task: Task) -> None:
        if task.interface is None:
            self._stopped(task)
        elif task.status not in ("DEPROVISIONING", "STOPPED"):
            # Its interface is deleted first, and until then the task counts as active.
            task.status, task.desired = "DEPROVISIONING", "STOPPED"
            task.interface.status = "DETACHING"
            self._mark(task, "executionStoppedAt")
            self._backend.after("deprovision", lambda: self._stopped(task))

    def _stopped(self, task: Task) -> None:
        if task.interface is not None:
            self._interfaces.delete(task.interface)
        task.status = task.desired = "STOPPED"
        for container in task.containers:
            container.status = "STOPPED"
        for name in ("stoppingAt", "executionStoppedAt", "stoppedAt"):
            task.times.setdefault(name, self._backend.now())
        task.version += 1
        release(task)
        self._backend.at(self._backend.now() + _SHOWN, lambda: self._forget(task))

    def _forget(self, task: Task) -> None:
        self._backend.tasks.pop(task.id, None)
        for key in map(task.container_key, task.containers):
            self._containers.forget(key)
            self._exit_overrides.pop(key, None)
        for stream in map(functools.partial(log_stream, task), task.containers):
            if stream is not None:
                self._logs.close(stream)
        cluster = self._backend.clusters.get(task.cluster)
        if cluster is not None:
            cluster.tasks.pop(task.id, None)

    def _mark(self, task: Task, what: str) -> None:
        task.times[what] = self._backend.now()
        task.version += 1


def _images(task: Task) -> set[str]:
    return {container.definition["image"] for container in task.containers}


def _is_cached(task: Task) -> bool:
    """Return whether the instance has cached the images of a task, and its agent uses the cache."""
    ec2_instance = task.instance.ec2_instance
    return ec2_instance.prefers_cached and _images(task) <= ec2_instance.images


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
