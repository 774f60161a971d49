"""The roster: the only owner of the requested workers, and of what is known of them.

Everything else reads it and calls its methods; each change of a worker is passed on to the listeners.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Self

from dask_starburst.fleet.controller import snapshot
from dask_starburst.plan.groups import HEAD, HEAD_PLACEMENT, Placement
from dask_starburst.plan.loop.interruptions import Succession
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.reconcile import pending
from dask_starburst.plan.loop.state import (
    SCHEDULER,
    Action,
    Instance,
    Limits,
    Name,
    Observed,
    Task,
    Worker,
    WorkerState,
)
from dask_starburst.plan.loop.transitions import accepted, delayed, refused, refused_late, unanswered
from dask_starburst.plan.loop.worker import given_up, reset, rested, retried, track

S = WorkerState

#: The number of ended processes whose logs `get_logs` reads; CloudWatch keeps all of them.
_REMEMBERED = 1000

#: Called with a worker before and after a change, once the roster holds the new one.
Listener = Callable[[Worker, Worker], None]


class Roster:
    """The requested workers, and the observed state of AWS and Dask.

    Parameters
    ----------
    limits : Limits
        Timeouts, in seconds, and placements.
    clock : callable
        Returns the time (seconds, AWS's clock).
    workers : iterable of Worker
        Workers that are requested already.
    observed : Observed
        What is known of AWS and Dask already.
    """

    def __init__(
        self,
        limits: Limits,
        clock: Callable[[], float],
        workers: Iterable[Worker] = (),
        observed: Observed | None = None,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self._workers: dict[Name, Worker] = {worker.name: worker for worker in workers}
        self._observed = observed or Observed()
        self._launches = 0
        self._launched: list[Worker] = []
        self._reasons: dict[Name, tuple[int, str]] = {}
        self._successions: list[Succession] = []
        self._held: set[Name] = set()
        self._listeners: list[Listener] = []
        self._on_request: Callable[[], None] = lambda: None

    # -- reading --------------------------------------------------------------------------------

    @property
    def workers(self) -> Mapping[Name, Worker]:
        """Every requested process by name, the scheduler included; read-only."""
        return MappingProxyType(self._workers)

    @property
    def observed(self) -> Observed:
        """The known state of AWS and Dask, and the requests in flight."""
        return self._observed

    @property
    def scheduler(self) -> Worker | None:
        """The scheduler, if it is requested."""
        return self._workers.get(SCHEDULER)

    @property
    def launched(self) -> tuple[Worker, ...]:
        """The processes that were launched: all that run, and the latest that have ended."""
        return tuple(self._launched)

    @property
    def successions(self) -> tuple[Succession, ...]:
        """The workers that another one is about to replace."""
        return tuple(self._successions)

    def held(self, name: Name) -> bool:
        """Whether a worker stays until its replacement is ready, although its request is cancelled."""
        return name in self._held

    def failed(self) -> list[Worker]:
        """Return the workers that were given up after their last attempt."""
        return [w for w in self._workers.values() if given_up(w, self.limits)]

    def reason_of(self, worker: Worker) -> str | None:
        """Return the message about a worker that was given up; None until it is known."""
        launch, text = self._reasons.get(worker.name, (-1, ""))
        return text if launch == worker.launch else None

    def unordered(self) -> frozenset[Name]:
        """Return the names of the requested workers without an instance on its way; cancelling them is free."""
        waiting = [w for w in self._workers.values() if w.state is S.REQUESTED]
        return frozenset(w.name for w in (*waiting, *self.failed()))

    def instance_of(self, worker: Worker) -> Instance | None:
        """Return the instance on which a worker runs or ran; None if it is unknown."""
        if worker.instance is None:
            return None
        return next((i for i in self._observed.instances.values() if i.arn == worker.instance), None)

    # -- listeners ------------------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """Call `listener` after each change of a worker, in the order of registration."""
        self._listeners.append(listener)

    def on_request(self, callback: Callable[[], None]) -> None:
        """Call `callback` when a request was made, cancelled or renewed, because the loop should act at once."""
        self._on_request = callback

    def _put(self, new: Worker) -> None:
        old = self._workers[new.name]
        if new is old:
            return
        self._workers[new.name] = new
        for listener in self._listeners:
            listener(old, new)

    # -- requests -------------------------------------------------------------------------------

    def request(self, name: Name, group: str) -> None:
        """Request a process of a group; the loop starts it."""
        old, now = self._workers.get(name), self.clock()
        if old is None:
            placement = HEAD_PLACEMENT if group == HEAD else self.limits.placements[group][0]
            # Launch numbers continue after those of earlier workers: ECS remembers their client tokens.
            self._workers[name] = Worker(name, placement, since=now, not_before=now, launch=self._launches)
        elif not old.requested:
            self._put(replace(old, requested=True))
        self._on_request()

    def cancel(self, name: Name) -> None:
        """Cancel a request: a worker that has not been launched is dropped, a running one is retired."""
        if name in self._workers and name not in self._held:
            self._put(replace(self._workers[name], requested=False))
            self._on_request()

    def retry_failed(self) -> None:
        """Give the workers that were given up a new set of attempts, because the user requested them again."""
        now = self.clock()
        for worker in self.failed():
            self._put(replace(reset(worker, now, 0), reason=""))

    def retry_rested(self) -> None:
        """Give the workers that were given up long enough ago a new set of attempts, because there is work for them."""
        now = self.clock()
        for worker in self.failed():
            if not worker.is_scheduler and rested(worker, now, self.limits):
                self._put(retried(worker, now, self.limits))
                self._on_request()

    def explain(self, worker: Worker, text: str) -> None:
        """Record the message about a worker that was given up."""
        if worker.name in self._workers:  # it may have been cancelled while its log was read
            self._reasons[worker.name] = worker.launch, text

    def set_over_budget(self, names: Collection[Name]) -> None:
        """Mark the workers that wait because their instance would exceed a cost cap, and no others."""
        for name, worker in tuple(self._workers.items()):
            if worker.over_budget != (name in names):
                self._put(replace(worker, over_budget=not worker.over_budget))

    # -- interruptions --------------------------------------------------------------------------

    def leave(self, worker: Worker, at: float) -> None:
        """Record that AWS takes a worker's instance at a time (seconds); the scheduler retires the worker itself.

        It is not requested any more, so that another notice does not replace it again.
        """
        if worker.name in self._workers:
            self._put(replace(worker, requested=False, notice=at))

    def hold(self, name: Name) -> None:
        """Keep a worker until its replacement is ready: cancelling its request has no effect until then."""
        self._held.add(name)

    def succeed(self, one: Succession) -> None:
        """Record which worker replaces one that is held."""
        self._successions.append(one)

    def end_succession(self, one: Succession) -> None:
        """Forget a succession; it holds the old worker until `release`."""
        self._successions.remove(one)

    def release(self, name: Name) -> None:
        """Hold a worker no longer."""
        self._held.discard(name)

    def cordon(self, instance: str) -> None:
        """Place no further task on an instance, because it is interrupted or drained."""
        if instance in self._observed.instances:
            self._change_instances([replace(self._observed.instances[instance], cordoned=True)])

    def refuse(self, refusal: Refusal) -> None:
        """Avoid the refused offering for a while."""
        self._observed = replace(self._observed, refusals=(*self._observed.refusals, refusal))

    # -- the loop -------------------------------------------------------------------------------

    def observe(self, seen: Observed, before: Observed) -> None:
        """Record a newly observed state; `before` is the one that it was derived from.

        What was recorded in the meantime, such as an interruption, is kept.
        """
        now = self._observed
        self._observed = seen
        if now is before:
            return
        fresh = tuple(refusal for refusal in now.refusals if refusal not in before.refusals)
        answered = before.in_flight.keys() - now.in_flight.keys()
        self._observed = replace(seen, refusals=(*seen.refusals, *fresh))
        self.clear_in_flight(answered)
        for instance in now.instances.values():
            if instance.cordoned:
                self.cordon(instance.id)

    def delayed(self, seconds: float) -> None:
        """Do not count the time in which AWS could not be polled."""
        for worker in tuple(self._workers.values()):
            self._put(delayed(worker, seconds))

    def track(self, now: float) -> None:
        """Apply all transitions that the observed state allows; drop workers that are stopped and not requested."""
        for name, old in tuple(self._workers.items()):
            new = track(old, self._observed, now, self.limits)
            self._put(new)
            if refused_late(old, new):
                self.refuse_instances([i.id for i in self._observed.instances.values() if i.arn == old.instance], now)
            if new.state is S.STOPPED and not new.requested:
                self._launches = max(self._launches, new.launch + 1)
                self._reasons.pop(name, None)
                del self._workers[name]

    def mark_in_flight(self, actions: Iterable[Action], now: float) -> None:
        """Record actions as in flight, and forget those that are older than ``limits.repeat``.

        The effect of an action that AWS has refused, or that another one has superseded, never becomes visible, so that
        actions must not stay in flight for ever.
        """
        kept = pending(self._observed.in_flight, now, self.limits.repeat)
        self._observed = replace(self._observed, in_flight={**kept, **dict.fromkeys(actions, now)})

    def clear_in_flight(self, actions: Collection[Action]) -> None:
        """Forget actions in flight, because AWS or Dask has answered them."""
        kept = {a: at for a, at in self._observed.in_flight.items() if a not in actions}
        self._observed = replace(self._observed, in_flight=kept)

    # -- answers of AWS -------------------------------------------------------------------------

    def place(self, tasks: Collection[Task], now: float) -> None:
        """Record the tasks that RunTask returned; `step` stops those whose worker was cancelled meanwhile."""
        self._observed = replace(self._observed, tasks={**self._observed.tasks, **{t.arn: t for t in tasks}})
        for task in tasks:
            if (worker := self.waiting(task.worker, task.launch)) is not None:
                self._put(accepted(worker, task, now))
                self._remember(self._workers[worker.name])

    def waiting(self, name: Name, launch: int) -> Worker | None:
        """Return the worker that waits for the task of this launch; None if it was cancelled meanwhile."""
        worker = self._workers.get(name)
        return worker if worker is not None and worker.state is S.CAPACITY and worker.launch == launch else None

    def refuse_task(self, worker: Worker, reason: str, *, passing: bool) -> None:
        """Record that ECS refused a worker's task; `passing`: the same request may succeed soon."""
        self._put(refused(worker, reason, passing=passing))

    def refuse_instances(self, instances: Iterable[str], now: float) -> None:
        """Record that ECS refused a task on these instances, so that others are tried first."""
        known = self._observed.instances
        self._change_instances([replace(known[i], refused_at=now) for i in instances if i in known])

    def not_served(self, workers: Iterable[Worker], reason: str, now: float, *, outage: bool) -> None:
        """Record why these workers get no capacity; after an outage, restart their timeouts."""
        for worker in workers:
            if worker.state is S.CAPACITY:
                updated = replace(worker, reason=reason)
                self._put(unanswered(updated, now) if outage else updated)

    def at(self, placement: Placement) -> list[Worker]:
        """Return the workers of a placement."""
        return [w for w in self._workers.values() if w.placement == placement]

    def _change_instances(self, changed: Iterable[Instance]) -> None:
        instances = {**self._observed.instances, **{instance.id: instance for instance in changed}}
        self._observed = replace(self._observed, instances=instances)

    def _remember(self, process: Worker) -> None:
        """Remember launched processes for their logs: all running ones, and the latest ended ones."""
        self._launched.append(process)
        if len(self._launched) > 2 * _REMEMBERED + len(self._workers):
            running = {worker.task for worker in self._workers.values()}
            ended = [each.task for each in self._launched if each.task not in running]
            forgotten = set(ended[:-_REMEMBERED])
            self._launched[:] = [each for each in self._launched if each.task not in forgotten]

    # -- saving ---------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return everything that a new controller needs to continue, as values that JSON can hold."""
        return snapshot.encode(
            snapshot.Saved(
                workers=tuple(self._workers.values()),
                observed=self._observed,
                launches=self._launches,
                launched=tuple(self._launched),
                reasons=dict(self._reasons),
                successions=tuple(self._successions),
            )
        )

    @classmethod
    def restore(cls, saved: Mapping[str, Any], limits: Limits, clock: Callable[[], float]) -> Self:
        """Return the roster of a snapshot.

        Raises
        ------
        StarburstError
            Another version of this package made the snapshot.
        """
        state = snapshot.decode(saved)
        roster = cls(limits, clock, state.workers, state.observed)
        roster._launches, roster._launched = state.launches, list(state.launched)
        roster._reasons, roster._successions = dict(state.reasons), list(state.successions)
        roster._held = {one.old for one in state.successions}
        return roster
