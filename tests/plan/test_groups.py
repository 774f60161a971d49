"""Worker groups, and the names of their placements."""

from __future__ import annotations

import pytest

from dask_starburst.catalog import find
from dask_starburst.catalog.markets import Market
from dask_starburst.plan.groups import DEFAULT, HEAD_PLACEMENT, Placement
from dask_starburst.plan.requests.pool import PoolNames
from dask_starburst.plan.requests.sizing import head_group, worker_group
from dask_starburst.settings.checks import GROUP_NAME


@pytest.mark.parametrize(
    ("placement", "text"),
    [
        (HEAD_PLACEMENT, "head"),
        (Placement(DEFAULT, Market.SPOT), "spot"),
        (Placement(DEFAULT, Market.ON_DEMAND), "on-demand"),
        (Placement("big", Market.SPOT), "big-spot"),
        (Placement("big", Market.ON_DEMAND), "big-on-demand"),
    ],
)
def test_a_placement_names_its_resources(placement: Placement, text: str):
    assert str(placement) == text
    assert PoolNames("starburst-0-0").group(placement) == f"starburst-0-0-{text}"


def test_no_two_placements_have_the_same_name():
    names = ["a", "on", "spot", "on-demand", "big", "big-spot"]
    placements = [Placement(name, market) for name in (DEFAULT, *names) for market in Market] + [HEAD_PLACEMENT]
    assert all(GROUP_NAME.fullmatch(name) for name in names)
    assert len(set(map(str, placements))) == len(placements)


def test_the_size_of_a_worker_depends_on_its_group_and_not_only_on_the_type_of_its_instance():
    types, markets = (find("m7g.xlarge"), find("c7g.xlarge")), (Market.SPOT,)
    small, whole = worker_group("small", types, markets, 1, 2**30), worker_group("whole", types, markets, None, None)
    assert small.size_on("m7g.xlarge").memory_limit == 2**30
    assert whole.size_on("m7g.xlarge").memory_limit > whole.size_on("c7g.xlarge").memory_limit > 6 * 2**30
    assert whole.size_on("x99.unknown") == whole.size, "an unknown type gets what fits on all"


def test_the_scheduler_is_a_group_of_one_type_on_demand():
    head = head_group(find("m7g.medium"))
    assert head.placements == (HEAD_PLACEMENT,)
    assert head.size.task_cpu == 1024
