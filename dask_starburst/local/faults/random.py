"""The mix of faults of `Scenario.random`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from dask_starburst.local.faults.events import (
    AgentLost,
    AgentNever,
    Capacity,
    Error,
    Event,
    HostDeath,
    Interrupt,
    Invisible,
    LostResponse,
    OutOfMemory,
    PullFailure,
    Rebalance,
    Refuses,
    SlowBoot,
    TaskDeath,
    TaskStopsAtOnce,
    Throttle,
    Timeout,
)

_Make = Callable[[Random, float, str, str], Event]

# Relative frequency of each fault; invented, and much worse than AWS.
_MIX: tuple[tuple[int, _Make], ...] = (
    (4, lambda rng, at, group, family: TaskDeath(at=at, family=family)),
    (1, lambda rng, at, group, family: OutOfMemory(at=at, family=family)),
    (2, lambda rng, at, group, family: HostDeath(at=at, group=group)),
    (3, lambda rng, at, group, family: Interrupt(at=at, group=group, count=rng.choice((1, 1, 2)))),
    (1, lambda rng, at, group, family: Rebalance(at=at, group=group)),
    (1, lambda rng, at, group, family: AgentLost(at=at, group=group, seconds=rng.choice((20.0, 90.0, None)))),
    (1, lambda rng, at, group, family: AgentNever(at=at, group=group)),
    (1, lambda rng, at, group, family: SlowBoot(at=at, group=group, seconds=rng.uniform(10, 60))),
    (1, lambda rng, at, group, family: PullFailure(at=at, family=family)),
    (1, lambda rng, at, group, family: TaskStopsAtOnce(at=at, family=family)),
    (2, lambda rng, at, group, family: Capacity(at=at, market="spot", room=rng.choice((0, 0, 1)), seconds=90.0)),
    (1, lambda rng, at, group, family: Refuses(at=at, market="spot", count=1)),
    (2, lambda rng, at, group, family: Throttle(at=at, action=_action(rng), seconds=20.0, probability=0.3)),
    (2, lambda rng, at, group, family: Error(at=at, action=_action(rng), seconds=20.0, probability=0.3)),
    (1, lambda rng, at, group, family: Timeout(at=at, action=_action(rng), hold=3.0)),
    (2, lambda rng, at, group, family: LostResponse(at=at, action=_action(rng), count=rng.choice((1, 2)))),
    (1, lambda rng, at, group, family: Invisible(at=at, delay=rng.uniform(1, 5), seconds=60.0)),
)
_ACTIONS = ("ecs:*", "autoscaling:*", "ecs:RunTask", "autoscaling:TerminateInstanceInAutoScalingGroup", "*")


def random_events(rng: Random, end: float, events_per_minute: float, group: str, family: str) -> Iterator[Event]:
    """Yield the events of a Poisson process up to a time."""
    weights, makers = [weight for weight, _ in _MIX], [make for _, make in _MIX]
    at = rng.expovariate(events_per_minute / 60)
    while at < end:
        (make,) = rng.choices(makers, weights)
        yield make(rng, round(at, 1), group, family)
        at += rng.expovariate(events_per_minute / 60)


def _action(rng: Random) -> str:
    return rng.choice(_ACTIONS)
