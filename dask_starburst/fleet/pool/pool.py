"""Checking a pool out, like a connection from a connection pool, and giving it back."""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib import resources
from typing import Any

from dask_starburst.aws import autoscaling, ec2, ecs, ssm
from dask_starburst.aws.faults import fresh_profile
from dask_starburst.aws.session import AWS
from dask_starburst.cancellation import together
from dask_starburst.errors import StarburstError
from dask_starburst.fleet.pool.account import Account
from dask_starburst.plan.loop.state import HEAD
from dask_starburst.plan.requests.garbage import Claim
from dask_starburst.plan.requests.policies import MANAGED_TAG, NAMESPACE
from dask_starburst.plan.requests.pool import (
    LEASE_ACTION,
    PoolNames,
    PoolSpec,
    group_request,
    launch_template_data,
    provider_request,
    purchases,
    tags_of,
    types_of,
    user_data,
)
from dask_starburst.plan.requests.reuse import WARM_TAG

#: A new instance profile is not usable everywhere at once; AWS says so for up to a minute.
_PROFILE_PATIENCE = 60.0
_PROFILE_PAUSE = 2.0


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool that this session has checked out: nobody else touches it.

    `keeps`: whether instances may have no task for long on purpose. A tag says so to their reapers.
    """

    aws: AWS
    spec: PoolSpec
    names: PoolNames
    session: str
    head_security_group: str
    keeps: bool = False

    @property
    def name(self) -> str:
        """The ECS cluster's name, from which all others are derived."""
        return self.names.pool

    @property
    def groups(self) -> tuple[str, ...]:
        """The purposes of its groups."""
        return (HEAD, *self.spec.worker_groups)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of everything in it."""
        return tags_of(self.name, self.spec.tags)

    async def open(self, maximum: int, until: float) -> None:
        """Let the groups have capacity, with a lease on each before there can be any."""
        sizes = {group: 1 if group == HEAD else max(1, maximum) for group in self.groups}
        await together(self._mark(until), *(self._open(group, size, until) for group, size in sizes.items()))

    async def _open(self, group: str, maximum: int, until: float) -> None:
        name = self.names.group(group)
        await autoscaling.put_lease(self.aws, name, LEASE_ACTION, until)
        # With all its types: an earlier session may have left some out that failed then.
        await autoscaling.set_maximum(self.aws, name, maximum, self._purchases(group, self.allowed(group)))

    async def order(self, group: str, desired: int) -> None:
        """Order instances."""
        await autoscaling.set_desired(self.aws, self.names.group(group), desired)

    def allowed(self, group: str) -> tuple[str, ...]:
        """Return the instance types that a group may launch."""
        return types_of(self.spec, group)

    async def set_types(self, group: str, types: tuple[str, ...]) -> None:
        """Have a group launch only these types; what runs goes on."""
        await autoscaling.set_purchases(self.aws, self.names.group(group), self._purchases(group, types))

    def _purchases(self, group: str, types: tuple[str, ...]) -> dict[str, Any]:
        return purchases(self.names.group(group), types, spot=group == "spot")

    async def renew(self, until: float) -> None:
        """Put off the moment at which AWS itself empties the groups."""
        names = [self.names.group(group) for group in self.groups]
        await together(
            self._mark(until), *(autoscaling.put_lease(self.aws, name, LEASE_ACTION, until) for name in names)
        )

    async def _mark(self, until: float) -> None:
        if self.keeps:
            names = [self.names.group(group) for group in self.groups]
            await autoscaling.tag(self.aws, names, WARM_TAG, f"{until:.0f}")

    async def is_ours_and_open(self) -> bool:
        """Whether this session holds the pool still and its groups may have capacity."""
        groups = [self.names.group(group) for group in self.groups]
        found = await autoscaling.describe(self.aws, groups, instances=False)
        if any(name not in found or found[name].maximum == 0 for name in groups):
            return False
        return await owns(self.aws, self.names, self.session)


def pool_spec(account: Account, types: tuple[str, ...], head: str, **rest: object) -> PoolSpec:
    """Return what a pool in this account is made from; `rest` comes from the settings."""
    return PoolSpec(
        region=account.region,
        image_id=account.image_id,
        subnet=account.subnet.subnet,
        vpc=account.subnet.vpc,
        worker_types=types,
        head_type=head,
        security_group=account.security_group,
        instance_profile=account.instance_profile,
        boot_script=boot_script(),
        **rest,  # type: ignore[arg-type]  # the settings' own types, checked there
    )


def boot_script() -> str:
    """Return what every instance runs at boot, the reaper included; `user_data` fills in what is the pool's own."""
    remote = resources.files("dask_starburst.runtime.host")
    script, reaper = (remote.joinpath(name).read_text("utf-8") for name in ("boot.sh", "reaper.py"))
    return script.replace("@REAPER@", reaper.rstrip())


async def claim(aws: AWS, names: PoolNames, session: str, arn: str, cleaning: bool = False) -> bool:
    """Claim a pool, to use it or to remove it; whether it is ours now and nobody was faster."""
    value = Claim(session, user_name(), arn, aws.now(), cleaning)
    return await ssm.claim(aws, names.claim, value.to_json(), {MANAGED_TAG: names.pool})


async def owns(aws: AWS, names: PoolNames, session: str) -> bool:
    """Whether the pool is claimed by this session; a computer that slept may have lost it."""
    value = await ssm.read(aws, names.claim)
    return value is not None and json.loads(value)["session"] == session


async def make(
    aws: AWS,
    spec: PoolSpec,
    names: PoolNames,
    session: str,
    caller: str,
    ports: tuple[int, ...],
    opening: Callable[[str], None] = lambda group: None,
) -> Pool:
    """Make what the claimed pool lacks, and admit the caller to its scheduler.

    `opening` is told the security group before anybody is admitted, so that a start that fails can close it.
    """
    tags = tags_of(names.pool, spec.tags)

    async def head_security_group() -> str:
        about = "The caller to the Dask scheduler"
        group = await ec2.ensure_security_group(aws, spec.vpc, names.group(HEAD), about, tags)
        opening(group)
        await ec2.admit_caller(aws, group, caller, ports)
        return group

    _, head_group = await together(ecs.ensure_cluster(aws, names.pool, tags), head_security_group())
    pool = Pool(aws, spec, names, session, head_group)
    made = await together(*(_make_group(pool, group) for group in pool.groups))
    providers = [provider_request(pool.name, group, seen.arn) for group, seen in zip(pool.groups, made, strict=True)]
    await ecs.ensure_providers(aws, names.pool, providers, tags)
    await _stop_leftovers(pool, {instance for seen in made for instance, _ in seen.staying})
    return pool


async def _make_group(pool: Pool, group: str) -> autoscaling.GroupSeen:
    spec, name = pool.spec, pool.names.group(group)
    head = [pool.head_security_group] if group == HEAD else []
    data = launch_template_data(spec, pool.name, group, [spec.security_group, *head], user_data(spec, pool.name, group))
    await ec2.ensure_launch_template(pool.aws, name, data, pool.tags)
    return await _ensure_group(pool.aws, group_request(spec, pool.name, group))


async def _ensure_group(aws: AWS, request: dict[str, object]) -> autoscaling.GroupSeen:
    patience = aws.now() + _PROFILE_PATIENCE
    while True:
        try:
            return await autoscaling.ensure_group(aws, request)
        except StarburstError as error:
            if not fresh_profile(error) or aws.now() > patience:
                raise
        await asyncio.sleep(_PROFILE_PAUSE)


async def _stop_leftovers(pool: Pool, staying: Collection[str]) -> None:
    """Stop what a session that died has left on the instances that stay in a pool whose claim is ours now.

    ECS may list tasks for minutes whose instances shut down: they end with them.
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
