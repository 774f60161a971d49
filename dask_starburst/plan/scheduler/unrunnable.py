"""Tasks that no worker of the cluster can run, and the message about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Seconds for which a task waits for a missing worker, which may reconnect.
GRACE = 15.0
#: Seconds after which a task is reported whose resources no known worker offers, before the first worker has started.
SUSPECT = 30.0


@dataclass(frozen=True, slots=True)
class Restricted:
    """A task without a worker that may run it.

    Parameters
    ----------
    key : str
        The key of the task.
    waited : float
        Seconds since the scheduler has had no worker for it.
    resources : mapping of str to float
        The required resources: ``{"GPU": 1}``.
    places : tuple of str
        The workers or hosts that it is restricted to.
    there : bool
        Whether one of these is connected, even if it takes no tasks now.
    """

    key: str
    waited: float
    resources: Mapping[str, float]
    places: tuple[str, ...] = ()
    there: bool = False

    @property
    def restriction(self) -> str:
        """The restriction as arguments of ``submit``."""
        resources = ", ".join(f"{name!r}: {amount:g}" for name, amount in sorted(self.resources.items()))
        said = [f"resources={{{resources}}}"] if resources else []
        return " and ".join([*said, *([f"workers={list(self.places)}"] if self.places else [])])


def out_of_reach(task: Restricted, offered: Mapping[str, float], *, known: bool) -> bool:
    """Return whether no new worker can run a task, so that adaptive scaling must ignore it.

    A task without restrictions can run on any worker. A new worker has an address that no client can have named, and
    offers the configured resources.

    Parameters
    ----------
    task : Restricted
        The task.
    offered : mapping of str to float
        The largest amount of each resource that any worker has offered or is configured to offer.
    known : bool
        Whether a new worker cannot offer more than that.
    """
    return bool(task.places and not task.there) or (known and lacking(task, offered))


def hopeless(task: Restricted, offered: Mapping[str, float], *, known: bool) -> bool:
    """Return whether no worker can run a task, not even one that reconnects; parameters as for `out_of_reach`."""
    returns = task.places and not task.there and task.waited < GRACE and not (known and lacking(task, offered))
    return not returns and out_of_reach(task, offered, known=known)


def lacking(task: Restricted, offered: Mapping[str, float]) -> bool:
    """Return whether a task requires more of a resource than any worker offers."""
    return any(amount > offered.get(name, 0.0) for name, amount in task.resources.items())


def suspect(task: Restricted, offered: Mapping[str, float]) -> bool:
    """Return whether a task has waited long enough for an unknown resource to report it."""
    return task.waited >= SUSPECT and lacking(task, offered)


def advice(task: Restricted, count: int, workers: tuple[str, ...]) -> str:
    """Return the message about tasks with the same restriction that cannot run, with what to do.

    Parameters
    ----------
    task : Restricted
        One of the tasks.
    count : int
        The number of tasks.
    workers : tuple of str
        Names of some existing workers.
    """
    others = f" and {count - 1} more" if count > 1 else ""
    text = f"task {task.key}{others} cannot run: submitted with {task.restriction},"
    if task.places and not task.there:
        text += f" and no such worker exists (workers: {', '.join(workers) or 'none'}). Submit it with workers=[…] from"
        text += " this list, with allow_other_workers=True, or without workers=;"
    else:
        text += " which no worker of this cluster offers. Submit it without resources=;"
    return f"{text} future.cancel() cancels it. It counts neither for idle_timeout nor for adaptive scaling."
