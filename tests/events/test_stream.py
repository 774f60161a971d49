"""The stream of events: their times, and those who listen."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from dask_starburst.events import Event, EventLog, HookMessage
from dask_starburst.events.stream import REMEMBERED

TICK = HookMessage(kind="second-passed", subject="clock", text="a second")


def seconds() -> Iterator[float]:
    return map(float, count())


def test_an_event_gets_its_time_when_it_is_emitted():
    log = EventLog(quiet=True, now=lambda: 7.0)
    log.emit(TICK)
    assert [event.time for event in log] == [7.0]
    assert TICK.time == 0.0
    log.now = lambda: 8.0
    log.emit(TICK)
    assert repr(log) == "00:00:07 a second\n00:00:08 a second"


def test_an_event_log_keeps_its_start_time_after_its_first_events_were_dropped():
    log = EventLog(quiet=True, now=seconds().__next__)
    for _ in range(REMEMBERED + 5):
        log.emit(TICK)
    assert len(log) == REMEMBERED
    assert (log.began, log[0].time) == (0.0, 5.0)


def test_a_listener_that_fails_keeps_no_other_from_hearing_an_event():
    log, heard = EventLog(quiet=True), list[Event]()

    def broken(event: Event) -> None:
        raise RuntimeError("the listener is broken")

    log.listen(broken)
    log.listen(heard.append)
    log.emit(TICK)
    assert heard == list(log)
