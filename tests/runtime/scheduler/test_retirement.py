"""Notices in the scheduler, with real Dask schedulers and workers in this process."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dask.config
import pytest
from distributed import Client, Scheduler, Worker, get_worker
from distributed.scheduler import KilledWorker

from dask_starburst.plan.loop.state import Name
from dask_starburst.runtime.scheduler.retirement import Retirement

QUICK = {
    "distributed.scheduler.active-memory-manager.interval": "100ms",
    "distributed.comm.timeouts.connect": "5s",
}
MIB = 2**20


def in_a_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run a test that is a coroutine."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


@asynccontextmanager
async def dask_cluster(
    workers: int, margin: float = 0.5, warn_interval: float = 10
) -> AsyncIterator[tuple[Client, list[Worker]]]:
    with dask.config.set(QUICK):
        async with Scheduler(dashboard=False, dashboard_address=":0", host="127.0.0.1", port=0) as scheduler:
            retirement = Retirement(scheduler, margin, warn_interval)
            scheduler.add_plugin(retirement)
            retirement.begin()
            made = [await join(scheduler, n) for n in range(workers)]
            try:
                async with Client(scheduler.address, asynchronous=True) as client:
                    yield client, made
            finally:
                await asyncio.gather(*(worker.close() for worker in made))


async def join(scheduler: Any, name: Name, nthreads: int = 1) -> Worker:
    address = scheduler if isinstance(scheduler, str) else scheduler.address
    return await Worker(address, name=name, nthreads=nthreads, dashboard=False, host="127.0.0.1")


async def notice(client: Client, worker: Worker, seconds: float, kind: str = "interruption") -> None:
    answer = await client.scheduler.starburst_notice(worker=worker.address, kind=kind, seconds=seconds)
    assert answer == "accepted"


async def gone(worker: Worker, within: float = 20.0) -> float:
    """Wait until a worker has closed, and return how long it took."""
    begun = time.monotonic()
    await asyncio.wait_for(worker.finished(), within)
    return time.monotonic() - begun


async def until(condition: Callable[[], bool], within: float = 20.0) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def counts(client: Client) -> dict[str, Any]:
    return dict(await client.scheduler.starburst_spot_counts())


def mark(path: Path, x: int) -> int:
    """Leave a trace of every execution."""
    with path.open("a") as file:
        file.write("x")
    return x


def work(seconds: float, x: int, path: Path | None = None) -> int:
    time.sleep(seconds)
    return x if path is None else mark(path, x)


@in_a_loop
async def test_everything_that_only_it_holds_is_moved_and_nothing_is_computed_again(tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    async with dask_cluster(2) as (client, [one, two]):
        futures = client.map(
            mark, [traces] * 20, range(20), pure=False, workers=[one.address], allow_other_workers=True
        )
        scattered = await client.scatter([b"x" * MIB] * 3, workers=[one.address], hash=False)
        await client.gather(futures)
        held = set(one.data)
        await notice(client, one, 60)
        assert await gone(one) < 10
        assert held <= set(two.data)
        assert sorted(await client.gather(futures)) == list(range(20))
        assert [len(x) for x in await client.gather(scattered)] == [MIB] * 3
        assert len(traces.read_text()) == 20
        said = await counts(client)
        assert (said["interruptions"], said["retired"], said["results_lost"], said["recomputed"]) == (1, 1, 0, 0)
        assert said["keys_moved"] >= len(held)
        assert said["bytes_moved"] >= 3 * MIB
        assert 0 < said["longest"] < 10


@in_a_loop
@pytest.mark.parametrize("order", [("stop", "interruption"), ("interruption", "stop", "interruption")])
async def test_a_worker_that_is_drained_because_spot_takes_it_is_one_interruption(order: tuple[str, ...]) -> None:
    async with dask_cluster(2) as (client, [one, _]):
        long = client.submit(work, 1, 7, workers=[one.address], allow_other_workers=True)
        await until(lambda: bool(one.state.executing))
        for kind in order:
            await notice(client, one, 60, kind)
        await gone(one)
        assert await long == 7
        said = await counts(client)
        assert (said["interruptions"], said["stops"], said["retired"]) == (1, 0, 1)


@in_a_loop
async def test_a_leaving_worker_gets_no_new_tasks_and_finishes_those_that_run(tmp_path: Path) -> None:
    async with dask_cluster(2) as (client, [one, two]):
        traces = tmp_path / "traces"
        long = client.submit(work, 2, 7, traces, workers=[one.address], allow_other_workers=True)
        await until(lambda: bool(one.state.executing))
        await notice(client, one, 60)
        where = await client.gather(client.map(lambda x: get_worker().name, range(8), pure=False))
        assert set(where) == {1}
        assert one.status.name == "closing_gracefully"
        assert await long == 7
        await gone(one)
        assert len(traces.read_text()) == 1, "it ran once"
        assert long.key in two.data


@in_a_loop
async def test_queued_tasks_of_a_leaving_worker_move_to_others_at_once(tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    with dask.config.set({"distributed.scheduler.work-stealing-interval": "1 hour"}):
        async with dask_cluster(2) as (client, [one, _]):
            on_one = {"workers": [one.address], "allow_other_workers": True, "pure": False}
            long = client.submit(work, 4, 0, **on_one)
            await until(lambda: bool(one.state.executing))
            queued = client.map(work, [0.01] * 6, range(6), [traces] * 6, **on_one)
            await until(lambda: len(one.state.tasks) == 7)
            begun = time.monotonic()
            await notice(client, one, 60)
            assert await client.gather(queued) == list(range(6))
            assert time.monotonic() - begun < 3, "no task waits for the long one"
            assert len(traces.read_text()) == 6
            assert await long == 0


@in_a_loop
async def test_the_last_worker_waits_for_another_and_hands_over_when_it_comes(tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    async with dask_cluster(1) as (client, [one]):
        futures = client.map(mark, [traces] * 5, range(5), pure=False)
        await client.gather(futures)
        await notice(client, one, 60)
        await asyncio.sleep(0.5)
        assert one.status.name == "closing_gracefully"
        two = await join(client.scheduler.address, "late")
        await gone(one)
        assert sorted(await client.gather(futures)) == list(range(5))
        assert len(traces.read_text()) == 5
        await two.close()


@in_a_loop
async def test_without_a_recipient_the_worker_closes_before_the_interruption_and_dask_recomputes(
    tmp_path: Path,
) -> None:
    traces = tmp_path / "traces"
    async with dask_cluster(1, margin=1) as (client, [one]):
        futures = client.map(mark, [traces] * 5, range(5), pure=False)
        await client.gather(futures)
        await notice(client, one, 2.5)
        assert 1 < await gone(one) < 2.5 + 2
        [removed] = [e for _, e in await client.get_events("all") if e.get("action") == "remove-worker"]
        assert removed["expected"]
        two = await join(client.scheduler.address, "late")
        assert sorted(await client.gather(futures)) == list(range(5))
        assert len(traces.read_text()) == 10
        said = await counts(client)
        assert (said["results_lost"], said["recomputed"]) == (5, 5)
        await two.close()


@in_a_loop
async def test_all_but_one_may_go_at_once(tmp_path: Path) -> None:
    traces = tmp_path / "traces"
    async with dask_cluster(3) as (client, workers):
        futures = client.map(mark, [traces] * 30, range(30), pure=False)
        await client.gather(futures)
        await asyncio.gather(*(notice(client, worker, 60) for worker in workers[:2]))
        await asyncio.gather(*map(gone, workers[:2]))
        assert set(workers[2].data) == {future.key for future in futures}
        assert len(traces.read_text()) == 30


@in_a_loop
async def test_dasks_own_retirement_does_not_bring_it_back() -> None:
    async with dask_cluster(1) as (client, [one]):
        kept = await client.scatter(1, hash=False)
        await notice(client, one, 60)
        assert not await client.retire_workers([one.address], close_workers=True), "there is no recipient"
        await asyncio.sleep(0.5)
        assert one.status.name == "closing_gracefully"
        two = await join(client.scheduler.address, "late")
        await gone(one)
        assert await kept == 1
        await two.close()


class Counter:
    def add(self) -> int:
        return 1


@in_a_loop
async def test_the_notice_says_that_actors_cannot_be_moved() -> None:
    async with dask_cluster(2, margin=0.2) as (client, [one, _]):
        await client.submit(Counter, actor=True, workers=[one.address])
        await notice(client, one, 0.5)
        await gone(one)
        texts = [event["text"] for _, event in await client.get_events("starburst")]
        assert "1 actors cannot be moved" in texts[0]


class Huge:
    """Something that says of itself that it has 5 GB: one thread's share of a network moves 3.8 in a notice."""

    def __sizeof__(self) -> int:
        return 5 * 10**9


@in_a_loop
async def test_it_warns_once_of_a_worker_on_spot_that_holds_more_than_can_be_moved() -> None:
    async with dask_cluster(2, warn_interval=0.05) as (client, [one, two]):
        await client.scheduler.starburst_watched(name=0)
        held = [client.submit(Huge, workers=[worker.address], pure=False) for worker in (one, two)]
        await asyncio.gather(*held)
        while not (said := await client.get_events("starburst")):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        assert said == await client.get_events("starburst"), "once, and not of one on demand"
        [(_, event)] = said
        assert (event["action"], event["name"]) == ("too-much", 0)
        assert "5.00 GB have no other copy, and about 3.79 GB can be moved" in event["text"]


@in_a_loop
async def test_a_task_is_not_killed_because_aws_took_four_of_its_workers_one_after_the_other() -> None:
    async with dask_cluster(0) as (client, _):
        future = client.submit(work, 3, 5)
        for n in range(4):
            worker = await join(client.scheduler.address, f"w{n}")
            await until(lambda worker=worker: bool(worker.state.executing))  # type: ignore[misc]  # mypy infers no default
            if n % 2:
                await notice(client, worker, 60)
                await vanish(worker)
            else:  # without a notice, and the client finds out that AWS took it
                await vanish(worker)
                await until_removed(client)
                assert await client.scheduler.starburst_clear_suspicion(names=[f"w{n}"]) == 1
            await until_removed(client)
        last = await join(client.scheduler.address, "last")
        assert await future == 5
        await last.close()


@in_a_loop
async def test_a_task_that_kills_its_workers_is_still_found_out() -> None:
    async with dask_cluster(0) as (client, _):
        future = client.submit(work, 3, 5)
        for n in range(4):
            worker = await join(client.scheduler.address, f"w{n}")
            await until(lambda worker=worker: bool(worker.state.executing))  # type: ignore[misc]  # mypy infers no default
            await vanish(worker)
            await until_removed(client)
        with pytest.raises(KilledWorker):
            await future


async def vanish(worker: Worker) -> None:
    """Break its connection without a word, as a host does that is gone."""
    worker.batched_stream.comm.abort()
    await worker.close(nanny=False, executor_wait=False)


async def until_removed(client: Client) -> None:
    while (await client.scheduler.identity())["workers"]:
        await asyncio.sleep(0.02)


@in_a_loop
async def test_a_client_gets_each_notice_once_without_delay() -> None:
    async with dask_cluster(2) as (client, [one, two]):
        assert not await client.scheduler.starburst_next_notices(after=0, timeout=0.05)
        waiting = asyncio.ensure_future(client.scheduler.starburst_next_notices(after=0, timeout=90))
        await asyncio.sleep(0.1)
        await notice(client, one, 120, "rebalance")
        [first] = await asyncio.wait_for(waiting, 5)
        assert (first["number"], first["name"], first["address"], first["kind"]) == (1, 0, one.address, "rebalance")
        assert 110 < first["seconds"] <= 120
        await asyncio.sleep(0.5)
        assert one.status.name == "running", "a recommendation is for the client to decide on"
        await notice(client, two, 100)
        [second] = await client.scheduler.starburst_next_notices(after=1, timeout=90)
        assert (second["number"], second["name"], second["kind"]) == (2, 1, "interruption")


@in_a_loop
async def test_a_worker_retired_by_a_client_is_reported_but_not_one_retired_by_the_cluster() -> None:
    async with dask_cluster(3) as (client, [one, two, three]):
        own = "starburst-retire-2"
        await client.scheduler.retire_workers(names=[2], close_workers=True, remove=True, stimulus_id=own)
        await client.retire_workers([one.address])
        await client.scheduler.retire_workers(names=["1"], close_workers=True)
        notices = await client.scheduler.starburst_next_notices(after=0, timeout=90)
        assert [(n["name"], n["kind"]) for n in notices] == [(0, "retired"), (1, "retired")]
        await asyncio.gather(*(gone(worker) for worker in (one, two, three)))


@in_a_loop
async def test_a_notice_about_an_unknown_worker_is_refused() -> None:
    async with dask_cluster(0) as (client, _):
        answer = await client.scheduler.starburst_notice(worker="tcp://127.0.0.1:9", kind="stop", seconds=9)
        assert "not known" in answer
        assert not await client.scheduler.starburst_next_notices(after=0, timeout=0)
