"""The check-out of a pool, and what is left of one that fails."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

import pytest

from dask_starburst.errors import PermissionDenied, QuotaExceeded, StarburstError
from dask_starburst.fleet.pool import claims
from dask_starburst.fleet.pool.checkout import Checkout
from dask_starburst.fleet.pool.pool import Pool, claim, owns
from dask_starburst.plan.requests.claims import Claim
from dask_starburst.plan.requests.pool import PoolNames, PoolSpec
from dask_starburst.plan.requests.reuse import Candidate
from tests.support.pools import POLL, Pools

PATIENCE = 5.0
DENIED = "User is not authorized to perform this"


def passes(name: str) -> None:
    """Forbid no start."""


def new_checkout(pools: Pools, session: str = "session") -> Checkout:
    return Checkout(pools.aws, session, pools.patience)


async def run(pools: Pools, checkout: Checkout, spec: PoolSpec, **more: Any) -> Pool:
    check = more.pop("check", passes)
    return await checkout.run(spec, pools.account.caller, 1, pools.aws.now() + 1800, check, **more)


def first_names(spec: PoolSpec) -> PoolNames:
    return PoolNames(spec.pool_name(0))


def test_a_new_pool_is_claimed_and_complete_but_has_no_capacity(pools: Pools) -> None:
    async def story() -> None:
        spec, found = pools.blueprint().spec(pools.account), list[Candidate]()
        pool = await run(pools, new_checkout(pools), spec, claimed=found.append)
        assert found == [Candidate(pool.name)]
        assert await owns(pools.aws, pool.names, "session")
        assert [(await pools.group(pool, each)).maximum for each in pool.placements] == [0, 0]
        assert await pools.leases(pool) == [], "nothing to terminate"

    asyncio.run(story())


def test_the_claim_names_its_owner(pools: Pools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")

    async def story() -> None:
        pool = await run(pools, new_checkout(pools), pools.blueprint().spec(pools.account))
        found = await claims.read(pools.aws, pool.names)
        assert found is not None
        assert (found.owner, found.session) == ("ann", "session")
        assert found.is_of("ann", pools.account.caller)

    asyncio.run(story())


def test_only_the_caller_may_connect_and_only_to_the_scheduler(pools: Pools) -> None:
    async def story() -> None:
        spec = pools.blueprint().spec(pools.account)
        pool = await run(pools, new_checkout(pools), spec, caller="203.0.113.7/32", ports=(8786, 8787))
        cidr = "203.0.113.7/32"
        assert pools.ingress(pool.head_security_group) == [(8786, cidr), (8787, cidr)]

    asyncio.run(story())


def test_a_start_that_is_forbidden_creates_nothing(pools: Pools) -> None:
    def forbids(name: str) -> None:
        raise QuotaExceeded("too many vCPUs", quota="L-34B43A08", limit=0, used=0, workers=0)

    async def story() -> None:
        spec, checkout = pools.blueprint().spec(pools.account), new_checkout(pools)
        with pytest.raises(QuotaExceeded):
            await run(pools, checkout, spec, check=forbids)
        await checkout.undo(PATIENCE, POLL)
        assert await claims.read(pools.aws, first_names(spec)) is None
        assert spec.pool_name(0) not in pools.local.status().clusters

    asyncio.run(story())


def test_a_creation_that_aws_refuses_midway_is_undone_with_its_ingress_rule(pools: Pools) -> None:
    async def story() -> None:
        spec, checkout = pools.blueprint().spec(pools.account), new_checkout(pools)
        pools.local.inject("ecs:PutClusterCapacityProviders", "AccessDeniedException", DENIED, status=403)
        with pytest.raises(PermissionDenied):
            await run(pools, checkout, spec, caller="203.0.113.7/32", ports=(8786,))
        assert checkout.entrance is not None
        await checkout.undo(PATIENCE, POLL)
        assert await claims.read(pools.aws, first_names(spec)) is None
        assert pools.ingress(checkout.entrance) == []

    asyncio.run(story())


def test_undoing_a_failed_claim_leaves_the_claim_of_another_session(pools: Pools) -> None:
    """Else two clusters would use one pool."""

    async def story() -> None:
        spec, checkout = pools.blueprint().spec(pools.account), new_checkout(pools)
        names, aws = first_names(spec), pools.local.client("ssm")
        value = Claim("other", "bob", "arn", pools.aws.now()).to_json()

        def another_is_first() -> None:
            aws.put_parameter(Name=f"{names.claim}/1", Value=value, Type="String")
            pools.local.inject("ssm:PutParameter", "AccessDeniedException", DENIED, status=403)

        pools.just_before("PutParameter", another_is_first)
        with pytest.raises(StarburstError):
            await run(pools, checkout, spec)
        await checkout.undo(PATIENCE, POLL)
        assert await owns(pools.aws, names, "other")

    asyncio.run(story())


def test_a_claim_that_is_on_its_way_at_ctrl_c_is_released(pools: Pools) -> None:
    async def story() -> None:
        spec, checkout = pools.blueprint().spec(pools.account), new_checkout(pools)
        loop, claiming, interrupted = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def waits() -> None:
            loop.call_soon_threadsafe(claiming.set)
            interrupted.wait(PATIENCE)

        pools.just_before("PutParameter", waits)
        starting = asyncio.ensure_future(run(pools, checkout, spec))
        await claiming.wait()
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        undoing = asyncio.ensure_future(checkout.undo(PATIENCE, POLL))
        loop.call_soon(interrupted.set)
        await undoing
        await pools.aws.wait_for_calls(PATIENCE)
        assert await claims.read(pools.aws, first_names(spec)) is None

    asyncio.run(story())


def test_a_check_out_that_has_not_begun_is_undone_without_a_trace(pools: Pools) -> None:
    async def story() -> None:
        names = first_names(pools.blueprint().spec(pools.account))
        assert await claim(pools.aws, names, "other", "arn")
        await new_checkout(pools).undo(PATIENCE, POLL)
        assert await owns(pools.aws, names, "other")

    asyncio.run(story())
