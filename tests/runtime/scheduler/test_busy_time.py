"""The scheduler's busy seconds: reported a few times, then dropped."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from dask_starburst.runtime.scheduler.busy_time import BusyTime


def scheduler(*names: int) -> Any:
    workers = {name: SimpleNamespace(name=name, processing=[]) for name in names}
    return SimpleNamespace(workers=workers, handlers={})


def test_removed_workers_are_reported_a_few_times_and_then_dropped():
    here = scheduler(0, 1)
    busy_time = BusyTime(here)
    for name in range(1000):
        busy_time._busy[name] = 1.0 + name

    async def ask() -> dict[Any, float]:
        return await busy_time.starburst_report_spending(0.0, 0.0)

    told = [asyncio.run(ask()) for _ in range(5)]
    assert told[0] == told[1] == told[2] == {name: 1.0 + name for name in range(1000)}
    assert told[3] == told[4] == {0: 1.0, 1: 2.0}


def test_a_worker_that_reconnects_is_still_reported():
    here = scheduler(0)
    busy_time = BusyTime(here)
    busy_time._busy.update({0: 5.0, 1: 7.0})

    async def ask() -> dict[Any, float]:
        return await busy_time.starburst_report_spending(0.0, 0.0)

    asyncio.run(ask())
    here.workers.update(scheduler(1).workers)
    assert [asyncio.run(ask()) for _ in range(4)][-1] == {0: 5.0, 1: 7.0}
