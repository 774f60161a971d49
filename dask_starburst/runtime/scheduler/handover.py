"""Move the data and the queued tasks of a leaving worker to the workers that stay.

Dask's own `Scheduler.retire_workers` suits workers that may stay: if no worker can take the data, it sets the worker
running again, and it requests another copy every two seconds while the first is still in flight. A worker whose
instance is being interrupted cannot stay, and has little time.
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

#: Seconds after which a copy that has not arrived is requested on another worker.
_COPY_TIMEOUT = 20.0
#: Seconds after which a worker that was set to ``closing_gracefully`` starts no more tasks.
_CLOSING_DELAY = 1.0
_STAYS = (Status.running, Status.paused)


@dataclass
class Leaving:
    """A worker that has to leave: the reason, the deadline (`time.monotonic`), and what was moved so far."""

    address: str
    name: Name
    deadline: float
    kind: str
    since: float = field(default_factory=time.monotonic)
    closing_since: float = field(default_factory=time.time)
    #: Whether it was set to ``closing_gracefully``, at `closing_since`.
    closing: bool = False
    keys_moved: int = 0
    bytes_moved: int = 0
    #: Tasks that it was asked to give back; it keeps those that it has started.
    asked_back: set[Any] = field(default_factory=set)


@dataclass(frozen=True)
class _Copy:
    """A copy in flight: the leaving worker, the recipient (a `WorkerState`), and the start time."""

    of: Leaving
    to: Any
    since: float


class Handover(ActiveMemoryManagerPolicy):
    """Replicates results that only leaving workers hold to workers that stay.

    It drops no copies. Dask's own policy does, and drops those on leaving workers first.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The scheduler of the workers.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._in_flight: dict[Any, _Copy] = {}
        self.leaving: dict[str, Leaving] = {}
        self._shuffles = Shuffles(scheduler)
        # A separate manager, run on demand. Dask's own may be switched off, and examines all tasks each time.
        self._manager = ActiveMemoryManagerExtension(scheduler, policies={self}, register=False, start=False)

    def begin(self, leaving: Leaving) -> None:
        """Keep new tasks and data off a worker, and start to copy its data.

        A worker that takes part in a P2P shuffle continues until the shuffle is over, if there is time: removing it
        would restart the whole shuffle.
        """
        if not self.leaving:
            self._shuffles.record_barriers(list(self._scheduler.tasks))
        self.leaving[leaving.address] = leaving
        self._shuffles.exclude(self.leaving)
        self._close_unless_needed(self._scheduler.workers[leaving.address], leaving)

    def end(self, leaving: Leaving) -> None:
        """Stop the handover of a worker that is about to be removed, or is gone."""
        del self.leaving[leaving.address]
        if not self.leaving:
            self._in_flight.clear()  # copies in flight have no leaving worker to be counted for
        self._shuffles.release(leaving.address)
        self._shuffles.exclude(self.leaving)

    def workers_changed(self) -> None:
        """Update the restrictions of shuffles after a worker was added or removed."""
        self._shuffles.exclude(self.leaving)

    def tasks_added(self, keys: Iterable[Any]) -> None:
        """Restrict shuffles among new tasks to the workers that stay."""
        if self.leaving:
            self._shuffles.record_barriers(keys)
            self._shuffles.exclude(self.leaving)

    def step(self) -> None:
        """Request missing copies, and move tasks that have not started to other workers."""
        self._count_arrived()
        self._manager.run_once()
        for leaving in self.leaving.values():
            ws = self._scheduler.workers.get(leaving.address)
            if ws is not None and self._close_unless_needed(ws, leaving):
                self._give_back(ws, leaving)

    def done(self, leaving: Leaving) -> bool:
        """Return whether the worker can be closed: nothing to move, nothing running, no shuffle that needs it."""
        ws = self._scheduler.workers.get(leaving.address)
        if ws is None:
            return True
        if ws.actors or self._is_needed(ws, leaving) or self._busy(ws, leaving):
            return False
        return next(self.only_here(ws), None) is None

    def only_here(self, ws: Any) -> Iterator[Any]:
        """Yield the tasks whose results are on no worker that stays, except actors, which cannot be copied."""
        for ts in ws.has_what:
            if not ts.actor and not any(other is not ws and self._stays(other) for other in ts.who_has):
                yield ts

    def _stays(self, ws: Any) -> bool:
        return ws.status in _STAYS and ws.address not in self.leaving

    @property
    def _recipients(self) -> set[Any]:
        return {ws for ws in self._scheduler.running if ws.address not in self.leaving}

    def run(self) -> SuggestionGenerator:
        """Suggest replicas to the memory manager, which chooses the recipients."""
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
        """Return whether a running shuffle needs the worker and there is time left to continue."""
        if leaving.closing or not self._shuffles.needs(ws.address):
            return False
        held = sum(ts.nbytes for ts in self.only_here(ws))
        return not must_move(held, bandwidth(ws.nthreads), leaving.deadline - time.monotonic())

    def _close_unless_needed(self, ws: Any, leaving: Leaving) -> bool:
        """Start to close a worker gracefully unless a shuffle needs it; return whether it is closing."""
        if self._is_needed(ws, leaving):
            return False
        self._start_closing(ws, leaving)
        return True

    def _start_closing(self, ws: Any, leaving: Leaving) -> None:
        """Keep a worker from starting tasks, as `Scheduler.retire_workers` does.

        Repeat it if the worker is running again: it was still starting, or a user's own `retire_workers` failed.
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
                del self._in_flight[ts]  # no longer needed, or lost

    def _busy(self, ws: Any, leaving: Leaving) -> bool:
        """Return whether a worker still runs a task. Tasks that have not started will not start."""
        if not ws.processing:
            return False
        closing = ws.last_seen > leaving.closing_since + _CLOSING_DELAY
        return not closing or any(ts in ws.processing for ts in ws.executing)

    def _give_back(self, ws: Any, leaving: Leaving) -> None:
        """Move tasks that have not started to other workers by work stealing, which runs no task twice.

        If work stealing is switched off, these tasks wait until the worker is removed.
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
