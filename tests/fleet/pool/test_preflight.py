"""The check of the vCPU quotas before a launch."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from dask_starburst.catalog.markets import Market
from dask_starburst.errors import AWSError, QuotaExceeded
from dask_starburst.events import Event
from dask_starburst.events.capacity import QuotaShort, QuotaUnknown
from dask_starburst.fleet.blueprint import blueprint
from dask_starburst.fleet.pool import preflight
from dask_starburst.fleet.pool.preflight import Quotas
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.requests.quotas import Running
from dask_starburst.settings import Settings

ON_DEMAND, SPOT = "L-1216C47A", "L-34B43A08"
POOL = "starburst-test-0"


def checked(workers: dict[str, int], limits: dict[str, float], running: tuple[Running, ...] = (), **more: Any) -> Any:
    """Check a launch, and return the events."""
    plan = blueprint(Settings.load(region="us-east-1", arch="arm64", **more), "{}")
    events: list[Event] = []
    preflight.check(Quotas("us-east-1", limits, running), plan.requests(workers), POOL, events.append)
    return events


def test_a_launch_that_fits_says_nothing() -> None:
    assert checked({DEFAULT: 8}, {ON_DEMAND: 5, SPOT: 32}) == []


def test_if_only_some_workers_fit_the_launch_goes_on_and_says_how_many() -> None:
    [event] = checked({DEFAULT: 10}, {ON_DEMAND: 5, SPOT: 32})
    assert isinstance(event, QuotaShort)
    assert (event.workers, event.requested) == (8, 10)
    assert SPOT in event.text


def test_if_not_one_worker_fits_nothing_is_launched() -> None:
    with pytest.raises(QuotaExceeded, match="Nothing was launched") as caught:
        checked({DEFAULT: 1}, {ON_DEMAND: 5, SPOT: 3})
    assert (caught.value.quota, caught.value.limit) == (SPOT, 3)


def test_if_the_scheduler_does_not_fit_nothing_is_launched_even_without_workers() -> None:
    with pytest.raises(QuotaExceeded) as caught:
        checked({}, {ON_DEMAND: 0, SPOT: 32})
    assert caught.value.quota == ON_DEMAND


def test_instances_of_others_count_and_those_of_the_claimed_pool_do_not_count_twice() -> None:
    limits = {ON_DEMAND: 5.0, SPOT: 8.0}
    others = Running("c7g.xlarge", Market.SPOT, 4, "starburst-other-0")
    ours = Running("c7g.xlarge", Market.SPOT, 4, POOL)
    assert checked({DEFAULT: 2}, limits, (ours,)) == []
    [event] = checked({DEFAULT: 2}, limits, (others,))
    assert event.workers == 1


def test_workers_of_several_groups_share_a_quota() -> None:
    groups = {"big": {"n_workers": 1, "worker": {"nthreads": 8}}}
    with pytest.raises(QuotaExceeded):
        checked({DEFAULT: 2, "big": 1}, {ON_DEMAND: 5, SPOT: 8}, worker_groups=groups)


def test_unknown_quotas_are_said_and_do_not_prevent_a_launch() -> None:
    plan = blueprint(Settings.load(region="us-east-1", arch="arm64"), "{}")
    events: list[Event] = []
    preflight.check(Quotas("us-east-1", {}, unknown="AWS denies it"), plan.requests(), POOL, events.append)
    assert [type(event) for event in events] == [QuotaUnknown]


class Account:
    """An account whose Service Quotas never answers, or refuses."""

    region = "us-east-1"

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.cancelled = error, 0

    def now(self) -> float:
        return 0.0

    async def call(self, *_: Any, **__: Any) -> Any:
        if self.error is not None:
            raise self.error
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    pages = call


async def started(account: Account, work: Any, patience: float = 0.01) -> tuple[Any, Quotas]:
    plan = blueprint(Settings.load(region="us-east-1", arch="arm64"), "{}")
    return await preflight.run_alongside(work, cast(Any, account), plan.requests(), patience)


async def done() -> str:
    return "done"


def test_a_start_does_not_wait_for_quotas_that_do_not_arrive() -> None:
    result, quotas = asyncio.run(started(account := Account(), done()))
    assert result == "done"
    assert quotas.unknown == "Service Quotas did not answer within 0.01 s."
    assert account.cancelled


def test_a_refused_call_leaves_the_quotas_unknown_with_its_reason() -> None:
    _, quotas = asyncio.run(started(Account(AWSError("AWS denies servicequotas:GetServiceQuota")), done()))
    assert quotas.unknown == "AWS denies servicequotas:GetServiceQuota"


def test_a_start_that_fails_does_not_leave_the_query_running() -> None:
    async def fails() -> None:
        raise AWSError("no default VPC")

    async def story() -> set[Any]:
        with pytest.raises(AWSError, match="no default VPC"):
            await started(Account(), fails())
        await asyncio.sleep(0)
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert asyncio.run(story()) == set()
