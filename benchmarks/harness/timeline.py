"""The AWS calls of a start in the order of their times, and the critical path to the first capacity."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from dask_starburst.hooks import Launch, LifecycleHook

#: The call that buys the first capacity.
FIRST_CAPACITY = "autoscaling:SetDesiredCapacity"


class Span(NamedTuple):
    """One call: its service and operation, and its start and end (seconds)."""

    name: str
    start: float
    end: float


class Timeline(LifecycleHook):
    """A lifecycle hook that records when each AWS call of its cluster starts and ends."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    async def on_before_launch(self, launch: Launch) -> None:
        """Record the calls from now on."""
        for name in ("call", "pages"):
            setattr(launch.aws, name, self._recorded(getattr(launch.aws, name)))

    def _recorded(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def recorded(service: str, operation: str, *arguments: Any, **request: Any) -> Any:
            start = time.monotonic()
            try:
                return await call(service, operation, *arguments, **request)
            finally:
                self.spans.append(Span(f"{service}:{operation}", start, time.monotonic()))

        return recorded


def before_capacity(spans: Iterable[Span], last: str = FIRST_CAPACITY) -> list[Span]:
    """Return the calls that had ended when the first capacity was requested, and this request, in order."""
    ordered = sorted(spans, key=lambda span: span.start)
    first = next((span for span in ordered if span.name == last), None)
    if first is None:
        return []
    return [*(span for span in ordered if span.end <= first.start), first]


def critical_path(spans: Sequence[Span]) -> list[Span]:
    """Return the calls of which each waited for the one before, up to the last of `spans`.

    A call is taken to wait for the call that ended last before it started.
    """
    path = list(spans[-1:])
    while path:
        earlier = [span for span in spans if span.end <= path[0].start and span is not path[0]]
        if not earlier:
            break
        path.insert(0, max(earlier, key=lambda span: span.end))
    return path
