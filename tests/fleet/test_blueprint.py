"""The parts of a cluster that follow from its settings, before anything is launched."""

from __future__ import annotations

from typing import Any

import pytest

from dask_starburst.catalog.markets import Market
from dask_starburst.errors import BadArgument, BudgetExceeded
from dask_starburst.fleet.blueprint import Blueprint, available_types, blueprint, caps_of, within_caps
from dask_starburst.fleet.pool.account import Account
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.money.budget import Rates
from dask_starburst.plan.requests.placement import Zone
from dask_starburst.settings import Settings


def planned(**settings: Any) -> Blueprint:
    return blueprint(Settings.load(**({"region": "us-east-1", "arch": "arm64"} | settings)), "secret")


def account(plan: Blueprint, without: tuple[str, ...] = ()) -> Account:
    """Return an account whose zone offers all types of a blueprint but these."""
    offered = frozenset(plan.types) - {*without}
    zone = Zone("subnet-1", "vpc-1", "us-east-1a", offered, 4091)
    images = {"arm64": "ami-arm", "x86_64": "ami-x86"}
    return Account("123456789012", "arn", "us-east-1", zone, images, "sg-1", "profile", "exec", "scheduler", "worker")


def test_a_type_that_the_zone_does_not_offer_is_left_out() -> None:
    plan = planned()
    first, *others = plan.default.type_names
    assert available_types(plan, account(plan, (first,))).default.type_names == tuple(others)


def test_a_type_that_the_user_named_is_never_left_out_silently() -> None:
    plan = planned(instance_types=["c7g.xlarge", "m7g.xlarge"])
    with pytest.raises(BadArgument, match=r"does not offer m7g.xlarge in us-east-1a; give other types, or a subnet"):
        available_types(plan, account(plan, ("m7g.xlarge",)))


def test_a_zone_without_the_scheduler_s_type_or_any_type_of_a_group_is_refused() -> None:
    plan = planned()
    for missing in (plan.head.type_names, plan.default.type_names):
        with pytest.raises(BadArgument, match="does not offer"):
            available_types(plan, account(plan, missing))


def test_without_the_types_with_least_memory_each_worker_gets_more() -> None:
    plan = planned()
    small = tuple(name for name in plan.default.type_names if name.startswith("c"))
    left = available_types(plan, account(plan, small)).default
    assert left.type_names
    assert left.size.memory_limit > plan.default.size.memory_limit


def test_each_group_has_its_own_architecture_and_offers_its_resource() -> None:
    plan = planned(worker_groups={"intel": {"arch": "x86_64", "n_workers": 2}})
    spec = plan.spec(account(plan))
    images = {part.placement.group: part.image_id for part in spec.parts}
    assert images == {"head": "ami-arm", DEFAULT: "ami-arm", "intel": "ami-x86"}
    assert plan.offers.keys() == {"group-default", "group-intel"}
    assert plan.first_counts() == {DEFAULT: 0, "intel": 2}


def test_a_cluster_with_one_kind_of_workers_needs_no_resources() -> None:
    assert planned().offers == {}


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"n_workers": 5}, True),
        ({"keep": {"warm_timeout": 600}}, True),
        ({"tags": {"team": "a"}}, False),
        ({"storage": {"volume_size": 50}}, False),
        ({"instance_types": ["m7g.xlarge"]}, False),
        ({"timeouts": {"connect": 900}}, False),
    ],
    ids=str,
)
def test_a_pool_is_shared_by_clusters_whose_instances_would_be_alike(changes: dict[str, Any], same: bool) -> None:
    usual, other = planned(), planned(**changes)
    assert (usual.spec(account(usual)).digest == other.spec(account(other)).digest) is same


def rates(plan: Blueprint, usd: float, **others: float) -> Rates:
    """Return rates at which every type costs `usd`, except `others`."""
    prices = dict.fromkeys(plan.types, usd) | others
    return Rates({(kind, market): price for kind, price in prices.items() for market in Market})


def test_under_a_cap_only_types_near_the_first_one_in_price_are_launched() -> None:
    plan = planned(money={"max_hourly_cost": 10}, n_workers=1)
    dear = plan.default.type_names[-1]
    prices = rates(plan, 0.1, **{dear: 0.2})
    assert dear not in within_caps(plan, caps_of(plan.settings), prices).default.type_names
    free = planned(n_workers=1)
    assert dear in within_caps(free, caps_of(free.settings), prices).default.type_names


def test_types_that_the_user_named_stay_under_a_cap() -> None:
    plan = planned(instance_types=["c7g.xlarge", "r7g.xlarge"], money={"max_hourly_cost": 10}, n_workers=1)
    prices = rates(plan, 0.1, **{"r7g.xlarge": 0.2})
    assert within_caps(plan, caps_of(plan.settings), prices).default.type_names == ("c7g.xlarge", "r7g.xlarge")


def test_a_launch_above_the_hourly_cap_is_refused() -> None:
    plan = planned(money={"max_hourly_cost": 0.3}, n_workers=3)
    with pytest.raises(BudgetExceeded, match="max_hourly_cost"):
        within_caps(plan, caps_of(plan.settings), rates(plan, 0.1))


def test_the_certificates_are_not_in_the_repr() -> None:
    assert "PRIVATE" not in repr(blueprint(planned().settings, "BEGIN PRIVATE KEY"))
