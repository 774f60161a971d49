"""Current prices from AWS."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import boto3
import pytest

from dask_starburst.aws import pricing
from dask_starburst.aws.session import AWS
from dask_starburst.catalog import catalogue, price_table
from dask_starburst.local import LocalAWS


@pytest.fixture
def account(aws: LocalAWS) -> Iterator[AWS]:
    opened = AWS(endpoint_url=aws.endpoint_url, session=aws.session())
    yield opened
    opened.close()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_a_few_types_take_a_call_each_and_unavailable_types_are_omitted(account: AWS) -> None:
    types = ["c7g.xlarge", "g5.xlarge", "c99g.large"]
    assert run(pricing.on_demand(account, "us-east-1", types)) == {"c7g.xlarge": 0.145, "g5.xlarge": 1.006}
    assert account.calls["pricing:GetProducts"] == 3


def test_the_prices_of_a_whole_region_match_the_catalogue(account: AWS) -> None:
    found = run(pricing.on_demand(account, "eu-central-1", []))
    table = price_table("eu-central-1")
    assert set(found) == {name for name in catalogue() if table.has(name)}
    assert found == pytest.approx({name: table.on_demand(name).usd_per_hour for name in found})


def test_many_types_are_read_from_the_whole_region_and_filtered(account: AWS) -> None:
    types = [name for name in catalogue() if name.startswith(("c7g.", "m7g."))]
    assert sorted(run(pricing.on_demand(account, "us-west-2", types))) == sorted(types)
    assert account.calls["pricing:GetProducts"] < 20


def test_spot_prices_are_by_zone_with_the_time_of_the_last_change(account: AWS) -> None:
    now = time.time()
    found = run(pricing.spot(account, ["c7g.xlarge", "m6g.large"], ["us-east-1a", "us-east-1b"], now))
    assert set(found) == {(name, zone) for name in ("c7g.xlarge", "m6g.large") for zone in ("us-east-1a", "us-east-1b")}
    usd, since = found["c7g.xlarge", "us-east-1a"]
    assert usd == pytest.approx(0.145 * 0.39)
    assert now - 2 * 86400 < since <= time.time()


def test_without_zones_spot_prices_cover_the_region(account: AWS) -> None:
    found = run(pricing.spot(account, ["c7g.xlarge"], [], time.time()))
    assert {zone for _, zone in found} >= {"us-east-1a", "us-east-1f"}


def test_a_clock_that_is_a_little_ahead_hides_no_price(account: AWS) -> None:
    assert run(pricing.spot(account, ["c7g.xlarge"], ["us-east-1a"], time.time() + 5))


def test_the_embedded_aws_is_not_reported_as_real(aws: LocalAWS, account: AWS, monkeypatch) -> None:
    assert not run(account.is_real("pricing"))
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "eu-west-1"}
    real = AWS(session=boto3.Session(**keys))
    assert run(real.is_real("pricing"))
    real.close()
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws.endpoint_url)
    hidden = AWS(session=boto3.Session(**keys))
    assert not run(hidden.is_real("pricing"))
    hidden.close()
