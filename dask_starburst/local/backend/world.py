"""The whole state of the embedded AWS, under one lock, with its timers.

There is one lock because two would be taken in two orders sooner or later: a request that places
tasks needs what the engine changes, and the other way round.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import uuid
from collections import deque
from collections.abc import Callable

from dask_starburst.local.backend.clock import Clock
from dask_starburst.local.backend.consistency import Veil
from dask_starburst.local.backend.keys import Keys, Private
from dask_starburst.local.backend.pending_faults import Luck
from dask_starburst.local.backend.state import (
    CapacityProvider,
    Cluster,
    ContainerInstance,
    Group,
    Machine,
    Task,
    TaskDefinition,
)
from dask_starburst.local.backend.timing import Step, Timing

ACCOUNT = "123456789012"
#: So many instances, and events of the weather, are remembered for whoever asks what there was.
REMEMBERED = 10_000


class World:
    """Everything that exists, and what is going to happen when.

    Parameters
    ----------
    clock : Clock
        The virtual time.
    timing : Timing
        How long steps take.
    region : str
        The one region of this AWS.
    endpoint_url : str
        Where the services are reached, for the environment of the containers.
    keys : Keys
        What only the owner and, of each part, a task knows.
    """

    def __init__(self, clock: Clock, timing: Timing, region: str, endpoint_url: str, keys: Keys) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.timing = timing
        self.region = region
        self.endpoint_url = endpoint_url
        self.keys = keys
        self.machines: dict[str, Machine] = {}
        self.history: deque[Machine] = deque(maxlen=REMEMBERED)  # also those that EC2 shows no more, after an hour
        self.groups: dict[str, Group] = {}
        self.clusters: dict[str, Cluster] = {}
        self.providers: dict[str, CapacityProvider] = {}
        self.definitions: dict[str, list[TaskDefinition]] = {}  # by family, oldest first
        self.registered: dict[str, ContainerInstance] = {}  # by EC2 instance id
        self.tasks: dict[str, Task] = {}  # by id, of every cluster
        self.late = 0.0  # the most seconds that something happened after its time, for want of processor
        self.luck = Luck()
        self.veil = Veil(clock.now)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        """Return the virtual time."""
        return self.clock.now()

    def after(self, step: Step, action: Callable[[], None]) -> None:
        """Do something once a step has taken its time. Call it with the lock held."""
        self.at(self.now() + self.timing.seconds(step), action)

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do something when the virtual clock passes a time. Call it with the lock held."""
        heapq.heappush(self._timers, (when, next(self._numbers), action))

    def take_due(self) -> list[Callable[[], None]]:
        """Return what is due by now, in order, and forget it. Call it with the lock held."""
        now = self.now()
        due = []
        while self._timers and self._timers[0][0] <= now:
            when, _, action = heapq.heappop(self._timers)
            self.late = max(self.late, now - when)
            due.append(action)
        return due

    def private_url(self, private: Private, id: str) -> str:
        """Return the address at which an instance or a task asks about itself; nobody else knows it."""
        return self.endpoint_url + self.keys.path(private, id)

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a resource of this account and region."""
        return f"arn:aws:{service}:{self.region}:{ACCOUNT}:{resource}"

    def provider_of(self, machine: Machine, cluster: str) -> str | None:
        """Return the capacity provider of a cluster that an instance belongs to by its group."""
        for name in self.clusters[cluster].providers:
            if name in self.providers and self.providers[name].group == machine.group:
                return name
        return None


def new_id() -> str:
    """Return a new id as ECS makes them: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    """Write tags as ECS does."""
    return [{"key": key, "value": value} for key, value in tags.items()]


def tag_dict(tags: list[dict[str, str]] | None) -> dict[str, str]:
    """Read tags as ECS writes them."""
    return {tag.get("key", ""): tag.get("value", "") for tag in tags or []}
