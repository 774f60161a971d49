"""The number of workers that the tasks of a group require; the same rules as Dask's for a whole cluster."""

from __future__ import annotations

import asyncio

import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st

from dask_starburst.plan.scheduler.group_target import GroupLoad, group_target


@pytest.mark.parametrize(
    ("load", "workers"),
    [
        (GroupLoad(), 0),
        (GroupLoad(ready=1, seconds=0.001), 1),
        (GroupLoad(ready=100, seconds=50.0), 10),
        (GroupLoad(ready=3, seconds=500.0), 3),  # no more threads than tasks
        (GroupLoad(ready=100, seconds=50.0, workers=2, nthreads=8), 3),  # four threads each
        (GroupLoad(processing=8, seconds=40.0, workers=2, nthreads=8), 2),
        (GroupLoad(workers=2, nthreads=8), 0),  # the caller asks which of them may go
        (GroupLoad(workers=2, nthreads=2, memory_limit=100, nbytes=61), 4),
        (GroupLoad(workers=2, nthreads=2, memory_limit=100, nbytes=59), 0),
        (GroupLoad(workers=2, nthreads=2, memory_limit=0, nbytes=59), 0),
    ],
)
def test_a_group_has_the_threads_to_finish_in_time(load: GroupLoad, workers: int):
    assert group_target(load, 5.0) == workers


@given(st.integers(0, 300), st.floats(0, 1e5), st.integers(0, 20), st.integers(1, 8))
def test_more_work_never_requires_fewer_workers(tasks: int, seconds: float, workers: int, threads: int):
    load = GroupLoad(ready=tasks, seconds=seconds, workers=workers, nthreads=workers * threads)
    more = GroupLoad(ready=tasks + 1, seconds=seconds + 1, workers=workers, nthreads=workers * threads)
    assert group_target(load, 5.0) <= group_target(more, 5.0) <= tasks + 1 if workers == 0 else True


@pytest.mark.parametrize("tasks", [1, 7, 90])
def test_a_group_that_is_the_whole_cluster_has_dasks_own_target(tasks: int):
    async def targets() -> tuple[int, int]:
        async with (
            LocalCluster(n_workers=0, processes=False, dashboard_address=":0", asynchronous=True) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            futures = client.map(str, range(tasks))
            scheduler = cluster.scheduler
            while len(scheduler.tasks) < tasks:
                await asyncio.sleep(0.01)
            waiting = [*scheduler.unrunnable, *scheduler.queued]
            seconds = sum(scheduler._get_prefix_duration(task.prefix) for task in waiting)
            found = scheduler.adaptive_target(5), group_target(GroupLoad(ready=len(waiting), seconds=seconds), 5.0)
            del futures
            return found

    dasks, ours = asyncio.run(targets())
    assert dasks == ours > 0
