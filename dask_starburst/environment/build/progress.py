"""Turn a builder's reports into progress messages, at most one every few seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dask_starburst.events.image import ImageProgress
from dask_starburst.events.stream import Emit

#: Minimum seconds between two messages.
_PACE = 3.0


class Progress:
    """Receive a builder's reports and emit them as cluster events.

    Parameters
    ----------
    tag : str
        Tag of the image.
    emit : callable
        Emits an event.
    """

    def __init__(self, tag: str, emit: Emit) -> None:
        self._tag = tag
        self._emit = emit
        self._reported_at = time.monotonic()
        self._pushed: int | None = None
        self._total: int | None = None

    def __call__(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Handle a report; see `DirectBuilder.build` and `BuildLog`."""
        if kind == "sent":
            self._pushed, self._total = facts["bytes"], facts["total"]
        # A fetch may take long, so it is reported at once.
        if kind != "base" and time.monotonic() - self._reported_at < _PACE:
            return
        self._reported_at = time.monotonic()
        step, platform = _step(kind, facts), facts.get("platform", "")
        self._emit(
            ImageProgress(tag=self._tag, step=step, platform=platform, pushed=self._pushed, total=self._total)
        )


def _step(kind: str, facts: Mapping[str, Any]) -> str:
    if kind == "layer":
        number, total = facts["of"]
        return f"layer {number} of {total} built ({facts['name']} for {facts['platform']})"
    if kind == "step":
        where = f" for {facts['platform']}" if facts["platform"] else ""
        return f"step {facts['number']} of {facts['of']}{where}, {facts['name']}: {facts['state']}"
    return str(facts.get("text") or "pushing")
