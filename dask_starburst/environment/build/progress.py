"""Turn a builder's reports into progress messages, at most one every few seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dask_starburst.hooks import Tell

#: Minimum seconds between two messages.
_PACE = 3.0


class Progress:
    """Receive a builder's reports and emit them as cluster events.

    Parameters
    ----------
    tag : str
        Tag of the image.
    tell : callable
        Emits an event.
    """

    def __init__(self, tag: str, tell: Tell) -> None:
        self._tag = tag
        self._tell = tell
        self._reported_at = time.monotonic()
        self._sent = ""

    def __call__(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Handle a report; see `DirectBuilder.build` and `BuildLog`."""
        if kind == "sent":
            self._sent = f"; pushed {megabytes(facts['bytes'])} of {megabytes(facts['total'])} so far"
        # A fetch may take long, so it is reported at once.
        if kind != "base" and time.monotonic() - self._reported_at < _PACE:
            return
        self._reported_at = time.monotonic()
        self._tell("image-progress", self._tag, f"image: {_message(kind, facts)}{self._sent}", **facts)


def _message(kind: str, facts: Mapping[str, Any]) -> str:
    if kind == "layer":
        number, total = facts["of"]
        return f"layer {number} of {total} built ({facts['name']} for {facts['platform']})"
    if kind == "step":
        where = f" for {facts['platform']}" if facts["platform"] else ""
        return f"step {facts['number']} of {facts['of']}{where}, {facts['name']}: {facts['state']}"
    return str(facts.get("text") or "pushing")


def megabytes(size: float) -> str:
    """Format a size in bytes."""
    return f"{size / 1e6:.1f} MB"
