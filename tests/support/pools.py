"""Pools in an embedded AWS without processes: made, filled with instances, and read as AWS describes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from dask_starburst.aws import autoscaling, ecs
from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.fleet.blueprint import Blueprint, available_types, blueprint
from dask_starburst.fleet.pool.account import Account, set_up
from dask_starburst.fleet.pool.pool import Pool, claim, make
from dask_starburst.local import LocalAWS
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.requests.pool import LEASE_ACTION, PoolNames, PoolSpec
from dask_starburst.plan.requests.reuse import WARM_TAG
from dask_starburst.settings import Settings
from tests.support.placements import HEAD, SPOT

#: Seconds between two polls; instances of `LocalAWS(timing="none")` appear at once.
POLL = 0.02
_numbers = count()


async def eventually(condition: Callable[[], Awaitable[Any]], what: str, seconds: float = 30.0) -> Any:
    """Poll until the condition returns a true value, and return that."""
    try:
        async with asyncio.timeout(seconds):
            while not (found := await condition()):
                await asyncio.sleep(POLL)
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s: {what}") from None
    return found


class Pools:
    """An account that is set up, and the pools in it. Each blueprint has a specification of its own.

    Parameters
    ----------
    local : LocalAWS
        An embedded AWS without processes.
    """

    def __init__(self, local: LocalAWS) -> None:
        self.local = local
        self._before: dict[str, Callable[[], object]] = {}
        session = local.session()
        session.events.register("before-call", self._on_call)
        self.aws = AWS(endpoint_url=local.endpoint_url, session=session)
        self.patience = Patience(30.0, lambda event: None)
        self.account = asyncio.run(self._set_up())

    def just_before(self, operation: str, happens: Callable[[], object]) -> None:
        """Let something happen once, in the moment before the next call of an operation reaches AWS."""
        self._before[operation] = happens

    def _on_call(self, model: Any, **_: Any) -> None:
        happens = self._before.pop(model.name, None)
        if happens is not None:
            happens()

    async def _set_up(self) -> Account:
        settings = self.settings()
        return await set_up(self.aws, settings, blueprint(settings, "{}").types, self.patience)

    def settings(self, **more: Any) -> Settings:
        """Return settings with which a cluster starts quickly."""
        usual: dict[str, Any] = {
            "arch": "arm64",
            "endpoint_url": self.local.endpoint_url,
            "image": "image",
            "network": {"caller": "127.0.0.1/32"},
            "timeouts": {"poll": POLL},
        }
        return Settings.load(**(usual | more))

    def blueprint(self, **settings: Any) -> Blueprint:
        """Return a blueprint whose pools no other blueprint uses."""
        # The subnet that the account has: another one is chosen after failed launches in its zone.
        network = {"caller": "127.0.0.1/32", "subnet": self.account.subnet.subnet}
        own = self.settings(tags={"test": str(next(_numbers))}, network=network, **settings)
        return available_types(blueprint(own, "{}"), self.account)

    async def checked_out(self, plan: Blueprint | None = None, session: str = "session") -> Pool:
        """Claim the first pool of a blueprint for a session, and create its resources."""
        spec = (plan or self.blueprint()).spec(self.account)
        names = PoolNames(spec.pool_name(0))
        assert await claim(self.aws, names, session, self.account.caller)
        return await self.make(spec, names, session)

    async def make(self, spec: PoolSpec, names: PoolNames, session: str) -> Pool:
        """Create the resources that a claimed pool lacks."""
        return await make(self.aws, spec, names, session, "127.0.0.1/32", (8786,), self.patience)

    async def filled(self, pool: Pool, workers: int) -> set[str]:
        """Open a pool, launch instances for the scheduler and the workers, and return those that are ready."""
        await pool.open(workers + 1, self.aws.now() + 1800, self.patience)
        await pool.set_desired(HEAD, 1)
        await pool.set_desired(SPOT, workers)
        return await self.ready(pool, workers + 1)

    async def ready(self, pool: Pool, instances: int) -> set[str]:
        """Wait until the pool has this number of instances, all ready, and return them."""

        async def there() -> set[str]:
            found = {host.instance for host in await ecs.hosts(self.aws, pool.name) if host.ready}
            return found if len(found) == instances else set()

        found: set[str] = await eventually(there, f"{instances} instances are ready")
        return found

    async def group(self, pool: Pool, placement: Placement = SPOT) -> autoscaling.GroupSeen:
        """Return one group of a pool."""
        return (await autoscaling.describe(self.aws, [pool.names.group(placement)]))[pool.names.group(placement)]

    async def staying(self, pool: Pool) -> set[str]:
        """Return the instances of a pool that are not terminating."""
        groups = await autoscaling.describe(self.aws, pool.group_names)
        return {instance for group in groups.values() for instance, _ in group.staying}

    async def empty(self, pool: Pool) -> None:
        """Wait until every instance of a pool terminates: Auto Scaling acts soon after a call."""

        async def none() -> bool:
            return not await self.staying(pool)

        await eventually(none, f"the instances of {pool.name} terminate")

    async def kept_until(self, pool: Pool) -> dict[str, float]:
        """Return until when the reapers keep idle instances, by the names of the groups that have the tag."""
        groups = await autoscaling.describe(self.aws, pool.group_names)
        return {name: float(group.tags[WARM_TAG]) for name, group in groups.items() if WARM_TAG in group.tags}

    def ingress(self, group: str) -> list[tuple[int, str]]:
        """Return the ports and addresses that a security group admits."""
        found = self.local.client("ec2").describe_security_groups(GroupIds=[group])["SecurityGroups"]
        rules = [rule for each in found for rule in each["IpPermissions"]]
        return sorted((rule["FromPort"], rule["IpRanges"][0]["CidrIp"]) for rule in rules)

    async def leases(self, pool: Pool) -> list[float]:
        """Return the ends of the leases of a pool's groups."""
        ends = [await autoscaling.lease_end(self.aws, name, LEASE_ACTION) for name in pool.group_names]
        return [end for end in ends if end is not None]
