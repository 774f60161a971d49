"""Background tasks: they run beside the loop, and none starts after its end."""

from __future__ import annotations

import asyncio
import logging

import pytest

from dask_starburst.fleet.controller.background import Background


def test_a_task_runs_and_is_forgotten_when_it_ends():
    async def work() -> tuple[list[int], int]:
        background, done = Background(), list[int]()

        async def one() -> None:
            done.append(1)

        background.spawn(one())
        assert len(background.tasks) == 1
        await asyncio.gather(*background.tasks)
        await asyncio.sleep(0)
        return done, len(background.tasks)

    assert asyncio.run(work()) == ([1], 0)


def test_a_task_that_fails_is_logged_and_does_not_affect_the_others(caplog: pytest.LogCaptureFixture):
    async def work() -> None:
        background = Background()

        async def broken() -> None:
            raise ValueError("our own bug")

        background.spawn(broken())
        await asyncio.gather(*background.tasks, return_exceptions=True)
        await asyncio.sleep(0)

    with caplog.at_level(logging.ERROR):
        asyncio.run(work())
    assert "our own bug" in caplog.text


def test_nothing_starts_after_the_end():
    async def work() -> int:
        background = Background()
        background.close()
        background.spawn(asyncio.sleep(3600))
        return len(asyncio.all_tasks())

    assert asyncio.run(work()) == 1  # this one
