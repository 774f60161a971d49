"""Reading the logs of a cluster where they outlive its processes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from dask_starburst.fleet.fleet import Fleet
from dask_starburst.plan.state import HEAD, Name

#: CloudWatch returns at most so many lines a call.
MOST_LINES = 10_000


async def read_logs(fleet: Fleet, scheduler: bool, workers: Collection[Name] | None) -> dict[Name, str]:
    """Return the newest log lines of every process that was launched, also of those that are gone.

    Parameters
    ----------
    fleet : Fleet
        Its processes.
    scheduler : bool
        Whether to read the scheduler's.
    workers : collection of names, optional
        Names of workers; None for all.

    Returns
    -------
    dict of name to str
        Text by name, and the scheduler's as ``Scheduler``; an earlier process of the same name has ``(replaced)``
        behind it.
    """
    logs: dict[Name, str] = {}
    for process in reversed(fleet.launched):
        head = process.group == HEAD
        if not (scheduler if head else workers is None or process.name in workers):
            continue
        title = "Scheduler" if head else process.name
        while title in logs:
            title = f"{title} (replaced)"
        logs[title] = "\n".join(await fleet.log_tail(process, MOST_LINES))
    return logs


def chosen_names(workers: bool | Iterable[Name], known: Mapping[Any, Any]) -> set[Name] | None:
    """Return the names of the chosen workers, given as Dask's ``get_logs`` takes them; None for all.

    Parameters
    ----------
    workers : bool or iterable of int or str
        All, none, or names and addresses.
    known : mapping
        What the scheduler says of each worker, by address.
    """
    if isinstance(workers, bool):
        return None if workers else set()
    return {known[w]["name"] if w in known else w for w in workers}
