"""Advice on instance types: which fit, which comes first and why, and warnings."""

from __future__ import annotations

import pytest

from dask_starburst.catalog import InstanceType, Price, catalogue
from dask_starburst.catalog.markets import Market
from dask_starburst.plan.money.advice import (
    GIB,
    Candidate,
    Measured,
    Need,
    Sort,
    band,
    band_text,
    fitting,
    rank,
    warnings,
    why,
)


def kind(name: str, vcpus: int = 4, cores: int = 4, gib: int = 8, burstable: bool = False) -> InstanceType:
    return InstanceType(name, "arm64", vcpus, gib * 1024, cores, burstable=burstable)


def candidate(found: InstanceType, usd: float, **more: object) -> Candidate:
    price = Price(usd, "test", "2026-01-01", "assumed")
    return Candidate(found, Price(2 * usd, "test", "2026-01-01"), price, Market.SPOT, **more)  # type: ignore[arg-type]  # by name


GRAVITON = candidate(kind("c7g.xlarge"), 0.06, band=(0, 5), measured=Measured(100.0))
INTEL = candidate(kind("c7i.xlarge", cores=2), 0.05, band=(20, 100), measured=Measured(150.0))
BURSTABLE = candidate(kind("t4g.xlarge", burstable=True), 0.01)


def test_a_type_fits_by_the_memory_that_a_worker_can_use():
    names = {found.name for found in fitting(Need(4, 7 * GIB, "arm64"), catalogue().values())}
    assert "c7g.xlarge" in names  # 8 GiB nominal, about 7.2 for the worker
    assert "c7g.xlarge" not in {found.name for found in fitting(Need(4, 8 * GIB), catalogue().values())}
    assert all(catalogue()[name].arch == "arm64" for name in names)


def test_types_that_are_too_large_or_have_unrequested_gpus_are_not_offered():
    found = fitting(Need(4, 7 * GIB), catalogue().values())
    assert {each.vcpus for each in found} <= {4, 8}
    assert not [each for each in found if each.gpus]
    assert all(each.gpus for each in fitting(Need(4, 7 * GIB, gpus=True), catalogue().values()))


@pytest.mark.parametrize(
    ("sort", "first"),
    [("price", "c7i.xlarge"), ("cores", "c7g.xlarge"), ("interruption", "c7g.xlarge"), ("measured", "c7g.xlarge")],
)
def test_each_sort_order_has_its_own_first_type_and_burstable_types_are_last(sort: Sort, first: str):
    ranked = rank([BURSTABLE, INTEL, GRAVITON], sort)
    assert ranked[0].type.name == first
    assert ranked[-1] is BURSTABLE
    assert first in why(ranked[0], sort)


def test_unknown_values_come_last():
    unknown = candidate(kind("x1.xlarge"), 0.001)
    assert rank([unknown, GRAVITON], "measured")[0] is GRAVITON
    assert rank([unknown, GRAVITON], "interruption")[0] is GRAVITON


def test_warnings_cover_hyperthreads_burstable_types_and_assumed_prices():
    texts = " ".join(warnings([GRAVITON, INTEL, BURSTABLE]))
    assert "A vCPU of c7i is a hyperthread" in texts
    assert "t4g are burstable" in texts
    assert "~ is an assumption" in texts
    assert "Spot Instance Advisor" in texts
    assert "Prices do not include speed" not in texts
    assert "Prices do not include speed" in " ".join(warnings([BURSTABLE]))


def test_an_unpublished_spot_price_has_its_own_mark():
    alike = Price(0.05, "test", "2026-01-01", "assumed")
    unpublished = Candidate(kind("c6a.xlarge"), alike, alike, Market.SPOT)
    assert unpublished.spot_unpublished
    assert not GRAVITON.spot_unpublished
    texts = " ".join(warnings([unpublished]))
    assert "≤ marks an unpublished Spot price" in texts
    assert "~" not in texts


def test_only_published_interruption_rates_are_returned():
    assert band(catalogue()["c7g.4xlarge"]) == (0, 5)
    assert band(catalogue()["c8g.2xlarge"]) == (20, 100)
    assert band(catalogue()["c8g.8xlarge"]) is None
    assert [band_text(each) for each in ((0, 5), (5, 15), (20, 100), None)] == [
        "under 5 %",
        "5 to 15 %",
        "over 20 %",
        "unknown",
    ]
