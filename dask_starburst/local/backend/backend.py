"""The whole state of the embedded AWS, under one lock, with its timers.

There is one lock because two locks would deadlock: a request that places tasks needs state that
the ticker changes, and the ticker needs state that requests change.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable

from moto.utilities.utils import get_partition

from dask_starburst.local.backend.clock import Clock
from dask_starburst.local.backend.consistency import Consistency
from dask_starburst.local.backend.keys import Keys, Private
from dask_starburst.local.backend.pending_faults import PendingFaults
from dask_starburst.local.backend.state import (
    CapacityProvider,
    Cluster,
    ContainerInstance,
    Ec2Instance,
    Group,
    Task,
    TaskDefinition,
)
from dask_starburst.local.backend.timing import Step, Timing

ACCOUNT = "123456789012"
#: The number of past instances and injected faults that are kept.
REMEMBERED = 10_000


class Backend:
    """All resources of the account and all timers.

    Parameters
    ----------
    clock : Clock
        The virtual time.
    timing : Timing
        How long steps take.
    region : str
        The only region of this AWS.
    endpoint_url : str
        The URL of the services, for the environment of the containers.
    keys : Keys
        The secrets of the owner, the instances and the tasks.
    """

    def __init__(self, clock: Clock, timing: Timing, region: str, endpoint_url: str, keys: Keys) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.timing = timing
        self.region = region
        self.endpoint_url = endpoint_url
        self.keys = keys
        self.ec2_instances: dict[str, Ec2Instance] = {}
        self.history: deque[Ec2Instance] = deque(maxlen=REMEMBERED)  # also those that EC2 no longer shows
        self.groups: dict[str, Group] = {}
        self.clusters: dict[str, Cluster] = {}
        self.providers: dict[str, CapacityProvider] = {}
        self.definitions: dict[str, list[TaskDefinition]] = {}  # by family, oldest first
        self.registered: dict[str, ContainerInstance] = {}  # by EC2 instance id
        self.tasks: dict[str, Task] = {}  # by id, of every cluster
        self.late = 0.0  # the largest delay of a timer in seconds, when the processor is busy
        self.pending_faults = PendingFaults()
        self.consistency = Consistency(clock.now)
        #: Returns AWS's sentence if a role (its ARN, and the session's name) may not do one of these actions.
        self.denial_of_role: Callable[[str, str, Iterable[tuple[str, str]]], str | None] = lambda role, name, wanted: (
            None
        )
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def now(self) -> float:
        """Return the virtual time."""
        return self.clock.now()

    def after(self, step: Step, action: Callable[[], None]) -> None:
        """Schedule an action for the end of a step. The lock must be held."""
        self.at(self.now() + self.timing.seconds(step), action)

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Schedule an action for a virtual time. The lock must be held."""
        heapq.heappush(self._timers, (when, next(self._numbers), action))

    def take_due(self) -> list[Callable[[], None]]:
        """Remove and return the actions that are due, in order. The lock must be held."""
        now = self.now()
        due = []
        while self._timers and self._timers[0][0] <= now:
            when, _, action = heapq.heappop(self._timers)
            self.late = max(self.late, now - when)
            due.append(action)
        return due

    def private_url(self, private: Private, id: str) -> str:
        """Return the secret URL of an instance's or a task's own metadata."""
        return self.endpoint_url + self.keys.path(private, id)

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a resource of this account and region."""
        return f"arn:{get_partition(self.region)}:{service}:{self.region}:{ACCOUNT}:{resource}"

    def provider_of(self, ec2_instance: Ec2Instance, cluster: str) -> str | None:
        """Return the cluster's capacity provider over the instance's Auto Scaling group."""
        for name in self.clusters[cluster].providers:
            provider, group = self.providers.get(name), self.groups.get(ec2_instance.group or "")
            # By ARN: a provider does not know a group that was created again under the same name.
            if provider and group and provider.settings.get("autoScalingGroupArn") == group.arn:
                return name
        return None


def new_id() -> str:
    """Return a new id as ECS makes them: 32 hexadecimal digits."""
    return uuid.uuid4().hex


def tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    """Format tags as ECS does."""
    return [{"key": key, "value": value} for key, value in tags.items()]


def tag_dict(tags: list[dict[str, str]] | None) -> dict[str, str]:
    """Parse tags in ECS's format."""
    return {tag.get("key", ""): tag.get("value", "") for tag in tags or []}
