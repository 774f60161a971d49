"""A pool has one owner at most, whoever claims it when, and is free again at once."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError
from dask_starburst.fleet.pool import claims, reuse
from dask_starburst.local import faults
from dask_starburst.plan.requests.claims import Claim
from dask_starburst.plan.requests.pool import PoolNames
from tests.support.pools import Pools

NAMES = PoolNames("starburst-00000000-0")


@types.coroutine
def turn() -> Generator[None, None, None]:
    """Let another client go on."""
    yield


class Parameters:
    """SSM's parameters; between two calls of one client others may make theirs."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def now(self) -> float:
        return 0.0

    async def pages(self, service: str, operation: str, key: str, **request: Any) -> list[dict[str, str]]:
        await turn()
        below = f"{request['Path']}/"
        return [{"Name": name, "Value": value} for name, value in self.values.items() if name.startswith(below)]

    async def call(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        await turn()
        name = request["Name"]
        if operation == "DeleteParameter":
            if name not in self.values:
                raise AWSError("gone", code="ParameterNotFound")
            del self.values[name]
        elif name in self.values and not request["Overwrite"]:
            raise AWSError("taken", code="ParameterAlreadyExists")
        else:
            self.values[name] = request["Value"]
        return {}


def client(
    aws: AWS, name: str, rounds: int, owners: list[str], won: list[str]
) -> Callable[[], Coroutine[Any, Any, None]]:
    async def work() -> None:
        for number in range(rounds):
            session = f"{name}{number}"
            if await claims.take(aws, NAMES, Claim(session, name, "arn", 0.0)):
                owners.append(session)
                won.append(session)
                assert len(owners) == 1, owners
                await turn()
                assert (await claims.series(aws, NAMES)).is_held_by(session)
                owners.remove(session)
                await claims.free(aws, NAMES)

    return work


@settings(max_examples=300)
@example([0, 0, *([1] * 100)])  # client 0 acts on what it read before three others had the pool
@given(st.lists(st.integers(0, 3), max_size=120))
def test_clients_that_race_for_a_pool_never_own_it_together(order: list[int]) -> None:
    aws, owners, won = cast(AWS, Parameters()), list[str](), list[str]()
    running = {n: client(aws, f"client-{n}", 3, owners, won)() for n in range(4)}
    for n in [*order, *(n for _ in range(200) for n in range(4))]:
        if n in running:
            try:
                running[n].send(None)
            except StopIteration:
                del running[n]
    assert not running
    assert won, "a free pool is claimed by one of them"


def test_a_claim_whose_answer_was_lost_is_known_when_it_is_repeated(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        held = await claims.read(pools.aws, pool.names)
        assert held is not None
        assert await claims.take(pools.aws, pool.names, held)
        assert not await claims.take(pools.aws, pool.names, Claim("other", "ann", "arn", 0.0))

    asyncio.run(story())


@pytest.fixture
def slow_deletions(pools: Pools) -> Any:
    pools.local.play([faults.Invisible(what="deleted-parameters", delay=30.0)])
    yield
    pools.local.play([faults.Clear()])


@pytest.mark.usefixtures("slow_deletions")
def test_a_pool_is_claimed_again_at_once_and_keeps_its_owner(pools: Pools) -> None:
    async def story() -> None:
        spec = pools.blueprint().spec(pools.account)
        found = []
        for n in range(4):
            pool = await reuse.claim_best(pools.aws, spec, 1, f"{n}", "arn", pools.patience, lambda names: None)
            found.append(pool.name)
            await asyncio.to_thread(pools.local.advance, 31.0)
            assert (await claims.series(pools.aws, PoolNames(pool.name))).is_held_by(f"{n}")
            await claims.free(pools.aws, PoolNames(pool.name))
        assert found == [spec.pool_name(0)] * 4
        left = (await claims.series(pools.aws, PoolNames(found[0]))).claims
        assert len(left) == 1, "one freed claim is kept"
        await claims.remove(pools.aws, PoolNames(found[0]))
        assert (await claims.series(pools.aws, PoolNames(found[0]))).claims == {}

    asyncio.run(story())
