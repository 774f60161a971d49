"""What a teardown removes, keeps, and in which order."""

from __future__ import annotations

from typing import get_args

import pytest

from dask_starburst.plan.requests.claims import Claim
from dask_starburst.plan.requests.garbage import PoolFound
from dask_starburst.plan.requests.teardown import STEPS, Kind, Resource, choose, pool_of, stages, total_cost

POOL = "starburst-0123abcd-0"
MINE = tuple(Resource(kind, f"{POOL}-{kind}", kind, POOL) for kind in get_args(Kind))
ROLE = Resource("role", "starburst-worker", "starburst-worker", "starburst")
LOGS = Resource("log group", "/starburst", "/starburst", "starburst", usd_per_month=0.3)
USED = PoolFound(POOL, (), Claim("s", "ann", "arn", 100.0), now=101.0)


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        (POOL, POOL),
        (f"{POOL}-default-spot", POOL),
        ("starburst-0123abcd-12-worker-big", "starburst-0123abcd-12"),
        ("starburst-trino", None),
        ("starburst-0123abcd", None),
        ("my-starburst-0123abcd-0", None),
    ],
)
def test_a_pool_is_known_by_the_form_of_its_names(name, pool):
    assert pool_of(name) == pool


def test_every_kind_is_removed_in_some_step_unless_it_ends_by_itself():
    assert {kind for verb, kind in STEPS if verb == "remove"} | {"task"} == set(get_args(Kind))


def test_what_others_need_is_removed_after_them():
    order: list[tuple[str, str]] = [(verb, each.kind) for verb, part in stages(MINE) for each in part]
    for first, second in (
        ("capacity provider", "Auto Scaling group"),
        ("Auto Scaling group", "launch template"),
        ("Auto Scaling group", "ECS cluster"),
        ("instance", "security group"),
        ("instance profile", "role"),
    ):
        assert order.index(("remove", first)) < order.index(("remove", second))
    of_pool = [kind for _, kind in order if kind not in ("image repository", "log group", "instance profile", "role")]
    assert of_pool[-1] == "claim"


def test_only_groups_with_capacity_are_emptied():
    full = Resource("Auto Scaling group", "g", "g", POOL, is_empty=False)
    empty = Resource("Auto Scaling group", "h", "h", POOL)
    assert stages([full, empty]) == (("empty", (full,)), ("remove", (full, empty)))


def test_a_pool_in_use_keeps_what_all_pools_share():
    other = Resource("claim", "c", "c", "starburst-0123abcd-1")
    gone, kept = choose([*MINE, ROLE, LOGS, other], [USED], roles=True)
    assert gone == (other,)
    assert {each.why for each in kept if each.resource in MINE} == {"in use by ann; --force removes it"}
    assert {each.why for each in kept if each.resource in (ROLE, LOGS)} == {f"{POOL} needs it"}
    assert choose([*MINE, ROLE, LOGS], [USED], force=True, roles=True) == ((*MINE, ROLE, LOGS), ())


def test_roles_are_kept_unless_asked_for():
    gone, [kept] = choose([ROLE, LOGS], [])
    assert gone == (LOGS,)
    assert "--roles" in kept.why
    assert choose([ROLE, LOGS], [], roles=True) == ((ROLE, LOGS), ())


def test_a_cost_is_an_hour_or_a_month_or_free_or_unknown():
    assert ROLE.cost == "free"
    assert LOGS.cost == "$0.3000 a month"
    unknown = Resource("instance", "i", "i", POOL, usd_per_hour=None)
    assert unknown.cost == "unknown an hour"
    assert total_cost([ROLE, LOGS, unknown]) == "$0.0000 an hour and $0.30 a month, and 1 of unknown cost"
