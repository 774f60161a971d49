"""How a worker that has to leave hands over what it holds and what it has not begun.

Dask's own `Scheduler.retire_workers` is for workers that may stay: when nobody can take over what one holds, it sets
it running again; and it asks for a copy anew every two seconds, of others too, while the first is still under way.
Here there is no way back, and little time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from distributed.active_memory_manager import (
    ActiveMemoryManagerExtension,
    ActiveMemoryManagerPolicy,
    Suggestion,
    SuggestionGenerator,
)
from distributed.core import Status

from dask_starburst.plan.loop.state import Name
from dask_starburst.plan.scheduler.moving import bandwidth, must_move
from dask_starburst.runtime.scheduler.shuffles import Shuffles

#: Seconds until a copy that has not arrived is asked of another worker.
_COPY_TIMEOUT = 20.0
#: Seconds from when a worker was closing_since to begin nothing more to when it surely does not.
_CLOSING_DELAY = 1.0
_STAYS = (Status.running, Status.paused)


@dataclass
class Leaving:
    """A worker that has to leave: why, when (by `time.monotonic`), and what came of it so far."""

    address: str
    name: Name
    deadline: float
    kind: str
    since: float = field(default_factory=time.monotonic)
    closing_since: float = field(default_factory=time.time)
    #: Whether it was closing_since to begin nothing more, at `closing_since`.
    closing: bool = False
    keys_moved: int = 0
    bytes_moved: int = 0
    #: Tasks that it was asked to give back; those that it had begun it keeps.
    asked_back: set[Any] = field(default_factory=set)


@dataclass(frozen=True)
class _Copy:
    """What is on its way: of which worker, to which (a `WorkerState`), and since when."""

    of: Leaving
    to: Any
    since: float


class Handover(ActiveMemoryManagerPolicy):
    """Copies to workers that stay what only workers that leave hold.

    It drops nothing: Dask's own policy does, which takes superfluous copies from workers that leave first.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        Whose workers they are.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._in_flight: dict[Any, _Copy] = {}
        self.leaving: dict[str, Leaving] = {}
        self._shuffles = Shuffles(scheduler)
        # One of our own, run when we want it to. Dask's may be switched off, and looks at everything each time.
        self._manager = ActiveMemoryManagerExtension(scheduler, policies={self}, register=False, start=False)

    def begin(self, leaving: Leaving) -> None:
        """Let nothing new land on a worker, and copy what it holds from now on.

        One that takes part in a P2P shuffle goes on until that is over, if there is time: without it the whole shuffle
        would begin again.
        """
        if not self.leaving:
            self._shuffles.record_barriers(list(self._scheduler.tasks))
        self.leaving[leaving.address] = leaving
        self._shuffles.exclude(self.leaving)
        self._close_unless_needed(self._scheduler.workers[leaving.address], leaving)

    def end(self, leaving: Leaving) -> None:
        """Look after a worker no more: it is about to be removed, or has gone."""
        del self.leaving[leaving.address]
        if not self.leaving:
            self._in_flight.clear()  # what has not arrived is nobody's any more
        self._shuffles.release(leaving.address)
        self._shuffles.exclude(self.leaving)

    def workers_changed(self) -> None:
        """Hear that a worker has come or gone: shuffles begin on those that are there and stay."""
        self._shuffles.exclude(self.leaving)

    def tasks_added(self, keys: Iterable[Any]) -> None:
        """Hear of new tasks: shuffles among them do without the workers that leave."""
        if self.leaving:
            self._shuffles.record_barriers(keys)
            self._shuffles.exclude(self.leaving)

    def step(self) -> None:
        """Ask for copies, for those that have not come from another, and give to others what has not begun."""
        self._count_arrived()
        self._manager.run_once()
        for leaving in self.leaving.values():
            ws = self._scheduler.workers.get(leaving.address)
            if ws is not None and self._close_unless_needed(ws, leaving):
                self._give_back(ws, leaving)

    def done(self, leaving: Leaving) -> bool:
        """Whether nothing holds a worker back any more."""
        ws = self._scheduler.workers.get(leaving.address)
        if ws is None:
            return True
        if ws.actors or self._is_needed(ws, leaving) or self._busy(ws, leaving):
            return False
        return next(self.only_here(ws), None) is None

    def only_here(self, ws: Any) -> Iterator[Any]:
        """Yield the tasks whose results no other worker that stays holds; without actors, which cannot be copied."""
        for ts in ws.has_what:
            if not ts.actor and not any(other is not ws and self._stays(other) for other in ts.who_has):
                yield ts

    def _stays(self, ws: Any) -> bool:
        return ws.status in _STAYS and ws.address not in self.leaving

    @property
    def _recipients(self) -> set[Any]:
        return {ws for ws in self._scheduler.running if ws.address not in self.leaving}

    def run(self) -> SuggestionGenerator:
        """Suggest to the memory manager what to copy; it chooses who gets it."""
        now, recipients = time.monotonic(), self._recipients
        for leaving in self.leaving.values() if recipients else ():
            ws = self._scheduler.workers.get(leaving.address)
            for ts in list(self.only_here(ws)) if ws is not None else ():
                copy = self._in_flight.get(ts)
                if copy is not None and copy.to in recipients and now - copy.since < _COPY_TIMEOUT:
                    continue
                recipient = yield Suggestion("replicate", ts, recipients)
                if recipient is not None:
                    self._in_flight[ts] = _Copy(leaving, recipient, now)

    def _is_needed(self, ws: Any, leaving: Leaving) -> bool:
        """Whether a shuffle that is not over needs a worker, and there is time left for it to go on."""
        if leaving.closing or not self._shuffles.needs(ws.address):
            return False
        held = sum(ts.nbytes for ts in self.only_here(ws))
        return not must_move(held, bandwidth(ws.nthreads), leaving.deadline - time.monotonic())

    def _close_unless_needed(self, ws: Any, leaving: Leaving) -> bool:
        """Hold a worker, unless a shuffle needs it; whether it is held."""
        if self._is_needed(ws, leaving):
            return False
        self._start_closing(ws, leaving)
        return True

    def _start_closing(self, ws: Any, leaving: Leaving) -> None:
        """See to it that a worker starts none of its tasks, as `Scheduler.retire_workers` does.

        Again if it has come back: it was still starting, or somebody's own `retire_workers` found no place.
        """
        if ws.status is Status.closing_gracefully:
            return
        if not leaving.closing:
            leaving.closing, leaving.closing_since = True, time.time()
        stimulus = f"starburst-leaving-{leaving.closing_since}"
        self._scheduler.handle_worker_status_change(Status.closing_gracefully, ws, stimulus)
        message = {"op": "worker-status-change", "status": ws.status.name, "stimulus_id": stimulus}
        self._scheduler.stream_comms[ws.address].send(message)

    def _count_arrived(self) -> None:
        for ts, copy in list(self._in_flight.items()):
            if copy.to in (ts.who_has or ()):
                del self._in_flight[ts]
                copy.of.keys_moved += 1
                copy.of.bytes_moved += ts.nbytes
            elif ts.state != "memory":
                del self._in_flight[ts]  # nobody wants it any more, or it is lost

    def _busy(self, ws: Any, leaving: Leaving) -> bool:
        """Whether a worker still works on something. What it has not begun it will not begin."""
        if not ws.processing:
            return False
        obeys = ws.last_seen > leaving.closing_since + _CLOSING_DELAY
        return not obeys or any(ts in ws.processing for ts in ws.executing)

    def _give_back(self, ws: Any, leaving: Leaving) -> None:
        """Let others do what a worker has not begun: they steal it, the way in which nothing is done twice.

        Where work stealing is switched off, it waits until the worker has gone.
        """
        stealing = self._scheduler.extensions.get("stealing")
        if stealing is None:
            return
        for ts in [ts for ts in ws.processing if ts not in leaving.asked_back and ts not in ws.executing]:
            target = self._target(ts)
            if target is not None:
                leaving.asked_back.add(ts)
                stealing.move_task_request(ts, ws, target)

    def _target(self, ts: Any) -> Any:
        valid, running = self._scheduler.valid_workers(ts), self._recipients
        able = running if valid is None else running & valid
        if ts.loose_restrictions:
            able = able or running  # `allow_other_workers`
        return min(able, key=lambda ws: len(ws.processing) / ws.nthreads, default=None)
