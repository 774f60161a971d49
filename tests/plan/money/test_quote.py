"""Quotes: the total is the sum of the lines, and the notes are complete."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dask_starburst.catalog import Price, catalogue, fargate_rates
from dask_starburst.catalog.markets import Market
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.money.budget import Caps
from dask_starburst.plan.money.quote import GroupSpec, LaunchSpec, compute_quote, on_fargate

WORKERS = GroupSpec(DEFAULT, ("c7g.xlarge", "m7g.xlarge"), (Market.SPOT,), 10)
SPEC = LaunchSpec("m7g.medium", (WORKERS,))
PRICES = {
    ("m7g.medium", Market.ON_DEMAND): Price(0.04, "AWS price list", "2026-07-20", "live"),
    ("c7g.xlarge", Market.SPOT): Price(0.05, "AWS Spot price history", "2026-11-26", "live"),
    ("m7g.xlarge", Market.SPOT): Price(0.07, "AWS Spot price history", "2026-11-26", "live"),
    ("c7g.xlarge", Market.ON_DEMAND): Price(0.15, "AWS price list", "2026-07-20"),
    ("m7g.xlarge", Market.ON_DEMAND): Price(0.16, "AWS price list", "2026-07-20"),
}
VOLUME = 30 * 0.08 / 730


def changed(**more: Any) -> LaunchSpec:
    return replace(SPEC, groups=(replace(WORKERS, **more),))


def test_every_instance_has_an_address_and_a_volume():
    quote = compute_quote("us-east-1", SPEC, PRICES)
    assert quote.usd_per_hour == pytest.approx(0.04 + 10 * 0.05 + 11 * 0.005 + 11 * VOLUME)
    assert [line.count for line in quote.lines] == [1, 10, 11, 11]


def test_at_most_is_the_most_expensive_type_in_any_allowed_market():
    assert compute_quote("us-east-1", SPEC, PRICES).at_most == pytest.approx(0.04 + 10 * 0.07 + 11 * (0.005 + VOLUME))
    fallback = changed(markets=(Market.SPOT, Market.ON_DEMAND))
    assert compute_quote("us-east-1", fallback, PRICES).at_most == pytest.approx(
        0.04 + 10 * 0.16 + 11 * (0.005 + VOLUME)
    )


def test_spares_have_a_separate_line():
    lines = {line.what: line for line in compute_quote("us-east-1", changed(spares=2), PRICES).lines}
    assert lines["spare instances"].usd == pytest.approx(2 * 0.05)


def test_a_quote_is_readable_as_text():
    text = repr(
        compute_quote("us-east-1", changed(adaptive=True), PRICES, caps=Caps(hourly=2), refusal="too expensive.")
    )
    assert "10 x c7g.xlarge or m7g.xlarge, Spot" in text
    assert "max_hourly_cost: $2 an hour" in text
    assert "REFUSED: too expensive." in text
    assert "The cluster is adaptive: without load it costs $0.0483 an hour" in text
    assert "Nothing was launched." in text
    assert "Prices: AWS price list of 2026-07-20, live." in text


def test_costs_after_closing_are_listed():
    text = repr(compute_quote("us-east-1", SPEC, PRICES, idle=(("the image in ECR", 0.03),)))
    assert "these continue to cost money, a month: the image in ECR $0.03" in text


def test_a_quote_compares_with_the_fargate_price():
    types, rates = catalogue(), fargate_rates("us-east-1", "arm64")
    # 4 vCPUs and 8 GB, ten times, and one of 1 vCPU and 4 GB, at AWS's list prices.
    price = on_fargate([(1, types["m7g.medium"]), (10, types["c7g.xlarge"])], rates)
    assert price.usd_per_hour == pytest.approx(41 * 0.03238 + 84 * 0.00356, rel=1e-3)
    text = repr(compute_quote("us-east-1", SPEC, PRICES, fargate=price))
    assert "on Fargate the same vCPUs and memory cost $1.6266 an hour (AWS Fargate price" in text
    far = on_fargate([(1, types["c7g.xlarge"])], fargate_rates("eu-central-1", "arm64"))
    assert "assumed); clusters run on EC2 only." in repr(compute_quote("eu-central-1", SPEC, PRICES, fargate=far))
    assert "Fargate" not in repr(compute_quote("us-east-1", SPEC, PRICES))
