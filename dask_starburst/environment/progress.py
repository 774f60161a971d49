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
        self._made = 0
        self._kept = 0

    def __call__(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Take what the builder says."""
        if kind == "layer":
            self._made += 1
            self._kept += bool(facts.get("kept"))
        if time.monotonic() - self._said < _PACE:
            return
        self._said = time.monotonic()
        self._tell("image-progress", self._tag, self._sentence(kind, facts), **facts)

    def _sentence(self, kind: str, facts: Mapping[str, Any]) -> str:
        if kind == "sent":
            return f"image: {megabytes(facts['bytes'])} of {megabytes(facts['total'])} that are new so far are pushed"
        if kind == "layer":
            kept = f", {self._kept} of them earlier" if self._kept else ""
            return f"image: {self._made} layers are made{kept}; the last was {facts['name']} for {facts['platform']}"
        words = facts.get("text") or facts.get("name") or kind
        return f"image: {words}"


def megabytes(size: float) -> str:
    """Return a size in bytes for people."""
    return f"{size / 1e6:.1f} MB"
