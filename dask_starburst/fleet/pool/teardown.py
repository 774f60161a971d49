"""Remove resources of ours from an account and region, whatever state they are in."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from dask_starburst.aws import autoscaling, ec2, ecr, ecs, iam, identity, logs, ssm
from dask_starburst.aws.faults import BUSY, code_of, outage
from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError, StarburstError
from dask_starburst.fleet.pool import claims, discovery
from dask_starburst.fleet.pool.delete import PATIENCE, POLL
from dask_starburst.fleet.pool.pool import claim, owns
from dask_starburst.plan.requests.garbage import PoolFound
from dask_starburst.plan.requests.policies import NAMESPACE
from dask_starburst.plan.requests.pool import PoolNames
from dask_starburst.plan.requests.teardown import Kind, Resource, Verb, claim_of, stages


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a resource; `error` is empty if it is gone, else what AWS said."""

    resource: Resource
    error: str = ""


async def remove(
    aws: AWS,
    resources: Iterable[Resource],
    tell: Callable[[Outcome], None],
    *,
    force: bool = False,
    patience: float = PATIENCE,
) -> tuple[Outcome, ...]:
    """Remove resources that `inventory.find` has found and `teardown.choose` has chosen.

    Idempotent: what is gone is skipped. Each pool is claimed first and its claim is removed last, so that no cluster
    starts in it meanwhile, and an interrupted teardown is found and resumed. What AWS refuses is told, and the rest
    is removed.

    Parameters
    ----------
    aws : AWS
        The account and region.
    resources : iterable of Resource
    tell : callable
        Receives each outcome when it is known.
    force : bool
        Whether pools in use are removed too.
    patience : float
        Seconds to wait at most while AWS is busy with a resource.

    Raises
    ------
    CredentialsExpired, NoCredentials, Throttled, AWSUnavailable
        AWS does not answer, or not this user. A second teardown goes on.
    """
    work = _Removal(aws, tell, asyncio.get_running_loop().time() + patience)
    chosen = set(resources)
    pools = {pool.name: pool for pool in await discovery.find(aws)}
    await work.claim(sorted({each.pool for each in chosen if not each.is_shared}), pools, force)
    for verb, part in stages(chosen | {claim_of(pool) for pool in work.sessions}):
        await work.run(verb, part)
    return tuple(work.outcomes)


@dataclass
class _Removal:
    """One teardown.

    Attributes
    ----------
    deadline : float
        When waiting for busy resources ends, in the loop's time.
    sessions : dict of str to str
        The sessions of the claims by pool.
    lost : dict of str to str
        Why a pool's resources are left alone.
    failed : set of str
        Pools, some resource of which could not be removed.
    """

    aws: AWS
    tell: Callable[[Outcome], None]
    deadline: float
    sessions: dict[str, str] = field(default_factory=dict)
    lost: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    outcomes: list[Outcome] = field(default_factory=list)

    async def claim(self, names: Iterable[str], pools: Mapping[str, PoolFound], force: bool) -> None:
        """Claim the pools; those that cannot be claimed are left alone."""
        caller = (await identity.caller(self.aws)).arn
        for name in names:
            try:
                self.sessions[name] = await _claimed(self.aws, name, pools.get(name), caller, force)
            except StarburstError as error:
                if outage(error):
                    raise
                self.lost[name] = str(error)

    async def run(self, verb: Verb, resources: Iterable[Resource]) -> None:
        """Do one step for resources of one kind."""
        found = tuple(resources)
        await asyncio.gather(*(self._check(pool) for pool in {each.pool for each in found} & self.sessions.keys()))
        if verb == "remove" and any(each.is_shared for each in found):
            await self._keep_shared_in_use()
        await asyncio.gather(*(self._run_one(verb, each) for each in found))

    async def _check(self, pool: str) -> None:
        # Another deletion may have finished first, and a new cluster may have claimed the pool since.
        if pool not in self.lost and not await owns(self.aws, PoolNames(pool), self.sessions[pool]):
            self.lost[pool] = "another session has claimed its pool meanwhile"

    async def _keep_shared_in_use(self) -> None:
        """Leave the shared resources alone if a cluster is in use, such as one started during the teardown."""
        used = sorted(pool.name for pool in await discovery.find(self.aws) if pool.state == "in use")
        if used:
            self.lost[NAMESPACE] = f"{', '.join(used)} needs it"

    async def _run_one(self, verb: Verb, resource: Resource) -> None:
        error = self.lost.get(resource.pool, "")
        if resource.kind == "claim" and resource.pool in self.failed and not error:
            error = "kept until the rest of its pool is gone: a second teardown continues"
        error = error or await self._repeat(verb, resource)
        if error:
            self.failed.add(resource.pool)
        if error or verb in ("remove", "stop"):
            self._record(Outcome(resource, error))

    def _record(self, outcome: Outcome) -> None:
        if any(each.resource == outcome.resource and each.error for each in self.outcomes):
            return  # told in an earlier step
        self.outcomes.append(outcome)
        self.tell(outcome)

    async def _repeat(self, verb: Verb, resource: Resource) -> str:
        """Do one step for one resource, and again while AWS is busy with it; return AWS's error."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                await _ACTIONS[verb, resource.kind](self.aws, resource)
                return ""
            except StarburstError as error:
                if outage(error):
                    raise
                # What could not be removed will keep others busy: do not wait for it.
                if code_of(error) not in BUSY or resource.pool in self.failed or loop.time() > self.deadline:
                    return str(error)
            await asyncio.sleep(POLL)
            if resource.pool in self.sessions:
                await self._check(resource.pool)
                if resource.pool in self.lost:
                    return self.lost[resource.pool]


async def _claimed(aws: AWS, name: str, pool: PoolFound | None, caller: str, force: bool) -> str:
    """Claim a pool for its removal; return the session of the claim."""
    if pool is not None and pool.claim is not None:
        if pool.state != "in use":
            return pool.claim.session
        if not force:
            raise AWSError(f"pool {name} is in use by {pool.claim.owner} since this moment.")
        await claims.free(aws, PoolNames(name))
    session = uuid.uuid4().hex
    if not await claim(aws, PoolNames(name), session, caller, cleaning=True):
        raise AWSError(f"pool {name} has just been checked out by a new cluster.")
    return session


async def _remove_provider(aws: AWS, resource: Resource) -> None:
    await ecs.remove_providers(aws, [resource.id])


async def _remove_group(aws: AWS, resource: Resource) -> None:
    await autoscaling.remove_group(aws, resource.id)
    if await autoscaling.describe(aws, [resource.id], instances=False):
        raise AWSError(f"{resource.name} is still being deleted.", code="ScalingActivityInProgress")


async def _detach(aws: AWS, resource: Resource) -> None:
    if await ecs.cluster_providers(aws, resource.id):
        await ecs.detach_providers(aws, resource.id)


_ACTIONS: Mapping[tuple[Verb, Kind], Callable[[AWS, Resource], Awaitable[None]]] = {
    ("empty", "Auto Scaling group"): lambda aws, it: autoscaling.set_zero(aws, it.id),
    ("stop", "task"): lambda aws, it: ecs.stop_task(aws, it.name.partition("/")[0], it.id, "teardown"),
    ("detach", "ECS cluster"): _detach,
    ("remove", "capacity provider"): _remove_provider,
    ("remove", "Auto Scaling group"): _remove_group,
    ("remove", "instance"): lambda aws, it: ec2.terminate(aws, it.id),
    ("remove", "launch template"): lambda aws, it: ec2.remove_launch_template(aws, it.id),
    ("remove", "ECS cluster"): lambda aws, it: ecs.remove_cluster(aws, it.id),
    ("remove", "task definition"): lambda aws, it: ecs.deregister_definition(aws, it.id),
    ("remove", "security group"): lambda aws, it: ec2.remove_security_group(aws, it.id),
    ("remove", "certificate"): lambda aws, it: ssm.remove(aws, it.id),
    ("remove", "claim"): lambda aws, it: claims.remove(aws, PoolNames(it.pool)),
    ("remove", "image repository"): lambda aws, it: ecr.remove_repository(aws, it.id),
    ("remove", "log group"): lambda aws, it: logs.remove_group(aws, it.id),
    ("remove", "instance profile"): lambda aws, it: iam.remove_instance_profile(aws, it.id),
    ("remove", "role"): lambda aws, it: iam.remove_role(aws, it.id),
}
