"""Check out a pool, like a connection from a connection pool."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any

from dask_starburst.aws import autoscaling, ec2, ecs
from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.cancellation import together
from dask_starburst.fleet.pool import claims
from dask_starburst.fleet.pool.account import Account
from dask_starburst.plan.groups import HEAD_PLACEMENT, Placement
from dask_starburst.plan.requests.claims import Claim
from dask_starburst.plan.requests.policies import NAMESPACE
from dask_starburst.plan.requests.pool import (
    LEASE_ACTION,
    PlacementSpec,
    PoolNames,
    PoolSpec,
    group_request,
    launch_template_data,
    provider_request,
    purchases,
    tags_of,
    user_data,
)
from dask_starburst.plan.requests.reuse import WARM_TAG


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool that this session has checked out; no other session changes it.

    `keeps`: whether instances may stay without a task. A tag tells the reapers on the instances.
    """

    aws: AWS
    spec: PoolSpec
    names: PoolNames
    session: str
    head_security_group: str
    keeps: bool = False

    @property
    def name(self) -> str:
        """The ECS cluster's name, from which all other names are derived."""
        return self.names.pool

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Its placements, the scheduler's first; each has an Auto Scaling group."""
        return self.spec.placements

    @property
    def group_names(self) -> tuple[str, ...]:
        """The names of its Auto Scaling groups, the scheduler's first."""
        return tuple(self.names.group(placement) for placement in self.placements)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of all resources of the pool."""
        return tags_of(self.name, self.spec.tags)

    async def open(self, maximum: int, until: float, patience: Patience) -> None:
        """Allow the groups to have capacity; put a lease on each of them first."""
        sizes = {place: 1 if place.is_head else max(1, maximum) for place in self.placements}
        await together(
            patience(lambda: self._mark(until)),
            *(patience(partial(self._open, place, size, until)) for place, size in sizes.items()),
        )

    async def _open(self, placement: Placement, maximum: int, until: float) -> None:
        name = self.names.group(placement)
        await autoscaling.put_lease(self.aws, name, LEASE_ACTION, until)
        # With all its types: an earlier session may have excluded some that failed then.
        await autoscaling.set_maximum(self.aws, name, maximum, self._purchases(placement, self.allowed(placement)))

    async def set_desired(self, placement: Placement, desired: int) -> None:
        """Set the desired capacity of a placement."""
        await autoscaling.set_desired(self.aws, self.names.group(placement), desired)

    def allowed(self, placement: Placement) -> tuple[str, ...]:
        """Return the instance types that a placement may launch."""
        return self.spec.part(placement).types

    async def set_types(self, placement: Placement, types: tuple[str, ...]) -> None:
        """Set the types that a placement launches; running instances are not affected."""
        await autoscaling.set_purchases(self.aws, self.names.group(placement), self._purchases(placement, types))

    async def resize(self, placement: Placement, size: int) -> None:
        """Set the desired and the maximum capacity of a placement; it may launch all its types again."""
        policy = self._purchases(placement, self.allowed(placement))
        await autoscaling.resize(self.aws, self.names.group(placement), size, policy)

    def _purchases(self, placement: Placement, types: tuple[str, ...]) -> dict[str, Any]:
        return purchases(self.names.group(placement), types, placement.market)

    async def renew(self, until: float) -> None:
        """Extend the lease: the time at which AWS empties the groups."""
        leases = (autoscaling.put_lease(self.aws, name, LEASE_ACTION, until) for name in self.group_names)
        await together(self._mark(until), *leases)

    async def _mark(self, until: float) -> None:
        if self.keeps:
            await autoscaling.tag(self.aws, list(self.group_names), WARM_TAG, f"{until:.0f}")

    async def is_claimed_and_open(self) -> bool:
        """Whether this session still holds the claim and the groups may have capacity."""
        found = await autoscaling.describe(self.aws, list(self.group_names), instances=False)
        if any(name not in found or found[name].maximum == 0 for name in self.group_names):
            return False
        return await owns(self.aws, self.names, self.session)


def pool_spec(account: Account, parts: tuple[PlacementSpec, ...], **rest: object) -> PoolSpec:
    """Return the specification of a pool in this account; `rest` comes from the settings."""
    return PoolSpec(
        region=account.region,
        subnet=account.subnet.subnet,
        vpc=account.subnet.vpc,
        parts=parts,
        security_group=account.security_group,
        instance_profile=account.instance_profile,
        boot_script=boot_script(),
        **rest,  # type: ignore[arg-type]  # the settings check their types
    )


def boot_script() -> str:
    """Return the script that every instance runs at boot, with the reaper; `user_data` fills in the pool's values."""
    remote = resources.files("dask_starburst.runtime.host")
    script, reaper = (remote.joinpath(name).read_text("utf-8") for name in ("boot.sh", "reaper.py"))
    return script.replace("@REAPER@", reaper.rstrip())


async def claim(aws: AWS, names: PoolNames, session: str, arn: str, cleaning: bool = False) -> bool:
    """Claim a pool, to use it or to delete it; return whether the claim succeeded."""
    return await claims.take(aws, names, Claim(session, user_name(), arn, aws.now(), cleaning))


async def owns(aws: AWS, names: PoolNames, session: str) -> bool:
    """Whether this session still holds the claim; a computer that slept may have lost it."""
    return (await claims.series(aws, names)).is_held_by(session)


async def make(
    aws: AWS,
    spec: PoolSpec,
    names: PoolNames,
    session: str,
    caller: str,
    ports: tuple[int, ...],
    patience: Patience,
    on_security_group: Callable[[str], None] = lambda group: None,
) -> Pool:
    """Create the resources that the claimed pool lacks, and admit the caller to its scheduler.

    `on_security_group` is called with the security group before the caller is admitted, so that a start that fails can
    revoke the ingress rule.
    """
    tags = tags_of(names.pool, spec.tags)

    async def head_security_group() -> str:
        if spec.own_groups:
            return ""
        about = "The caller to the Dask scheduler"
        group = await patience(
            lambda: ec2.ensure_security_group(aws, spec.vpc, names.group(HEAD_PLACEMENT), about, tags)
        )
        on_security_group(group)
        await patience(lambda: ec2.admit_caller(aws, group, caller, ports))
        return group

    _, head_group = await together(
        patience(lambda: ecs.ensure_cluster(aws, names.pool, tags, spec.container_insights)),
        head_security_group(),
    )
    pool = Pool(aws, spec, names, session, head_group)
    made = await together(*(patience(partial(_make_group, pool, placement)) for placement in pool.placements))
    arns = [seen.arn for seen in made]
    providers = [provider_request(pool.name, each, arn) for each, arn in zip(pool.placements, arns, strict=True)]
    await patience(lambda: ecs.ensure_providers(aws, names.pool, providers, tags))
    stale = [seen.name for seen in made if WARM_TAG in seen.tags and not seen.desired]
    if stale:  # its next instances must not stay because earlier ones were kept
        await autoscaling.untag(aws, stale, WARM_TAG)
    await _stop_leftovers(pool, {instance for seen in made for instance, _ in seen.staying})
    return pool


async def _make_group(pool: Pool, placement: Placement) -> autoscaling.GroupSeen:
    spec, name = pool.spec, pool.names.group(placement)
    head = [pool.head_security_group] if placement.is_head and pool.head_security_group else []
    groups = list(spec.own_groups) or [spec.security_group, *head]
    data = launch_template_data(spec, pool.name, placement, groups, user_data(spec, pool.name, placement))
    await ec2.ensure_launch_template(pool.aws, name, data, pool.tags)
    return await autoscaling.ensure_group(pool.aws, group_request(spec, pool.name, placement))


async def _stop_leftovers(pool: Pool, staying: Collection[str]) -> None:
    """Stop the tasks that an earlier session left on the instances that stay in the claimed pool.

    ECS may list tasks of terminating instances for minutes; they end with their instances.
    """
    aws, name = pool.aws, pool.name
    listed = await ecs.running(aws, name) if staying else []
    if not listed:
        return
    known = await ecs.tasks(aws, name, listed)
    places = await ecs.instance_ids(aws, name, {task.instance for task in known.values() if task.instance})
    going = {arn for arn, task in known.items() if task.instance and places.get(task.instance) not in staying}
    reason = f"pool taken over by {NAMESPACE}"
    await together(*(ecs.stop_task(aws, name, task, reason) for task in listed if task not in going))


def user_name() -> str:
    """Return the name of the user on this computer."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
