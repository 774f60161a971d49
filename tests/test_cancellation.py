"""What is ended has ended, or is given up within a bound."""

from __future__ import annotations

import asyncio

import pytest

from dask_starburst import cancellation


async def deaf(times: int) -> None:
    """Discard as many cancellations as `times` says."""
    while times >= 0:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            times -= 1
    raise asyncio.CancelledError


async def begun(times: int) -> asyncio.Task[None]:
    task = asyncio.ensure_future(deaf(times))
    await asyncio.sleep(0)
    return task


def test_a_task_that_discards_its_first_cancellation_is_ended_all_the_same():
    async def work() -> tuple[bool, bool]:
        task = await begun(1)
        return await cancellation.end([None, task], within=60), task.cancelled()

    assert asyncio.run(work()) == (True, True)


def test_a_task_that_does_not_end_is_given_up_and_named(caplog):
    async def work() -> bool:
        task = await begun(1)  # the second cancellation is that of `asyncio.run`
        return await cancellation.end([task], within=0.0)

    assert not asyncio.run(work())
    assert "deaf" in caplog.text


def test_an_exception_of_a_cancelled_task_is_not_raised():
    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("at the end")

    async def work() -> bool:
        task = asyncio.ensure_future(fails())
        await asyncio.sleep(0)
        return await cancellation.end([task], within=60)

    assert asyncio.run(work())


def test_a_task_that_ends_others_is_not_ended_by_itself():
    async def work() -> bool:
        return await cancellation.end([asyncio.current_task()], within=60)

    assert asyncio.run(work())


def test_when_one_of_several_fails_the_others_have_ended_before_that_is_raised():
    went_on: list[str] = []

    async def fails() -> None:
        raise RuntimeError("one of them")

    async def changes_something() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        went_on.append("after the failure")

    async def work() -> int:
        with pytest.raises(RuntimeError, match="one of them"):
            await cancellation.together(fails(), changes_something())
        await asyncio.sleep(0.01)
        return len(asyncio.all_tasks())

    assert asyncio.run(work()) == 1
    assert went_on == []
