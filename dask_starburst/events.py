"""The event stream of a cluster, which feeds its log, widget, report and cost ledger."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

logger = logging.getLogger("dask_starburst")

#: How many events a cluster keeps; older ones are only in the log.
REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Event:
    """An event.

    Parameters
    ----------
    time : float
        Seconds since the epoch, by AWS's clock.
    kind : str
        What happened, as ``noun-verb``: ``"instance-launched"``.
    subject : int or str
        A worker's name, an instance ID or a pool.
    message : str
        One sentence.
    level : int
        A :mod:`logging` level.
    facts : mapping
        The values in the message, for programs.
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
    """Print events to standard error, as distributed does, unless the program has configured logging."""
    if logger.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.addFilter(_is_shown)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _is_shown(record: logging.LogRecord) -> bool:
    """Return whether to print a record. Of a quiet cluster only warnings are printed."""
    return record.levelno >= logging.WARNING or not getattr(record, "quiet", False)


class EventLog:
    """The events of one cluster, in order of arrival.

    Parameters
    ----------
    quiet : bool
        Whether its progress is not printed by `show_progress`, which other clusters may have called.

    Attributes
    ----------
    began : float or None
        The time of the first event (seconds since the epoch, AWS's clock), which may no longer be kept.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.began: float | None = None
        self._quiet = quiet
        self._events: deque[Event] = deque(maxlen=REMEMBERED)
        self._listeners: list[Callable[[Event], None]] = []

    def emit(self, event: Event) -> None:
        """Store an event, log it and pass it to the listeners."""
        self.began = event.time if self.began is None else min(self.began, event.time)
        self._events.append(event)
        logger.log(event.level, "%s", event.message, extra={"quiet": self._quiet})
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # a failing listener must not stop the cluster
                logger.exception("a listener failed on event %s", event.kind)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every new event."""
        self._listeners.append(listener)

    def __iter__(self) -> Iterator[Event]:
        return iter(tuple(self._events))

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, index: int) -> Event:
        return self._events[index]

    def __repr__(self) -> str:
        return "\n".join(map(str, self._events))
