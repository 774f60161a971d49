"""Events of workers and of the scheduler."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dask_starburst.events.event import Event, ProcessEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady(ProcessEvent):
    """A process is up, `seconds` after ECS placed its task on the instance."""

    kind = "worker-ready"
    instance: str
    seconds: float

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.label} is up ({self.seconds:.1f} s after placement)"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRetiring(ProcessEvent):
    """A worker is transferring its data to others, and will close."""

    kind = "worker-retiring"

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.label} is transferring its data and will close"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRetired(ProcessEvent):
    """The user retired a worker through Dask; it is not replaced."""

    kind = "worker-retired"

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.label} was retired by retire_workers(); not replacing it until scale() or adapt()"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStopped(ProcessEvent):
    """A process has stopped, as requested. `instance` is empty if it is unknown."""

    kind = "worker-stopped"
    instance: str

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.label} has stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLost(ProcessEvent):
    """A worker that was up has ended for a `reason`; it is replaced. `advice`: the next step, or empty."""

    kind = "worker-lost"
    level = logging.WARNING
    reason: str
    instance: str
    advice: str = ""

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.label} lost: {self.reason}; replacing it. {self.advice}".rstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStartFailed(ProcessEvent):
    """A process could not be started. `final`: it is given up; else it is retried. `text` says why."""

    kind = "worker-failed"
    reason: str
    final: bool
    text: str

    @property
    def level(self) -> int:
        """ERROR if it is given up."""
        return logging.ERROR if self.final else logging.WARNING

    @property
    def message(self) -> str:
        """What happened, with the last log lines of the process."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDelayed(ProcessEvent):
    """AWS ended a process while it was starting; it is restarted."""

    kind = "worker-delayed"
    level = logging.WARNING
    reason: str

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.label} was ended by AWS: {self.reason}; restarting it"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRetried(ProcessEvent):
    """A worker that was given up is retried after its rest."""

    kind = "worker-retried"

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.label} was given up; retrying it after its rest"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerFallback(ProcessEvent):
    """A worker is requested in another `placement`, because there is no capacity in the one `before`."""

    kind = "worker-fallback"
    level = logging.WARNING
    placement: str
    before: str
    reason: str = ""

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        why = self.reason or "no instance was launched in time"
        return f"{self.label} falls back to {self.placement}: no {self.before} capacity ({why})"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRefused(ProcessEvent):
    """ECS refused to start the task of a process. `passing`: the reason usually ends without help."""

    kind = "task-refused"
    reason: str
    passing: bool

    @property
    def level(self) -> int:
        """INFO if the reason passes."""
        return logging.INFO if self.passing else logging.WARNING

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.label} waits: {self.reason}; retrying"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUnrunnable(Event):
    """Dask tasks have a `restriction` that no worker of the cluster meets. `text` says which and what to do."""

    kind = "task-unrunnable"
    level = logging.WARNING
    restriction: str
    text: str

    @property
    def subject(self) -> str:
        """The restriction."""
        return self.restriction

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return self.text
