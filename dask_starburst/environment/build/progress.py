"""How a build goes on, in sentences: not more than one every few seconds."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from dask_starburst.hooks import Tell

#: Seconds between two sentences about the same thing.
_PACE = 3.0


class Progress:
    """What a builder reports to; it tells the cluster's events.

    Parameters
    ----------
    tag : str
        The image.
    tell : callable
        Emits an event.
    """

    def __init__(self, tag: str, tell: Tell) -> None:
        self._tag = tag
        self._tell = tell
        self._said = time.monotonic()
        self._sent = ""

    def __call__(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Take what the builder says; see the reports of `DirectBuilder.build` and of `BuildLog`."""
        if kind == "sent":
            self._sent = f"; {megabytes(facts['bytes'])} of {megabytes(facts['total'])} that are new so far are pushed"
        if (
            kind != "base" and time.monotonic() - self._said < _PACE
        ):  # what is fetched may take long: it is said at once
            return
        self._said = time.monotonic()
        self._tell("image-progress", self._tag, f"image: {_sentence(kind, facts)}{self._sent}", **facts)


def _sentence(kind: str, facts: Mapping[str, Any]) -> str:
    if kind == "layer":
        number, total = facts["of"]
        return f"layer {number} of {total} is made ({facts['name']} for {facts['platform']})"
    if kind == "step":
        where = f" for {facts['platform']}" if facts["platform"] else ""
        return f"step {facts['number']} of {facts['of']}{where}, {facts['name']}: {facts['state']}"
    return str(facts.get("text") or "pushing")


def megabytes(size: float) -> str:
    """Return a size in bytes for people."""
    return f"{size / 1e6:.1f} MB"
