"""Read the logs of a cluster from CloudWatch, where they outlive its processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dask_starburst.fleet.controller.loop import Controller
from dask_starburst.plan.loop.state import Name

#: The most lines that CloudWatch returns in one call.
MOST_LINES = 10_000


async def read_logs(controller: Controller, scheduler: bool, workers: Mapping[Name, Name] | None) -> dict[Name, str]:
    """Return the newest log lines of every process that was launched, including ended ones.

    Parameters
    ----------
    controller : Controller
        The controller whose processes are read.
    scheduler : bool
        Whether to read the scheduler's log.
    workers : mapping, optional
        The titles of workers by their names, as `chosen_names` returns them; None for all, titled by name.

    Returns
    -------
    dict of name to str
        Text by title; the scheduler's title is ``Scheduler``. ``(replaced)`` is appended to the title of an earlier
        process of the same name.
    """
    logs: dict[Name, str] = {}
    for process in reversed(controller.roster.launched):
        head = process.is_scheduler
        if not (scheduler if head else workers is None or process.name in workers):
            continue
        title = "Scheduler" if head else process.name if workers is None else workers[process.name]
        while title in logs:
            title = f"{title} (replaced)"
        logs[title] = "\n".join(await controller.capacity.explain(process, MOST_LINES))
    return logs


def chosen_names(workers: bool | Iterable[Name], known: Mapping[Any, Any]) -> dict[Name, Name] | None:
    """Return the titles of the chosen workers' logs by worker name; None for all workers.

    Parameters
    ----------
    workers : bool or iterable of int or str
        All, none, or names and addresses, as in Dask's ``get_logs``. What is given becomes the title.
    known : mapping
        The scheduler's information about each worker, by address.
    """
    if isinstance(workers, bool):
        return None if workers else {}
    return {known[w]["name"] if w in known else w: w for w in workers}
