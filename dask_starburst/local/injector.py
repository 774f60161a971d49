"""The fault injector: applies the events of a scenario at their times."""

from __future__ import annotations

import json
import logging
import random
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial, singledispatchmethod
from typing import Any

from moto.ec2.models.instances import StateReason
from moto.events.models import events_backends

from dask_starburst.local.backend.account import partition
from dask_starburst.local.backend.backend import ACCOUNT, REMEMBERED, Backend
from dask_starburst.local.backend.pending_faults import PendingFaults, fits, like
from dask_starburst.local.backend.state import Ec2Instance, Task
from dask_starburst.local.faults.events import (
    AgentLost,
    Calls,
    Capacity,
    Clear,
    ClockSkew,
    Event,
    FreshProfile,
    HostDeath,
    Instances,
    Interrupt,
    Invisible,
    LatePlacement,
    NextInstances,
    NextTasks,
    OutOfMemory,
    Quota,
    Rebalance,
    Refuses,
    RegionNotEnabled,
    SpotPrice,
    TaskDeath,
    Tasks,
)
from dask_starburst.local.faults.scenario import Scenario
from dask_starburst.local.http.call_faults import Faults
from dask_starburst.local.services.ec2.capacity import Ec2Capacity
from dask_starburst.local.services.ec2.capacity_pools import Choice
from dask_starburst.local.services.ec2.instance_lifecycle import InstanceLifecycle
from dask_starburst.local.services.ecs.common import short
from dask_starburst.local.services.ecs.task_life import TaskLife

_log = logging.getLogger(__name__)
_OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
_INTERRUPTED = StateReason(
    "Server.SpotInstanceTermination: Spot instance termination", "Server.SpotInstanceTermination"
)
_DIED = StateReason("Server.InternalError: Internal error on launch", "Server.InternalError")


class Injector:
    """Applies faults to instances, tasks, capacity and calls.

    Parameters
    ----------
    backend, lifecycle, tasks, capacity, faults : Backend, InstanceLifecycle, TaskLife, Ec2Capacity, Faults
        The targets of faults.

    Attributes
    ----------
    past : deque of dict
        Latest faults: ``at`` (seconds since 1970), ``kind``, and ``hit``, the ids of the instances or tasks.
    """

    def __init__(
        self, backend: Backend, lifecycle: InstanceLifecycle, tasks: TaskLife, capacity: Ec2Capacity, faults: Faults
    ) -> None:
        self._backend = backend
        self._lifecycle = lifecycle
        self._tasks = tasks
        self._capacity = capacity
        self._faults = faults
        self._pending_faults: PendingFaults = backend.pending_faults
        self.past: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)

    def play(self, scenario: Scenario) -> None:
        """Schedule a scenario from now on; faults due at once have been applied when this returns."""
        rng = random.Random(scenario.seed)
        with self._backend.lock:
            start = self._backend.now()
            for event in scenario.events:
                inject = partial(self._inject, event, rng)
                if event.at > 0:
                    self._backend.at(start + event.at, inject)
                else:
                    inject()

    def _inject(self, event: Event, rng: random.Random) -> None:
        hit = self._apply(event, rng)
        self.past.append({"at": self._backend.now(), "kind": event.kind(), "hit": hit})

    @singledispatchmethod
    def _apply(self, event: Event, rng: random.Random) -> list[str]:
        """Apply an event and return the ids of its targets."""
        raise TypeError(f"{event.kind()} cannot be injected")

    @_apply.register
    def _(self, event: Capacity, rng: random.Random) -> list[str]:
        choice = Choice(event.type, event.zone, event.market)
        self._capacity.set_room(choice, event.room)
        self._end(event.seconds, lambda: self._capacity.set_room(choice, None))
        return []

    @_apply.register
    def _(self, event: Refuses, rng: random.Random) -> list[str]:
        times = 1 if event.count is None and event.seconds is None else event.count
        self._capacity.refuse(Choice(event.type, event.zone, event.market), times, event.seconds, event.why)
        return []

    @_apply.register
    def _(self, event: SpotPrice, rng: random.Random) -> list[str]:
        choice = Choice(event.type, event.zone, "spot")
        self._capacity.prices.change(choice, event.times)
        self._end(event.seconds, lambda: self._capacity.prices.change(choice, 1.0))
        return []

    @_apply.register
    def _(self, event: Quota, rng: random.Random) -> list[str]:
        self._capacity.quotas.set(event.quota, event.vcpus)
        self._end(event.seconds, lambda: self._capacity.quotas.set(event.quota, None))
        return []

    @_apply.register
    def _(self, event: Instances, rng: random.Random) -> list[str]:
        happens: dict[type[Event], Callable[[Any, Ec2Instance], None]] = {
            Interrupt: self._interrupt,
            Rebalance: self._rebalance,
            HostDeath: lambda _, ec2_instance: self._lifecycle.terminate_at_once(ec2_instance, _DIED),
            AgentLost: self._lose_agent,
        }
        able = [
            ec2_instance
            for ec2_instance in self._backend.ec2_instances.values()
            if ec2_instance.state == "running"
            and event.instance in (None, ec2_instance.id)
            and fits(event, ec2_instance)
            and self._can(event, ec2_instance)
        ]
        chosen = rng.sample(able, min(event.count, len(able)))
        for ec2_instance in chosen:
            happens[type(event)](event, ec2_instance)
        return [ec2_instance.id for ec2_instance in chosen]

    @_apply.register
    def _(self, event: Tasks, rng: random.Random) -> list[str]:
        able = [
            task
            for task in self._backend.tasks.values()
            if task.status == "RUNNING"
            and (event.task is None or short(event.task) == task.id)
            and like(task.definition.family, event.family)
            and like(task.instance.ec2_instance.group, event.group)
        ]
        chosen: list[Task] = rng.sample(able, min(event.count, len(able)))
        for task in chosen:
            if isinstance(event, TaskDeath):
                self._tasks.kill(task, event.exit_code, None)
            elif isinstance(event, OutOfMemory):
                self._tasks.kill(task, 137, _OUT_OF_MEMORY)
        return [task.id for task in chosen]

    @_apply.register(NextInstances)
    @_apply.register(NextTasks)
    @_apply.register(LatePlacement)
    def _(self, event: Any, rng: random.Random) -> list[str]:
        self._pending_faults.add(event)
        return []

    @_apply.register
    def _(self, event: Calls, rng: random.Random) -> list[str]:
        self._faults.add(event, rng.getrandbits(32))
        return []

    @_apply.register
    def _(self, event: ClockSkew, rng: random.Random) -> list[str]:
        self._faults.behind = event.behind - event.ahead
        self._end(event.seconds, lambda: setattr(self._faults, "behind", 0.0))
        return []

    @_apply.register
    def _(self, event: RegionNotEnabled, rng: random.Random) -> list[str]:
        self._faults.not_enabled = True
        self._end(event.seconds, lambda: setattr(self._faults, "not_enabled", False))
        return []

    @_apply.register
    def _(self, event: Invisible, rng: random.Random) -> list[str]:
        self._backend.consistency.hide(event.what, event.delay, event.seconds)
        return []

    @_apply.register
    def _(self, event: FreshProfile, rng: random.Random) -> list[str]:
        self._backend.consistency.refuse_profiles(event.age, event.seconds)
        return []

    @_apply.register
    def _(self, event: Clear, rng: random.Random) -> list[str]:
        for part in (self._capacity, self._pending_faults, self._faults, self._backend.consistency):
            part.clear()
        return []

    def _can(self, event: Instances, ec2_instance: Ec2Instance) -> bool:
        """Return whether an instance is a valid target: for example, no second Spot notice."""
        spot = ec2_instance.lifecycle == "spot"
        match event:
            case Interrupt():
                return spot and ec2_instance.instance_action is None
            case Rebalance():
                return spot and ec2_instance.rebalance is None
            case AgentLost():
                return self._lifecycle.is_connected(ec2_instance)
        return True

    def _interrupt(self, event: Interrupt, ec2_instance: Ec2Instance) -> None:
        when = self._backend.now() + event.notice
        ec2_instance.instance_action = {"action": "terminate", "time": _stamp(when)}
        self._announce("EC2 Spot Instance Interruption Warning", ec2_instance, {"instance-action": "terminate"})
        self._lifecycle.drain(ec2_instance)  # no new task is placed, and standalone tasks keep running
        self._backend.at(when, lambda: self._lifecycle.terminating(ec2_instance.id, _INTERRUPTED))

    def _rebalance(self, event: Rebalance, ec2_instance: Ec2Instance) -> None:
        ec2_instance.rebalance = {"noticeTime": _stamp(self._backend.now())}
        self._announce("EC2 Instance Rebalance Recommendation", ec2_instance, {})

    def _lose_agent(self, event: AgentLost, ec2_instance: Ec2Instance) -> None:
        self._lifecycle.set_agent(ec2_instance, connected=False)
        self._end(event.seconds, lambda: self._lifecycle.set_agent(ec2_instance, connected=True))

    def _announce(self, kind: str, ec2_instance: Ec2Instance, detail: dict[str, str]) -> None:
        """Put an event on the default EventBridge bus."""
        event = {
            "Source": "aws.ec2",
            "DetailType": kind,
            "Time": self._backend.now(),  # moto formats it
            "Resources": [f"arn:{partition()}:ec2:{ec2_instance.zone}:instance/{ec2_instance.id}"],
            "Detail": json.dumps({"instance-id": ec2_instance.id, **detail}),
        }
        try:
            events_backends[ACCOUNT][self._backend.region].put_events([event])
        except Exception:  # noqa: BLE001 - a user's rule with a broken target must not prevent the fault
            _log.exception("EventBridge failed to deliver %s; continuing", kind)

    def _end(self, seconds: float | None, action: Callable[[], None]) -> None:
        if seconds is not None:
            self._backend.at(self._backend.now() + seconds, action)


def _stamp(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
