"""One stream of what happened: log, widget, report and cost ledger all listen to it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

logger = logging.getLogger("dask_starburst")

#: How many events a cluster remembers; older ones have been logged.
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Parameters
    ----------
    time : float
        Seconds since the epoch, by AWS's clock.
    kind : str
        What happened, as ``noun-verb``: ``"instance-launched"``.
    subject : int or str
        To whom: a worker's name, an instance id, a pool.
    message : str
        One sentence for people.
    level : int
        A :mod:`logging` level.
    facts : mapping
        The same for programs.
    """

    time: float
    kind: str
    subject: int | str
    message: str
    level: int = logging.INFO
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __str__(self) -> str:
        clock = datetime.fromtimestamp(self.time, UTC).strftime("%H:%M:%S")
        return f"{clock} {self.message}"


def show_progress() -> None:
    """Print events to standard error, unless the program has its own idea of logging.

    As distributed does: a library that starts slowly and says nothing is taken for dead.
    """
    if logger.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.addFilter(_is_shown)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether a record is printed: what a quiet cluster does is not, but what it warns of is."""
    return record.levelno >= logging.WARNING or not getattr(record, "quiet", False)


class EventLog:
    """The events of one cluster, in the order in which they were seen.

    Parameters
    ----------
    quiet : bool
        Whether its progress is kept from being printed by `show_progress`, which other clusters may have asked for.

    Attributes
    ----------
    began : float or None
        The time of the first event (seconds since the epoch, AWS's clock), which is not kept for ever itself.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.began: float | None = None
        self._quiet = quiet
        self._events: deque[Event] = deque(maxlen=REMEMBERED)
        self._listeners: list[Callable[[Event], None]] = []

    def emit(self, event: Event) -> None:
        """Remember the event, log it and tell everybody who listens."""
        self.began = event.time if self.began is None else min(self.began, event.time)
        self._events.append(event)
        logger.log(event.level, "%s", event.message, extra={"quiet": self._quiet})
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # a listener is beside the matter: what has happened goes on
                logger.exception("a listener failed with the event %s", event.kind)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every event from now on."""
        self._listeners.append(listener)

    def __iter__(self) -> Iterator[Event]:
        return iter(tuple(self._events))

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, index: int) -> Event:
        return self._events[index]

    def __repr__(self) -> str:
        return "\n".join(map(str, self._events))
