"""The event stream of a cluster, which feeds its log, widget, report and cost ledger."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

from dask_starburst.events.event import Event

logger = logging.getLogger("dask_starburst")

#: How many events a cluster keeps; older ones are only in the log.
REMEMBERED = 10_000


#: Emits an event: `EventLog.emit`, or a function that passes events on to it.
Emit: TypeAlias = Callable[[Event], None]


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
    now : callable
        Returns the time of an event (seconds since the epoch). By default this computer's clock.

    Attributes
    ----------
    now : callable
        As above. A cluster sets AWS's clock when it has connected to AWS.
    began : float or None
        The time of the first event (seconds since the epoch, AWS's clock), which may no longer be kept.
    """

    def __init__(self, *, quiet: bool = False, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.began: float | None = None
        self._quiet = quiet
        self._events: deque[Event] = deque(maxlen=REMEMBERED)
        self._listeners: list[Emit] = []

    def emit(self, event: Event) -> None:
        """Set the time of an event, store it, log it and pass it to the listeners."""
        event = replace(event, time=self.now())
        self.began = event.time if self.began is None else min(self.began, event.time)
        self._events.append(event)
        logger.log(event.level, "%s", event.message, extra={"quiet": self._quiet})
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # a failing listener must not stop the cluster
                logger.exception("a listener failed on event %s", event.kind)

    def listen(self, listener: Emit) -> None:
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
