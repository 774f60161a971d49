"""Retire workers that got a Spot notice: move their data, and keep their tasks from being marked suspicious.

Loaded by ``dask scheduler --preload``. Nannies send notices (`notices`); the client polls for them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from dask_starburst import cancellation
from dask_starburst.plan.loop.state import Name
from dask_starburst.plan.scheduler.moving import bandwidth, too_much
from dask_starburst.plan.scheduler.notices import ACCEPTED, DRAINING, INTERRUPTION, KINDS, MARGIN, REBALANCE, margin_of
from dask_starburst.runtime.scheduler.handover import Handover, Leaving
from dask_starburst.runtime.scheduler.suspicion import Suspicion

logger = logging.getLogger("distributed.starburst")

#: The topic of these events in Dask's event log: ``client.get_events("starburst")``.
TOPIC = "starburst"
#: Seconds between two polls of leaving workers; the interval grows with the number of keys.
_POLL_INTERVAL, _MAX_POLL_INTERVAL, _KEYS_A_SECOND = 0.1, 1.0, 4000
#: Seconds to wait for a nanny to poll for a Spot notice; its own polling continues.
_NANNY_TIMEOUT = 3.0
#: Stimulus prefix of `Scheduler.retire_workers`. The cluster's own calls use another.
_RETIRED = "retire-workers-"
#: How many notices are kept; the client reads them as they come.
_HISTORY = 10_000


@dataclass
class Counts:
    """Counters of notices and their outcome, for ``starburst_spot_counts``.

    A worker counts as one of ``interruptions`` or ``stops``, not both: ECS drains an instance that Spot interrupts, and
    stops its tasks. ``results_lost`` counts keys without another copy when AWS took their worker, with or without a
    notice; ``recomputed`` counts those that were computed again. ``cleared`` counts tasks whose suspicion was cleared.
    ``seconds`` sums the time from notice to close over all ``retired`` workers; ``longest`` is the maximum.
    ``watched`` counts the Spot workers that poll for notices.
    """

    interruptions: int = 0
    rebalances: int = 0
    stops: int = 0
    retired: int = 0
    keys_moved: int = 0
    bytes_moved: int = 0
    results_lost: int = 0
    recomputed: int = 0
    cleared: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    watched: int = 0


class Retirement(SchedulerPlugin):
    """Receives notices, retires their workers, and reports to the client.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The one that runs in this process.
    margin : float
        Seconds before the end of a notice at which a worker is closed, even if it still holds data; at most a quarter
        of the notice.
    warn_interval : float
        Seconds between two checks for workers that hold too much data to move.
    """

    name = "starburst-retirement"

    def __init__(self, scheduler: Any, margin: float = MARGIN, warn_interval: float = 10.0) -> None:
        self._scheduler = scheduler
        self._warn_interval = warn_interval
        self._margin = margin
        self._handover = Handover(scheduler)
        self._suspicion = Suspicion(scheduler)
        self._counts = Counts()
        self._notices: deque[dict[str, Any]] = deque(maxlen=_HISTORY)
        self._number = 0
        self._new_notice = asyncio.Event()
        self._names: dict[str, Name] = {}
        self._on_spot: set[Name] = set()
        self._warned: set[Name] = set()
        self._tasks: list[asyncio.Task[None]] = []
        handlers = (self.starburst_notice, self.starburst_watched, self.starburst_next_notices)
        for handler in (*handlers, self.starburst_clear_suspicion, self.starburst_spot_counts):
            scheduler.handlers[handler.__name__] = handler

    def begin(self) -> None:
        """Start the loops."""
        self._tasks = [asyncio.ensure_future(self._retire()), asyncio.ensure_future(self._warn_of_large_workers())]

    async def before_close(self) -> None:
        """Stop the loops."""
        await cancellation.end(self._tasks)

    # -- handlers -------------------------------------------------------------------------------

    async def starburst_notice(self, worker: str, kind: str, seconds: float, action: str = "") -> str:
        """Handle a notice from a nanny.

        Parameters
        ----------
        worker : str
            The address of its worker.
        kind : {"interruption", "rebalance", "stop"}
            Kind of the notice.
        seconds : float
            Seconds from now until the worker is gone.
        action : str
            AWS's action ``terminate``, ``stop`` or ``hibernate``; or ``draining``, from a client that sees ECS drain
            the instance.
        """
        if action == DRAINING:
            await self._poll_for_notice(worker)
        ws = self._scheduler.workers.get(worker)
        if ws is None or kind not in KINDS:
            return f"{worker} is not known" if ws is None else f"{kind!r} is not a kind of notice"
        self._remember(ws.name, worker, kind, seconds, action, held=ws.nbytes)
        if kind == REBALANCE:
            self._counts.rebalances += 1
        else:
            self._suspicion.exempt(worker)
            self._leave(ws, kind, seconds)
        return ACCEPTED

    async def _poll_for_notice(self, worker: str) -> None:
        """Request a poll from the worker's nanny: a client may see ECS drain the instance before the notice arrives."""
        ws = self._scheduler.workers.get(worker)
        if ws is not None and ws.nanny and ws.name in self._on_spot and worker not in self._handover.leaving:
            with suppress(OSError, TimeoutError, ValueError, AttributeError):  # the nanny is gone or does not poll
                async with asyncio.timeout(_NANNY_TIMEOUT):
                    await self._scheduler.rpc(ws.nanny).starburst_poll()

    async def starburst_watched(self, name: Name) -> None:
        """Register a Spot worker that polls for notices."""
        self._on_spot.add(name)

    async def starburst_next_notices(self, after: int = 0, timeout: float = 30.0) -> list[dict[str, Any]]:
        """Return the notices with a number above `after`; wait for one up to `timeout` seconds.

        Returns
        -------
        sequence of dict
            ``number``, ``name`` and ``address`` of the worker, ``kind``, ``action``, bytes of Dask data that it
            ``held``, ``seconds`` that are left, and ``time`` of arrival (seconds since the epoch, scheduler's clock).
            Empty after the timeout.
        """
        if self._number <= after:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._new_notice.wait()
        now = time.time()
        new = [dict(notice) for notice in self._notices if notice["number"] > after]
        return [notice | {"seconds": max(notice.pop("until") - now, 0.0)} for notice in new]

    async def starburst_clear_suspicion(self, names: Iterable[Name]) -> int:
        """Clear the suspicion of tasks whose worker AWS took without a notice; return the number of tasks."""
        cleared = self._suspicion.clear(names)
        self._counts.cleared += cleared
        return cleared

    async def starburst_spot_counts(self) -> dict[str, Any]:
        """Return the counters; see `Counts`."""
        self._counts.results_lost, self._counts.recomputed = self._suspicion.lost, self._suspicion.recomputed
        self._counts.watched = len(self._on_spot & {ws.name for ws in self._scheduler.workers.values()})
        return asdict(self._counts)

    # -- Dask's hooks ---------------------------------------------------------------------------

    def add_worker(self, scheduler: Any, worker: str) -> None:
        """Store the name of a worker: `remove_worker` gets only the address."""
        self._names[worker] = scheduler.workers[worker].name
        self._suspicion.joined(worker, self._names[worker])
        self._handover.workers_changed()

    def remove_worker(self, scheduler: Any, worker: str, *, stimulus_id: str = "", **_: Any) -> None:
        """Record a removed worker; one that a client retired through Dask must not be replaced."""
        name = self._names.pop(worker, None)
        if name is not None and stimulus_id.startswith(_RETIRED):
            self._remember(name, worker, "retired", 0.0, "")
        self._handover.workers_changed()

    def update_graph(self, scheduler: Any, *, tasks: list[Any], **_: Any) -> None:
        """Pass new tasks to the handover."""
        self._handover.tasks_added(tasks)

    def log_event(self, topic: str, msg: Any) -> None:
        """Handle Dask's ``remove-worker`` event, logged right after it has raised the suspicion counts."""
        if topic == "all" and isinstance(msg, dict) and msg.get("action") == "remove-worker":
            self._suspicion.removed(msg)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Count recomputed results."""
        self._suspicion.computed(key, finish)

    # -- retirement -----------------------------------------------------------------------------

    def _remember(self, name: Name, address: str, kind: str, seconds: float, action: str, held: int = 0) -> None:
        now = time.time()
        self._number += 1
        notice = {"number": self._number, "name": name, "address": address, "kind": kind, "action": action}
        self._notices.append({**notice, "held": held, "time": now, "until": now + seconds})
        news, self._new_notice = self._new_notice, asyncio.Event()
        news.set()

    def _leave(self, ws: Any, kind: str, seconds: float) -> None:
        deadline = time.monotonic() + max(seconds - margin_of(seconds, self._margin), 0.0)
        known = self._handover.leaving.get(ws.address)
        if known is not None:
            known.deadline = min(known.deadline, deadline)
            if kind == INTERRUPTION and known.kind != INTERRUPTION:
                known.kind = kind
                self._counts.stops, self._counts.interruptions = self._counts.stops - 1, self._counts.interruptions + 1
            return
        if kind == INTERRUPTION:
            self._counts.interruptions += 1
        else:
            self._counts.stops += 1
        unique = list(self._handover.only_here(ws))
        self._handover.begin(Leaving(ws.address, ws.name, deadline, kind))
        held = sum(ts.nbytes for ts in unique)
        text = f"worker {ws.name} will be closed within {seconds:.0f} s ({kind}); moving {len(unique)} results"
        text += f" ({held / 1e6:.1f} MB) without another copy and {len(ws.processing)} tasks"
        if ws.actors:
            text += f"; {len(ws.actors)} actors cannot be moved and will be lost"
        self._log("notice", ws, text, too_much(held, bandwidth(ws.nthreads), seconds))

    def _log(self, action: str, ws: Any, *parts: str | None) -> None:
        text = ". ".join(filter(None, parts))
        logger.warning(text)
        self._scheduler.log_event(TOPIC, {"action": action, "worker": ws.address, "name": ws.name, "text": text})

    async def _retire(self) -> None:
        while True:
            try:
                if self._handover.leaving:
                    await self._poll()
            except Exception:  # the loop's edge: the scheduler must survive
                logger.exception("retiring workers failed; retrying")
            await asyncio.sleep(self._pause())

    async def _poll(self) -> None:
        # Close workers whose deadline has passed first.
        await self._close_if(lambda leaving: time.monotonic() >= leaving.deadline)
        self._handover.step()
        await self._close_if(self._handover.done)

    async def _close_if(self, condition: Callable[[Leaving], bool]) -> None:
        for leaving in list(self._handover.leaving.values()):
            if condition(leaving):
                await self._close(leaving)

    def _pause(self) -> float:
        """Return the seconds until the next poll, which is cheap while no worker is leaving."""
        there = (self._scheduler.workers.get(address) for address in self._handover.leaving)
        keys = sum(len(ws.has_what) for ws in there if ws is not None)
        return min(max(keys / _KEYS_A_SECOND, _POLL_INTERVAL), _MAX_POLL_INTERVAL)

    async def _close(self, leaving: Leaving) -> None:
        """Close a worker and its nanny. `remove_worker` updates the state before it awaits anything."""
        self._handover.end(leaving)
        ws, seconds = self._scheduler.workers.get(leaving.address), time.monotonic() - leaving.since
        counts = self._counts
        counts.retired += 1
        counts.keys_moved += leaving.keys_moved
        counts.bytes_moved += leaving.bytes_moved
        counts.seconds, counts.longest = counts.seconds + seconds, max(counts.longest, seconds)
        if ws is None:
            return
        left = sum(1 for _ in self._handover.only_here(ws))
        moved = f"{leaving.keys_moved} results ({leaving.bytes_moved / 1e6:.1f} MB) were moved"
        lost = f"{left} could not be moved; Dask recomputes them" if left else None
        self._log("retired", ws, f"worker {leaving.name} retired after {seconds:.1f} s; {moved}", lost)
        stimulus = f"starburst-retired-{time.time()}"
        await self._scheduler.remove_worker(leaving.address, stimulus_id=stimulus, expected=True, close=True)

    async def _warn_of_large_workers(self) -> None:
        while True:
            await asyncio.sleep(self._warn_interval)
            self._forget_removed_workers()
            for ws in list(self._scheduler.workers.values()):
                if ws.name in self._on_spot - self._warned:
                    self._warn(ws)

    def _forget_removed_workers(self) -> None:
        """Drop names of removed workers once there are many. A worker that lost its connection may come back."""
        names = {ws.name for ws in self._scheduler.workers.values()}
        if len(self._on_spot) > 2 * len(names) + _HISTORY:
            self._on_spot &= names
            self._warned &= names

    def _warn(self, ws: Any) -> None:
        """Warn once about a worker that holds more data than can be moved. Check the total first, which is cheap."""
        rate = bandwidth(ws.nthreads)
        if too_much(ws.nbytes, rate) is None:
            return
        warning = too_much(sum(ts.nbytes for ts in self._handover.only_here(ws)), rate)
        if warning is not None:
            self._warned.add(ws.name)
            self._log("too-much", ws, f"worker {ws.name} holds too much data to survive a Spot interruption: {warning}")


def dask_setup(scheduler: Any) -> None:
    """Install the plugin; called by Dask when the scheduler has started."""
    retirement = Retirement(scheduler)
    scheduler.add_plugin(retirement)
    retirement.begin()
