"""Bundled prices: correct, with their source, never zero and never estimated too low."""

import dataclasses

import pytest

from dask_starburst.catalog import Price, catalogue, find, price_table, regions, sources
from dask_starburst.catalog.instance_types import size_units
from dask_starburst.errors import PriceUnknown


def test_a_price_is_the_published_one_with_its_source_and_date():
    price = price_table().on_demand("c7g.xlarge")
    assert price.usd_per_hour == pytest.approx(0.145)
    assert (price.source, price.date, price.kind) == ("AWS price list", "2026-07-20", "bundled")
    assert not price.assumed


@pytest.mark.parametrize(
    ("name", "usd"),
    [
        ("c7g.medium", 0.0363),
        ("m5.24xlarge", 4.608),
        ("t3.micro", 0.0104),
        ("t2.small", 0.023),
        ("r8g.48xlarge", 11.31072),
        ("i4i.large", 0.172),
        ("x8i.96xlarge", 48.74438),
        ("g5.xlarge", 1.006),
        ("g5.12xlarge", 5.672),
        ("p5.48xlarge", 55.04),
    ],
)
def test_prices_agree_with_the_aws_price_list(name: str, usd: float):
    # To what AWS rounds to: the list says 0.172 for an i4i.large and 10.9824 for one 64 times as large.
    assert price_table("us-east-1").on_demand(name).usd_per_hour == pytest.approx(usd, rel=0.003)


@pytest.mark.parametrize(
    ("region", "name", "usd"),
    [
        ("eu-central-1", "m5.xlarge", 0.23),
        ("eu-west-1", "c5.large", 0.096),
        ("us-west-2", "m5.large", 0.096),
        ("us-east-2", "c7g.xlarge", 0.1445),
        ("ap-northeast-1", "m5.large", 0.124),
        ("sa-east-1", "c5.xlarge", 0.262),
        ("eu-west-3", "c6i.xlarge", 0.202),
        ("eu-central-1", "g4dn.xlarge", 0.658),
    ],
)
def test_a_region_has_prices_of_its_own(region: str, name: str, usd: float):
    price = price_table(region).on_demand(name)
    assert price.usd_per_hour == pytest.approx(usd, rel=0.003)
    assert price.date == "2025-03-02"


def test_an_assumed_spot_price_is_the_middle_of_the_published_range():
    price = price_table().spot_estimate("c7g.xlarge")
    assert price.usd_per_hour == pytest.approx(0.145 * (1 - 0.61))
    assert price.date == "2025-06"
    assert price.assumed
    assert "less 61 %" in price.source


def test_without_published_savings_the_spot_price_is_the_on_demand_price():
    price = price_table().spot_estimate("m6g.xlarge")
    assert price.usd_per_hour == price_table().on_demand("m6g.xlarge").usd_per_hour
    assert price.assumed
    assert "no Spot savings of m6g" in price.source


def test_thirty_regions_have_prices_and_us_east_1_of_five_hundred_types():
    priced = {region: sum(price_table(region).has(name) for name in catalogue()) for region in regions()}
    assert len(priced) >= 30
    assert priced["us-east-1"] >= 500
    assert min(priced.values()) >= 100


def test_no_price_is_zero_and_every_type_has_one_or_is_refused():
    for region in regions():
        table = price_table(region)
        for kind in catalogue().values():
            if table.has(kind):
                assert 0 < table.spot_estimate(kind).usd_per_hour <= table.on_demand(kind).usd_per_hour
            else:
                with pytest.raises(PriceUnknown):
                    table.on_demand(kind)


def test_a_family_costs_by_its_size():
    for region in regions():
        table = price_table(region)
        for kind in catalogue().values():
            if kind.units == size_units(kind.name) and table.has(kind):
                usd = table.on_demand(kind).usd_per_hour
                assert usd == pytest.approx(table.rates[kind.family].usd * size_units(kind.name))


def test_a_size_that_is_newer_than_the_catalogue_is_derived_from_its_family():
    price = price_table().on_demand("c7g.24xlarge")
    assert price.usd_per_hour == pytest.approx(24 * 0.145)
    assert price.kind == "derived"


@pytest.mark.parametrize("name", ["c7g.huge", "g5.32xlarge", "c99g.xlarge", "nonsense", "p5e.48xlarge"])
def test_an_unknown_price_is_an_error_and_not_zero(name: str):
    assert not price_table().has(name)
    with pytest.raises(PriceUnknown, match=r"the price of .* is unknown"):
        price_table().on_demand(name)


def test_a_type_of_a_family_without_a_price_is_an_error():
    stranger = dataclasses.replace(find("c7g.xlarge"), name="c99g.xlarge")
    with pytest.raises(PriceUnknown, match=r"the price of c99g\.xlarge in us-east-1 is unknown"):
        price_table().spot_estimate(stranger)


def test_a_region_that_the_list_does_not_have_names_those_that_it_has():
    with pytest.raises(PriceUnknown, match=r"no prices of that region, only of af-south-1, .*pricing:GetProducts"):
        price_table("xx-north-9").on_demand("c7g.xlarge")


def test_a_total_tells_its_worst_source():
    live = Price(1.0, "AWS price list", "2026-09-01", "live")
    old = Price(1.0, "AWS price list", "2025-03-02", why="live price denied: pricing:GetProducts")
    new = Price(1.0, "AWS price list", "2026-07-20")
    assert sources([]) == ""
    assert sources([live]) == "AWS price list of 2026-09-01, live"
    words = "AWS price list of 2025-03-02, bundled; live price denied: pricing:GetProducts"
    assert sources([live, old, new]) == sources([new, old, live]) == words
    assumed = price_table().spot_estimate("c7g.xlarge")
    assert sources([live, assumed, old]).startswith("on demand less 61 %, ")
    assert sources([live, assumed, old]).endswith("of 2025-06, assumed")
