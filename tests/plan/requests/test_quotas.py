"""Whether a cluster fits in the account's quotas, and the messages if it does not."""

from __future__ import annotations

import math

import pytest

from dask_starburst.catalog.instance_types import find
from dask_starburst.catalog.markets import Market
from dask_starburst.plan.groups import DEFAULT, MARKETS
from dask_starburst.plan.requests.quotas import (
    CapacityRequest,
    Increase,
    Running,
    Verdict,
    evaluate,
    next_increase,
    scheduler_shortfall,
    usage,
    workers_shortfall,
)
from dask_starburst.plan.requests.sizing import worker_group

ON_DEMAND, SPOT = "L-1216C47A", "L-34B43A08"
XLARGE, DOUBLE, HEAD = find("c7g.xlarge"), find("c7g.2xlarge"), find("m7g.medium")
NEW_ACCOUNT = {ON_DEMAND: 5.0, SPOT: 5.0}


def request(count: int, policy: str = "spot", *types: str) -> CapacityRequest:
    kinds = tuple(map(find, types)) or (XLARGE,)
    return CapacityRequest(HEAD, worker_group(DEFAULT, kinds, MARKETS[policy], None, None), count)


def verdict(
    count: int, policy: str = "spot", limits: dict[str, float] | None = None, running: tuple[Running, ...] = ()
) -> Verdict:
    return evaluate(request(count, policy), NEW_ACCOUNT if limits is None else limits, running)


@pytest.mark.parametrize(
    ("policy", "room"),
    [
        (Market.SPOT, 1),
        (Market.ON_DEMAND, 1),  # five, of which the scheduler takes one
        ("spot_with_fallback", 2),
    ],
)
def test_a_new_account_has_room_for_a_worker_in_each_market(policy: str, room: int) -> None:
    found = verdict(3, policy)
    assert found.room == room
    assert found.fits(room)
    assert not found.fits(room + 1)


def test_the_scheduler_takes_its_part_of_the_workers_quota() -> None:
    assert verdict(1, "on-demand", {ON_DEMAND: 4.0}).room == 0
    assert verdict(1, "on-demand", {ON_DEMAND: 5.0}).room == 1


def test_all_running_instances_of_the_account_count() -> None:
    others = (
        Running("m5.large", Market.SPOT, 2),
        Running("g5.xlarge", Market.SPOT, 4),
        Running("c7g.xlarge", Market.ON_DEMAND, 4),
    )
    assert verdict(1, "spot", {ON_DEMAND: 8.0, SPOT: 6.0}, others).room == 1
    assert verdict(1, "spot", {ON_DEMAND: 8.0, SPOT: 5.0}, others).room == 0
    assert not verdict(1, "spot", {ON_DEMAND: 4.0, SPOT: 6.0}, others).head_fits


def test_a_warm_instance_of_the_own_pool_does_not_count_twice() -> None:
    warm = (Running("m7g.medium", Market.ON_DEMAND, 1, "own"), Running("c7g.xlarge", Market.SPOT, 4, "own"))
    limits = {ON_DEMAND: 1.0, SPOT: 4.0}
    assert evaluate(request(1), limits, warm, "own").fits(1)
    assert not evaluate(request(1), limits, warm, "another").fits(1)


def test_an_unknown_quota_does_not_limit() -> None:
    assert verdict(500, limits={}).room == math.inf
    assert verdict(500, limits={}).fits(500)
    assert verdict(500, "spot_with_fallback", {SPOT: 5.0}).room == math.inf


def test_with_several_types_the_smallest_counts() -> None:
    assert evaluate(request(9, "spot", "c7g.2xlarge", "c7g.xlarge"), {SPOT: 9.0}, ()).room == 2


def test_the_quotas_of_a_request_are_listed_once() -> None:
    assert [quota.code for quota in request(1, "on-demand").quotas] == [ON_DEMAND]
    assert [quota.code for quota in request(1, "spot_with_fallback").quotas] == [ON_DEMAND, SPOT]


def test_usage_is_counted_by_quota() -> None:
    running = (
        Running("c7g.xlarge", Market.SPOT, 4),
        Running("r5.large", Market.SPOT, 2),
        Running("hpc7g.4xlarge", Market.ON_DEMAND, 16),
    )
    assert usage(running) == {SPOT: 6}


def test_the_message_for_a_scheduler_that_does_not_fit_has_numbers_and_a_command() -> None:
    text = scheduler_shortfall(
        verdict(2, "spot", {ON_DEMAND: 5.0, SPOT: 5.0}, (Running("t3.medium", Market.ON_DEMAND, 5),)), "eu-west-1"
    )
    for part in ("m7g.medium (1 vCPU, on demand)", "eu-west-1", ON_DEMAND, "5 vCPUs, 5 in use, 0 free"):
        assert part in text
    assert "`starburst quota request 8 --on-demand`" in text


def test_the_message_for_workers_that_do_not_fit_has_numbers_and_a_command() -> None:
    text = workers_shortfall(verdict(10), "eu-west-1")
    assert text.startswith("only 1 of 10 workers fit")
    assert "5 vCPUs, 0 in use, 5 free, and a c7g.xlarge takes 4" in text
    assert "`starburst quota request 64 --spot`" in text
    both = workers_shortfall(verdict(10, "spot_with_fallback"), "eu-west-1")
    assert SPOT in both
    assert ON_DEMAND in both
    assert "(the scheduler's included)" in both


def test_the_message_says_when_no_worker_fits() -> None:
    assert workers_shortfall(verdict(1, limits={SPOT: 3.0}), "x").startswith("none of 1 worker fits")
    assert workers_shortfall(verdict(0, limits={SPOT: 3.0}), "x").startswith("not a single worker fits")


@pytest.mark.parametrize(
    ("total", "limit", "increase"), [(5, 0, 8), (41, 5, 64), (64, 5, 64), (10, 64, 128), (0, 0, 8)]
)
def test_the_next_increase_is_enough_and_more_than_the_limit(total: float, limit: float, increase: int) -> None:
    assert next_increase(total, limit) == increase


@pytest.mark.parametrize(
    ("status", "waits"),
    [("PENDING", True), ("CASE_OPENED", True), ("APPROVED", False), ("DENIED", False), ("CASE_CLOSED", False)],
)
def test_a_request_is_open_until_aws_has_decided(status: str, waits: bool) -> None:
    assert Increase("1", SPOT, 64.0, status, 0.0).open is waits
