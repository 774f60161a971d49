"""The quota that an instance type counts against."""

from __future__ import annotations

import pytest

from dask_starburst.catalog import catalogue
from dask_starburst.catalog.markets import Market
from dask_starburst.catalog.quotas import QUOTAS, fargate_quota, quota_of
from dask_starburst.plan.requests.sizing import worker_types


@pytest.mark.parametrize(
    ("kind", "market", "code"),
    [
        ("c7g.xlarge", Market.ON_DEMAND, "L-1216C47A"),
        ("c7g.xlarge", Market.SPOT, "L-34B43A08"),
        ("im4gn.large", Market.SPOT, "L-34B43A08"),
        ("t3.micro", Market.ON_DEMAND, "L-1216C47A"),
        ("z1d.large", Market.SPOT, "L-34B43A08"),
        ("g5g.xlarge", Market.SPOT, "L-3819A6DF"),
        ("vt1.3xlarge", Market.ON_DEMAND, "L-DB2E81BA"),
        ("p4d.24xlarge", Market.ON_DEMAND, "L-417A185B"),
        ("p4d.24xlarge", Market.SPOT, "L-7212CCBC"),
        ("p5.48xlarge", Market.SPOT, "L-C4BD4855"),
    ],
)
def test_a_type_counts_against_the_quota_of_its_family(kind: str, market: Market, code: str) -> None:
    found = quota_of(kind, market)
    assert found is not None
    assert found.code == code


@pytest.mark.parametrize(
    "kind", ["hpc7g.4xlarge", "trn1.2xlarge", "inf2.xlarge", "mac2.metal", "u-6tb1.metal", "dl1.24xlarge"]
)
def test_an_unlisted_family_has_no_quota(kind: str) -> None:
    assert quota_of(kind, Market.ON_DEMAND) is None


@pytest.mark.parametrize("market", [Market.ON_DEMAND, Market.SPOT])
@pytest.mark.parametrize("arch", ["arm64", "x86_64"])
def test_every_type_that_a_cluster_chooses_by_itself_has_a_quota(market: Market, arch: str) -> None:
    chosen = {kind for n in (1, 2, 4, 8, 16, 32, 64) for kind in worker_types(catalogue(), arch, None, n, None)}
    assert len(chosen) > 40
    assert [kind.name for kind in chosen if quota_of(kind.name, market) is None] == []


def test_the_quotas_of_fargate_stand_under_a_service_of_their_own() -> None:
    assert [fargate_quota(market).code for market in (Market.ON_DEMAND, Market.SPOT)] == ["L-3032A538", "L-36FBB829"]
    assert {quota.service for quota in QUOTAS.values()} == {"ec2", "fargate"}
