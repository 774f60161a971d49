"""The interface to one platform: observe its instances and tasks, apply actions, say what is billed.

The controller knows nothing else of a platform.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from dask_starburst.errors import StarburstError
from dask_starburst.events.instances import InstanceTimestamps
from dask_starburst.plan.loop.state import (
    Action,
    Name,
    Observed,
    RunTask,
    SetDesired,
    SetTypes,
    StopTask,
    Task,
    Terminate,
    Worker,
)


@dataclass(frozen=True, slots=True)
class Accepted:
    """An action was accepted; its effect becomes visible later."""

    action: SetDesired | SetTypes | StopTask | Terminate


@dataclass(frozen=True, slots=True)
class Refused:
    """A task was not accepted, for a `reason`. `passing`: the same request may succeed soon."""

    run: RunTask
    reason: str
    passing: bool


@dataclass(frozen=True, slots=True)
class Ran:
    """A call that starts tasks was answered: the tasks that were accepted, and those that were refused."""

    runs: tuple[RunTask, ...]
    tasks: tuple[Task, ...]
    refused: tuple[Refused, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """A call failed as a whole, with an `error`. If its response was lost, the actions may have been executed."""

    actions: tuple[Action, ...]
    error: StarburstError


Outcome: TypeAlias = Accepted | Ran | Failed
#: Called with the outcome of each call, as soon as it is known.
Report: TypeAlias = Callable[[Outcome], None]


class Capacity(Protocol):
    """The instances and tasks of one cluster on one platform."""

    @property
    def name(self) -> str:
        """The name of the pool."""

    @property
    def scheduler_address(self) -> str:
        """The address of the scheduler that workers connect to."""

    @property
    def contact_address(self) -> str:
        """The address of the scheduler that the client connects to."""

    @property
    def reachable(self) -> bool:
        """Whether the client's address is known."""

    def now(self) -> float:
        """Return the platform's time (seconds since the epoch)."""

    def renew_credentials(self) -> None:
        """Load the credentials again, because they were refused."""

    async def observe(
        self, before: Observed, workers: Collection[Worker], members: frozenset[Name], now: float
    ) -> Observed:
        """Return the state of the platform.

        Parameters
        ----------
        before : Observed
            The previous state, with the actions in flight since.
        workers : collection of Worker
            All requested processes.
        members : frozenset of names
            The workers that have connected to the scheduler.
        now : float
            Seconds, the platform's clock.

        Raises
        ------
        LeaseExpired
            The capacity is gone: its lease has ended, or a user has stopped it.
        StarburstError
            A call failed.
        """

    async def prepare(self, observed: Observed) -> None:
        """Look up what the next actions need, such as the scheduler's addresses.

        Raises
        ------
        StarburstError
            A call failed; actions that are `ready` can be applied nevertheless.
        """

    def ready(self, action: Action) -> bool:
        """Whether an action can be applied yet: workers need the address of their scheduler."""

    async def apply(self, actions: Iterable[Action], observed: Observed, report: Report) -> None:
        """Apply actions concurrently, in batches where possible; a failure does not affect the others.

        Parameters
        ----------
        actions : iterable of Action
            What `step` has decided, without the actions of the scheduler.
        observed : Observed
            The state that they were decided on.
        report : callable
            Called with the outcome of each call. Nothing is raised for a call that failed.
        """

    async def billable(self, instances: Iterable[str]) -> list[InstanceTimestamps]:
        """Return from when to when these instances are billed, as far as the platform says.

        Raises
        ------
        StarburstError
            The call failed.
        """

    async def explain(self, worker: Worker, lines: int, patience: float = 0.0) -> list[str]:
        """Return the newest log lines of a process, also of an ended one; why they cannot be read, if so.

        `patience`: how long to wait for the first line (seconds).
        """

    async def renew(self, until: float) -> None:
        """Extend the lease: the time (seconds) at which the platform removes the capacity.

        Raises
        ------
        StarburstError
            The call failed.
        """

    async def is_claimed_and_open(self) -> bool:
        """Whether this cluster still holds the pool, and it may have capacity.

        Raises
        ------
        StarburstError
            The call failed.
        """
