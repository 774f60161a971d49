"""P2P shuffles and leaving workers, with real Dask schedulers and workers in this process."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from distributed import Client

from tests.runtime.scheduler.test_retirement import counts, dask_cluster, gone, in_a_loop, join, notice, until, vanish

ROWS = 2_000


def part(number: int, folder: str, seconds: float) -> pd.DataFrame:
    """Make a partition, slowly, and leave a trace of it."""
    with (Path(folder) / f"part-{number}").open("a") as file:
        file.write("x")
    time.sleep(seconds)
    values = np.random.default_rng(number).integers(0, 1_000, ROWS)
    return pd.DataFrame({"key": values, "value": np.arange(ROWS)})


def shuffled(folder: Path, parts: int, seconds: float) -> Any:
    with dask.config.set({"dataframe.shuffle.method": "p2p", "dataframe.convert-string": False}):
        meta = pd.DataFrame({"key": np.zeros(0, int), "value": np.zeros(0, int)})
        frame = dd.from_map(part, range(parts), folder=str(folder), seconds=seconds, meta=meta)
        # `optimize` while the method is set: it is chosen there.
        return frame.shuffle("key", npartitions=parts).optimize()


def executions(folder: Path) -> dict[str, int]:
    return {path.name: len(path.read_text()) for path in folder.glob("part-*")}


async def result_of(client: Client, frame: Any) -> pd.DataFrame:
    return pd.concat(await client.gather(client.compute(frame.to_delayed())))


# How many partitions are made when the notices come: before, in and after the shuffle's first half.
@pytest.mark.parametrize(("leaving", "made"), [pytest.param(1, 7, marks=pytest.mark.slow), (2, 12), (3, 2), (3, 7)])
@in_a_loop
async def test_nothing_of_a_shuffle_is_computed_again_when_workers_get_a_notice(
    tmp_path: Path, leaving: int, made: int
) -> None:
    async with dask_cluster(3) as (client, workers):
        running = asyncio.ensure_future(result_of(client, shuffled(tmp_path, 12, 0.1)))
        await until(lambda: len(executions(tmp_path)) >= made)
        for worker in workers[:leaving]:
            await notice(client, worker, 60)
        newcomer = await join(client.scheduler.address, "newcomer")
        await asyncio.gather(*(gone(worker, 40) for worker in workers[:leaving]))
        result = await asyncio.wait_for(running, 300)
        assert len(result) == 12 * ROWS
        assert executions(tmp_path) == {f"part-{n}": 1 for n in range(12)}
        assert (await counts(client))["recomputed"] == 0
        await newcomer.close()


@in_a_loop
async def test_a_shuffle_that_begins_after_the_notice_does_without_the_worker(tmp_path: Path) -> None:
    async with dask_cluster(3) as (client, workers):
        held = client.submit(time.sleep, 1.5, workers=[workers[0].address])  # so that it is there for a while
        await until(lambda: bool(workers[0].state.executing))
        await notice(client, workers[0], 60)
        result = await asyncio.wait_for(result_of(client, shuffled(tmp_path, 8, 0.05)), 300)
        assert len(result) == 8 * ROWS
        assert executions(tmp_path) == {f"part-{n}": 1 for n in range(8)}
        await held
        await gone(workers[0])
        assert (await counts(client))["recomputed"] == 0


@in_a_loop
async def test_a_shuffle_that_takes_longer_than_the_notice_begins_again_and_is_right(tmp_path: Path) -> None:
    async with dask_cluster(3) as (client, workers):
        running = asyncio.ensure_future(result_of(client, shuffled(tmp_path, 12, 0.8)))
        await until(lambda: len(executions(tmp_path)) >= 3)
        await notice(client, workers[0], 3)
        assert await gone(workers[0]) < 4
        result = await asyncio.wait_for(running, 300)
        assert len(result) == 12 * ROWS


# How many partitions are made when the other worker dies: before the shuffle has begun, and in the midst of it.
@pytest.mark.parametrize("made", [2, 8])
@in_a_loop
async def test_a_shuffle_ends_when_a_worker_dies_that_it_was_given_to_instead_of_one_that_left(
    tmp_path: Path, made: int
) -> None:
    async with dask_cluster(3) as (client, workers):
        held = client.submit(time.sleep, 0.5, workers=[workers[0].address])
        await until(lambda: bool(workers[0].state.executing))
        await notice(client, workers[0], 60)
        running = asyncio.ensure_future(result_of(client, shuffled(tmp_path, 12, 0.3)))
        await until(lambda: len(executions(tmp_path)) >= made)
        await held
        await gone(workers[0])
        newcomer = await join(client.scheduler.address, "newcomer")
        await vanish(workers[1])
        result = await asyncio.wait_for(running, 300)
        assert len(result) == 12 * ROWS
        await newcomer.close()


def slowly(frame: pd.DataFrame, seconds: float) -> pd.DataFrame:
    time.sleep(seconds)
    return frame.assign(key=frame.key * 7 % 1_000)


def one_after_the_other(folder: Path) -> Any:
    """Make a merge and two more shuffles, each of what the one before comes to."""
    with dask.config.set({"dataframe.shuffle.method": "p2p", "dataframe.convert-string": False}):
        meta = pd.DataFrame({"key": np.zeros(0, int), "value": np.zeros(0, int)})
        left = dd.from_map(part, range(9), folder=str(folder), seconds=0.1, meta=meta)
        right = dd.from_map(part, range(9, 18), folder=str(folder), seconds=0.1, meta=meta)
        right = right.drop_duplicates("key", split_out=9).rename(columns={"value": "other"})
        merged = left.merge(right, on="key")[["key", "value"]]
        for _ in range(2):
            merged = merged.shuffle("key", npartitions=9).map_partitions(slowly, 0.2, meta=meta)
        return merged.optimize()


@pytest.mark.parametrize("made", [pytest.param(8, marks=pytest.mark.slow), 18])
@in_a_loop
async def test_nothing_of_shuffles_of_shuffles_is_computed_again(tmp_path: Path, made: int) -> None:
    async with dask_cluster(3) as (client, workers):
        running = asyncio.ensure_future(result_of(client, one_after_the_other(tmp_path)))
        await until(lambda: len(executions(tmp_path)) >= made)
        await notice(client, workers[0], 60)
        result = await asyncio.wait_for(running, 300)
        assert len(result) == 9 * ROWS
        assert executions(tmp_path) == {f"part-{n}": 1 for n in range(18)}
        await gone(workers[0])
        assert (await counts(client))["recomputed"] == 0


def block(folder: Path, block_info: Any = None) -> np.ndarray[Any, Any]:
    """Make a block of an array, slowly, and leave a trace of it."""
    [number, _] = block_info[None]["chunk-location"]
    with (folder / f"part-{number}").open("a") as file:
        file.write("x")
    time.sleep(0.1)
    return np.full((10, 120), number)


@in_a_loop
async def test_nothing_of_an_array_that_is_chunked_anew_is_computed_again(tmp_path: Path) -> None:
    async with dask_cluster(3) as (client, workers):
        with dask.config.set({"array.rechunk.method": "p2p"}):
            tall = da.map_blocks(block, tmp_path, dtype=int, chunks=((10,) * 12, (120,)))
            total = tall.rechunk((120, 10)).sum()
            running = client.compute(total)
        await until(lambda: len(executions(tmp_path)) >= 7)
        await notice(client, workers[0], 60)
        assert await asyncio.wait_for(running.result(), 300) == 10 * 120 * sum(range(12))
        assert executions(tmp_path) == {f"part-{n}": 1 for n in range(12)}
        await gone(workers[0])
        assert (await counts(client))["recomputed"] == 0


@in_a_loop
async def test_a_worker_that_has_only_put_data_in_goes_before_the_shuffle_is_over(tmp_path: Path) -> None:
    async with dask_cluster(2) as (client, _):
        meta = pd.DataFrame({"key": np.zeros(0, int), "value": np.zeros(0, int)})
        frame = shuffled(tmp_path, 24, 0.1)
        with dask.config.set({"dataframe.convert-string": False}):
            outputs = client.compute(frame.map_partitions(slowly, 0.3, meta=meta).to_delayed())
        await until(lambda: len(executions(tmp_path)) >= 6)
        newcomer = await join(client.scheduler.address, "newcomer")
        await until(lambda: any("transfer" in str(key) for key in newcomer.data))
        await notice(client, newcomer, 60)
        await gone(newcomer)
        assert sum(future.done() for future in outputs) < 20
        assert sum(map(len, await asyncio.wait_for(client.gather(outputs), 300))) == 24 * ROWS
        assert executions(tmp_path) == {f"part-{n}": 1 for n in range(24)}
        assert (await counts(client))["recomputed"] == 0
