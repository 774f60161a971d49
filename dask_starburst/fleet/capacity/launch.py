"""Build the RunTask requests that start the scheduler and the workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tlz import partition_all

from dask_starburst.aws import ec2
from dask_starburst.aws.ecs import Placements
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.groups import Placement, WorkerGroup
from dask_starburst.plan.loop.state import SCHEDULER, Action, Observed, RunTask
from dask_starburst.plan.requests.sizing import memory_limit
from dask_starburst.plan.requests.tasks import MOST_TASKS, Launch, Place, run_request


@dataclass
class Launcher:
    """Turns decisions into RunTask requests.

    Parameters
    ----------
    definitions : dict
        Task definition ARN by group.
    port : int
        The scheduler's TCP port.
    groups : dict
        The groups of the scheduler and the workers, by name.
    together : bool, optional
        Whether a RunTask call starts several tasks, which takes a tenth of the calls. Such a task has its worker by its
        instance, so AWS has to place it within the call, and whether AWS does is undocumented (real-aws R1). None until
        AWS has answered; then, and if AWS ever places a task later, each call starts one.
    public_access : bool
        Whether the client connects to the public address of the scheduler.
    """

    definitions: dict[str, str]
    port: int
    groups: dict[str, WorkerGroup]
    together: bool | None = None
    public_access: bool = True
    head: str | None = None
    private: str = ""
    public: str = ""

    async def find_scheduler(self, pool: Pool, observed: Observed) -> None:
        """Look up the scheduler's addresses as soon as its instance exists.

        EC2 assigns the private address while the instance is still pending, so that workers can start concurrently
        with the scheduler. The public address follows later.
        """
        alive = [i.id for i in observed.instances.values() if i.placement.is_head and not i.terminating]
        if not alive or (self.head == alive[0] and self.reachable):
            return
        self.head = alive[0]
        self.private, self.public = await ec2.addresses(pool.aws, self.head)

    def ready_for(self, action: Action) -> bool:
        """Whether an action can be executed yet: workers need the address of their scheduler."""
        return not isinstance(action, RunTask) or action.placement.is_head or bool(self.private)

    def learn(self, answer: Placements) -> None:
        """Note whether ECS places tasks within RunTask."""
        if not answer.immediate:
            self.together = False
        elif answer.tasks and self.together is None:
            self.together = True

    @property
    def reachable(self) -> bool:
        """Whether the client knows the address to connect to."""
        return bool(self.public if self.public_access else self.private)

    @property
    def scheduler_address(self) -> str:
        """The address that workers connect to."""
        return f"tls://{self.private}:{self.port}"

    @property
    def contact_address(self) -> str:
        """The address that the client connects to."""
        return f"tls://{(self.public_access and self.public) or self.private}:{self.port}"

    def batches(self, runs: Iterable[RunTask], observed: Observed) -> list[list[RunTask]]:
        """Group tasks into RunTask calls: each of one placement, on instances of one type."""
        alike: dict[tuple[Placement, str], list[RunTask]] = defaultdict(list)
        for run in runs:
            alike[run.placement, observed.instances[run.instance].type].append(run)
        size = MOST_TASKS if self.together else 1
        return [list(part) for same in alike.values() for part in partition_all(size, same)]

    def request(self, pool: Pool, batch: list[RunTask], observed: Observed) -> dict[str, Any]:
        """Return the RunTask request of a batch of workers, or of the scheduler."""
        placement, instance = batch[0].placement, observed.instances[batch[0].instance]
        role = SCHEDULER if placement.is_head else "worker"
        size = self.groups[placement.group].size_on(instance.type)
        limit = min(size.memory_limit, memory_limit(size.task_memory))
        known = ((run, observed.instances[run.instance].arn or "") for run in batch)
        places = tuple(Place(run.instance, arn.rpartition("/")[2], run.worker, run.launch, limit) for run, arn in known)
        return run_request(
            Launch(
                pool=pool.name,
                session=pool.session,
                placement=placement,
                role=role,
                definition=self.definitions[placement.group],
                places=places,
                cpu=size.task_cpu,
                memory=size.task_memory,
                environment={} if placement.is_head else {"STARBURST_SCHEDULER": self.scheduler_address},
                tags=pool.tags,
            )
        )
