"""Fargate prices by vCPU and GB."""

import pytest

from dask_starburst.catalog import fargate_rates, regions
from dask_starburst.errors import PriceUnknown


def test_graviton_costs_a_fifth_less():
    arm, intel = fargate_rates("us-east-1", "arm64"), fargate_rates("us-east-1", "x86_64")
    assert (arm.vcpu.usd_per_hour, arm.gb.usd_per_hour) == (0.03238, 0.00356)
    assert (intel.vcpu.usd_per_hour, intel.gb.usd_per_hour) == (0.04048, 0.004445)
    assert arm.vcpu.kind == "bundled"


def test_other_regions_are_scaled_like_ec2_and_marked_as_assumed():
    for region in set(regions()) - {"us-east-1"}:
        rates = fargate_rates(region, "arm64")
        assert 0.6 < rates.vcpu.usd_per_hour / 0.03238 < 2
        assert rates.vcpu.assumed
        assert region in rates.vcpu.source
    assert fargate_rates("us-west-2", "arm64").gb.usd_per_hour == pytest.approx(0.00356)


def test_spot_is_assumed_to_cost_no_less():
    rates = fargate_rates("us-east-1", "x86_64")
    assert rates.spot.vcpu.usd_per_hour == rates.vcpu.usd_per_hour
    assert rates.spot.gb.assumed


def test_a_region_without_prices_is_refused():
    with pytest.raises(PriceUnknown, match="the Fargate price in xx-north-9"):
        fargate_rates("xx-north-9", "arm64")
