"""The newest lines of a log stream, whose pages may be empty (real-aws R22)."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from dask_starburst.aws import logs
from dask_starburst.aws.session import AWS

LINES = [f"line {n}" for n in range(20)]


class Stream:
    """A log stream of these pages, the newest first; it is empty for the first `late` readings."""

    def __init__(self, *pages: list[str], late: int = 0) -> None:
        self._pages, self._late = pages, late
        self.calls = 0

    async def call(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        self.calls += 1
        token = request.get("nextToken")
        if token is None:
            self._late -= 1
        number = int(token or 0)
        if self._late >= 0 or number >= len(self._pages):
            return {"events": [], "nextBackwardToken": token or "0"}
        events = [{"message": line} for line in self._pages[number][-request["limit"] :]]
        return {"events": events, "nextBackwardToken": str(number + 1)}


def tail(stream: Stream, lines: int = 100, patience: float = 0.0) -> list[str]:
    return asyncio.run(logs.tail(cast(AWS, stream), "group", "stream", lines, patience))


@pytest.mark.parametrize(
    "pages",
    [
        [LINES],
        [[], LINES],
        [LINES[15:], [], [], LINES[:15]],
        [[], LINES[5:], [], LINES[:5], []],
    ],
)
def test_all_pages_are_read_and_the_lines_are_in_order(pages: list[list[str]]):
    assert tail(Stream(*pages)) == LINES


def test_no_more_pages_are_read_than_the_lines_need():
    stream = Stream([], LINES[10:], LINES[:10])
    assert tail(stream, 4) == LINES[16:]
    assert stream.calls == 2
    assert tail(Stream(LINES[18:], [], LINES[:18]), 4) == LINES[16:]


def test_lines_that_arrive_late_are_waited_for():
    assert tail(Stream(LINES, late=2), patience=60.0) == LINES
    assert tail(Stream(LINES, late=2)) == []


def test_a_stream_without_lines_ends():
    assert tail(Stream(), patience=0.1) == []
    endless = Stream(*([] for _ in range(1000)))
    assert tail(endless) == []
    assert endless.calls == 100
