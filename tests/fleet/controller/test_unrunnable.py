"""Tasks that no worker can run: the user hears of each restriction once, as long as there are such tasks."""

from __future__ import annotations

import asyncio

from dask_starburst.errors import AWSError
from dask_starburst.events import EventLog, TaskUnrunnable
from dask_starburst.fleet.controller.unrunnable import watch

GPU = {"{'GPU': 1}": "3 tasks need {'GPU': 1}, which no worker has"}


class Answers:
    """A scheduler with an answer for each question; then it is closed."""

    def __init__(self, *answers: dict[str, str] | Exception) -> None:
        self._answers = iter(answers)

    async def unrunnable(self) -> dict[str, str]:
        answer = next(self._answers, asyncio.CancelledError())
        if isinstance(answer, BaseException):
            raise answer
        return answer


def told(*answers: dict[str, str] | Exception) -> list[str]:
    """Return the texts of the events."""
    events = EventLog(now=lambda: 0.0)

    async def work() -> None:
        watching = asyncio.ensure_future(watch(Answers(*answers), events.emit, every=0.0))
        await asyncio.wait([watching])

    asyncio.run(work())
    return [event.text for event in events if isinstance(event, TaskUnrunnable)]


def test_a_restriction_is_emitted_once_while_its_tasks_wait():
    assert told(GPU, GPU, GPU) == list(GPU.values())


def test_it_is_emitted_again_when_there_are_such_tasks_again():
    assert told(GPU, {}, GPU) == 2 * list(GPU.values())


def test_a_scheduler_that_does_not_answer_is_asked_again():
    assert told(OSError("lost"), AWSError("lost"), GPU) == list(GPU.values())
