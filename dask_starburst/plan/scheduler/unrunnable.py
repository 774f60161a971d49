"""Tasks that no worker of the cluster can ever run: which they are, and what to say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Seconds for which the worker that a task is for may be away: one whose connection was lost comes back.
GRACE = 15.0
#: Seconds after which it is told that nothing is known to offer what a task asks for, though no worker has come yet.
SUSPECT = 30.0


@dataclass(frozen=True, slots=True)
class Restricted:
    """A task that the scheduler has no worker for.

    Parameters
    ----------
    key : str
        Its key.
    waited : float
        Seconds since the scheduler has had no worker for it.
    resources : mapping of str to float
        What it asks for: ``{"GPU": 1}``.
    places : tuple of str
        The workers or hosts, and no others, that it may run on.
    there : bool
        Whether one of these is there, though it takes no tasks just now.
    """

    key: str
    waited: float
    resources: Mapping[str, float]
    places: tuple[str, ...] = ()
    there: bool = False

    @property
    def restriction(self) -> str:
        """What it was submitted with."""
        resources = ", ".join(f"{name!r}: {amount:g}" for name, amount in sorted(self.resources.items()))
        said = [f"resources={{{resources}}}"] if resources else []
        return " and ".join([*said, *([f"workers={list(self.places)}"] if self.places else [])])


def out_of_reach(task: Restricted, offered: Mapping[str, float], *, known: bool) -> bool:
    """Whether a new worker would be of no use to a task, so that adaptive scaling has to leave it out.

    A task without restrictions waits for workers: it is work as any other. New workers have addresses that no client
    can have named before, and they offer what their configuration says.

    Parameters
    ----------
    task : Restricted
        Which one.
    offered : mapping of str to float
        The most of each resource that any worker has had, now or before, or has by its configuration.
    known : bool
        Whether that is all that a new worker can offer.
    """
    return bool(task.places and not task.there) or (known and lacking(task, offered))


def hopeless(task: Restricted, offered: Mapping[str, float], *, known: bool) -> bool:
    """Whether no worker of this cluster can ever run a task, nor one that comes back; parameters as `out_of_reach`."""
    returns = task.places and not task.there and task.waited < GRACE and not (known and lacking(task, offered))
    return not returns and out_of_reach(task, offered, known=known)


def lacking(task: Restricted, offered: Mapping[str, float]) -> bool:
    """Whether a task asks for more of a resource than any worker offers."""
    return any(amount > offered.get(name, 0.0) for name, amount in task.resources.items())


def suspect(task: Restricted, offered: Mapping[str, float]) -> bool:
    """Whether a task has waited so long for what nothing is known to offer that its user should know."""
    return task.waited >= SUSPECT and lacking(task, offered)


def advice(task: Restricted, count: int, workers: tuple[str, ...]) -> str:
    """Say that some tasks with one restriction cannot run, and what to type.

    Parameters
    ----------
    task : Restricted
        One of them.
    count : int
        How many there are.
    workers : tuple of str
        The names of some workers.
    """
    others = f" and {count - 1} more" if count > 1 else ""
    text = f"task {task.key}{others} cannot run: submitted with {task.restriction},"
    if task.places and not task.there:
        text += f" and no such worker is there (workers: {', '.join(workers) or 'none'}). Submit it with workers=[…] of"
        text += " these, with allow_other_workers=True, or without workers=;"
    else:
        text += " which no worker of this cluster offers. Submit it without resources=;"
    return f"{text} future.cancel() ends it. It counts as work neither for idle_timeout nor for adaptive scaling."
