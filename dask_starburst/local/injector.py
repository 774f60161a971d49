"""Where the weather comes from: it lets the events of a script happen at their times."""

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

from dask_starburst.local.backend.pending_faults import Luck, fits, like
from dask_starburst.local.backend.state import Machine, Task
from dask_starburst.local.backend.world import ACCOUNT, REMEMBERED, World
from dask_starburst.local.faults.events import (
    AgentLost,
    Calls,
    Capacity,
    Clear,
    Event,
    FreshProfile,
    HostDeath,
    Instances,
    Interrupt,
    Invisible,
    NextInstances,
    NextTasks,
    OutOfMemory,
    Quota,
    Rebalance,
    Refuses,
    SpotPrice,
    TaskDeath,
    Tasks,
)
from dask_starburst.local.faults.scenario import Scenario
from dask_starburst.local.http.call_faults import Faults
from dask_starburst.local.services.ec2.capacity import Market
from dask_starburst.local.services.ec2.capacity_pools import Choice
from dask_starburst.local.services.ec2.machines import Machines
from dask_starburst.local.services.ecs.common import short
from dask_starburst.local.services.ecs.task_life import TaskLife

_log = logging.getLogger(__name__)
_OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
_INTERRUPTED = StateReason(
    "Server.SpotInstanceTermination: Spot instance termination", "Server.SpotInstanceTermination"
)
_DIED = StateReason("Server.InternalError: Internal error on launch", "Server.InternalError")


class Injector:
    """Applies faults to everything that they can happen to.

    Parameters
    ----------
    world, machines, tasks, market, faults : World, Machines, TaskLife, Market, Faults
        What it happens to.

    Attributes
    ----------
    past : deque of dict
        What has happened lately: ``at`` (seconds since 1970), ``kind``, and ``hit``, the ids of the instances or tasks.
    """

    def __init__(self, world: World, machines: Machines, tasks: TaskLife, market: Market, faults: Faults) -> None:
        self._world = world
        self._machines = machines
        self._tasks = tasks
        self._market = market
        self._faults = faults
        self._luck: Luck = world.luck
        self.past: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)

    def order(self, weather: Scenario) -> None:
        """Let a script happen from now on; what is due at once has happened when this returns."""
        rng = random.Random(weather.seed)
        with self._world.lock:
            start = self._world.now()
            for event in weather.events:
                happen = partial(self._happen, event, rng)
                if event.at > 0:
                    self._world.at(start + event.at, happen)
                else:
                    happen()

    def _happen(self, event: Event, rng: random.Random) -> None:
        hit = self._apply(event, rng)
        self.past.append({"at": self._world.now(), "kind": event.kind(), "hit": hit})

    @singledispatchmethod
    def _apply(self, event: Event, rng: random.Random) -> list[str]:
        """Let an event happen, and return whom it has hit."""
        raise TypeError(f"{event.kind()} does not happen here")

    @_apply.register
    def _(self, event: Capacity, rng: random.Random) -> list[str]:
        choice = Choice(event.type, event.zone, event.market)
        self._market.set_room(choice, event.room)
        self._end(event.seconds, lambda: self._market.set_room(choice, None))
        return []

    @_apply.register
    def _(self, event: Refuses, rng: random.Random) -> list[str]:
        times = 1 if event.count is None and event.seconds is None else event.count
        self._market.refuse(Choice(event.type, event.zone, event.market), times, event.seconds)
        return []

    @_apply.register
    def _(self, event: SpotPrice, rng: random.Random) -> list[str]:
        choice = Choice(event.type, event.zone, "spot")
        self._market.prices.change(choice, event.times)
        self._end(event.seconds, lambda: self._market.prices.change(choice, 1.0))
        return []

    @_apply.register
    def _(self, event: Quota, rng: random.Random) -> list[str]:
        self._market.quotas.set(event.quota, event.vcpus)
        self._end(event.seconds, lambda: self._market.quotas.set(event.quota, None))
        return []

    @_apply.register
    def _(self, event: Instances, rng: random.Random) -> list[str]:
        happens: dict[type[Event], Callable[[Any, Machine], None]] = {
            Interrupt: self._interrupt,
            Rebalance: self._rebalance,
            HostDeath: lambda _, machine: self._machines.die(machine, _DIED),
            AgentLost: self._lose_agent,
        }
        able = [
            machine
            for machine in self._world.machines.values()
            if machine.state == "running"
            and event.instance in (None, machine.id)
            and fits(event, machine)
            and self._can(event, machine)
        ]
        chosen = rng.sample(able, min(event.count, len(able)))
        for machine in chosen:
            happens[type(event)](event, machine)
        return [machine.id for machine in chosen]

    @_apply.register
    def _(self, event: Tasks, rng: random.Random) -> list[str]:
        able = [
            task
            for task in self._world.tasks.values()
            if task.status == "RUNNING"
            and (event.task is None or short(event.task) == task.id)
            and like(task.definition.family, event.family)
            and like(task.instance.machine.group, event.group)
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
    def _(self, event: Any, rng: random.Random) -> list[str]:
        self._luck.add(event)
        return []

    @_apply.register
    def _(self, event: Calls, rng: random.Random) -> list[str]:
        self._faults.add(event, rng.getrandbits(32))
        return []

    @_apply.register
    def _(self, event: Invisible, rng: random.Random) -> list[str]:
        self._world.veil.hide(event.what, event.delay, event.seconds)
        return []

    @_apply.register
    def _(self, event: FreshProfile, rng: random.Random) -> list[str]:
        self._world.veil.refuse_profiles(event.age, event.seconds)
        return []

    @_apply.register
    def _(self, event: Clear, rng: random.Random) -> list[str]:
        for part in (self._market, self._luck, self._faults, self._world.veil):
            part.clear()
        return []

    def _can(self, event: Instances, machine: Machine) -> bool:
        """Whether it makes sense that something happens to an instance: nothing is taken back twice."""
        spot = machine.lifecycle == "spot"
        match event:
            case Interrupt():
                return spot and machine.instance_action is None
            case Rebalance():
                return spot and machine.rebalance is None
            case AgentLost():
                return self._machines.is_connected(machine)
        return True

    def _interrupt(self, event: Interrupt, machine: Machine) -> None:
        when = self._world.now() + event.notice
        machine.instance_action = {"action": "terminate", "time": _stamp(when)}
        self._announce("EC2 Spot Instance Interruption Warning", machine, {"instance-action": "terminate"})
        instance = self._world.registered.get(machine.id)
        if machine.drains and instance is not None and instance.status == "ACTIVE":
            # So the agent does: no new task is placed, and those that no service has started go on.
            instance.status = "DRAINING"
            instance.version += 1
        self._world.at(when, lambda: self._machines.terminating(machine.id, _INTERRUPTED))

    def _rebalance(self, event: Rebalance, machine: Machine) -> None:
        machine.rebalance = {"noticeTime": _stamp(self._world.now())}
        self._announce("EC2 Instance Rebalance Recommendation", machine, {})

    def _lose_agent(self, event: AgentLost, machine: Machine) -> None:
        self._machines.set_agent(machine, connected=False)
        self._end(event.seconds, lambda: self._machines.set_agent(machine, connected=True))

    def _announce(self, kind: str, machine: Machine, detail: dict[str, str]) -> None:
        """Put an event on the default EventBridge bus."""
        event = {
            "Source": "aws.ec2",
            "DetailType": kind,
            "Time": self._world.now(),  # moto writes it out
            "Resources": [f"arn:aws:ec2:{machine.zone}:instance/{machine.id}"],
            "Detail": json.dumps({"instance-id": machine.id, **detail}),
        }
        try:
            events_backends[ACCOUNT][self._world.region].put_events([event])
        except Exception:  # noqa: BLE001 - a rule of the user's with a broken target is no reason not to interrupt
            _log.exception("EventBridge could not take %s", kind)

    def _end(self, seconds: float | None, action: Callable[[], None]) -> None:
        if seconds is not None:
            self._world.at(self._world.now() + seconds, action)


def _stamp(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
