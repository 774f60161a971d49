"""Prices are those published, and never lower by guess."""

import dataclasses

import pytest

from dask_starburst.catalog import catalogue, find, price_table
from dask_starburst.errors import BadArgument


def test_a_price_is_the_published_one_with_its_date():
    price = price_table().on_demand("c7g.xlarge")
    assert price.usd_per_hour == pytest.approx(0.145)
    assert price.date == "2026-07-20"
    assert "us-east-1" in price.source
    assert not price.assumed


@pytest.mark.parametrize(("size", "share"), [("medium", 0.25), ("large", 0.5), ("4xlarge", 4), ("16xlarge", 16)])
def test_a_family_is_priced_by_the_vcpu(size, share):
    assert price_table().on_demand(f"c7g.{size}").usd_per_hour == pytest.approx(0.145 * share)


def test_a_spot_estimate_is_the_middle_of_the_published_range():
    price = price_table().spot_estimate("c7g.xlarge")
    assert price.usd_per_hour == pytest.approx(0.145 * (1 - 0.61))
    assert price.date == "2025-06"
    assert not price.assumed


def test_without_published_savings_spot_is_taken_to_cost_what_on_demand_does():
    price = price_table().spot_estimate("m6g.xlarge")
    assert price.usd_per_hour == price_table().on_demand("m6g.xlarge").usd_per_hour
    assert price.assumed
    assert "no Spot savings of m6g" in price.source


def test_every_type_of_the_catalogue_has_both_prices():
    table = price_table()
    for kind in catalogue().values():
        assert 0 < table.spot_estimate(kind).usd_per_hour <= table.on_demand(kind).usd_per_hour


def test_a_type_without_a_price_is_an_error_and_not_free():
    stranger = dataclasses.replace(find("c7g.xlarge"), name="c9g.xlarge")
    with pytest.raises(BadArgument, match=r"no bundled price for c9g\.xlarge"):
        price_table().on_demand(stranger)
