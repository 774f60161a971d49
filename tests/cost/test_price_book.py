"""A price comes from the best available source, and an unknown price is an error."""

from __future__ import annotations

import asyncio
import gc
import http.client
import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse

from dask_starburst.aws.session import AWS
from dask_starburst.catalog import sources
from dask_starburst.catalog.markets import Market
from dask_starburst.cost import PriceBook
from dask_starburst.cost.ledger import Ledger
from dask_starburst.cost.price_cache import Known, PriceCache
from dask_starburst.errors import PriceUnknown
from dask_starburst.local import LocalAWS, faults

NOW = 1_795_651_200.0 + 3600.0  # 2026-11-26 01:00 UTC
DAY = 86400.0
ZONES = ("us-east-1a", "us-east-1b")


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def book(tmp_path: Path, clock: Clock) -> PriceBook:
    return PriceBook("us-east-1", cache=tmp_path, now=clock)


@pytest.fixture
def account(aws: LocalAWS) -> Iterator[AWS]:
    opened = AWS(endpoint_url=aws.endpoint_url, session=aws.session())
    yield opened
    opened.close()


#: What a signature consists of.
SIGNED = {"authorization", "x-amz-date", "x-amz-security-token"}


@pytest.fixture
def far(aws: LocalAWS) -> Iterator[AWS]:
    """An AWS at Amazon's own address, as far as anybody can see: what goes over the wire ends at the embedded one."""
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1")
    here = urlsplit(aws.endpoint_url)

    def carry(request: Any, **_: Any) -> AWSResponse:
        wire = http.client.HTTPConnection(here.hostname or "", here.port)
        path = urlsplit(request.url).path or "/"
        # What is signed for Amazon's address is signed anew for the one where it arrives.
        kept = {key: _text(value) for key, value in request.headers.items() if key.lower() not in SIGNED}
        there = AWSRequest(request.method, aws.endpoint_url + path, kept, request.body)
        region, service = _text(request.headers["Authorization"]).split("/")[2:4]
        SigV4Auth(aws.session().get_credentials(), service, region).add_auth(there)
        wire.request(request.method, path, request.body, {key: _text(value) for key, value in there.headers.items()})
        answer = wire.getresponse()
        body = answer.read()
        raw = io.BytesIO(body)
        raw.stream = lambda *_, **__: iter([body])  # type: ignore[attr-defined]  # as botocore reads it
        wire.close()
        return AWSResponse(request.url, answer.status, dict(answer.getheaders()), raw)

    session.events.register("before-send", carry)
    opened = AWS(session=session)
    yield opened
    opened.close()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def refresh(book: PriceBook, aws: AWS, *types: str, zones: tuple[str, ...] = ZONES) -> None:
    asyncio.run(book.refresh(aws, types, zones))


def test_before_anything_is_asked_the_bundled_list_counts(book: PriceBook) -> None:
    price = book.on_demand("c7g.xlarge")
    assert (price.usd_per_hour, price.kind, price.date) == (0.145, "bundled", "2026-07-20")
    assert book.spot("c7g.xlarge", "us-east-1a").kind == "assumed"
    assert book.on_demand("c7g.24xlarge").kind == "derived"


def test_prices_from_aws_are_live_and_those_of_the_embedded_aws_simulated(book: PriceBook, account: AWS) -> None:
    refresh(book, account, "c7g.xlarge")
    price = book.on_demand("c7g.xlarge")
    assert (price.usd_per_hour, price.kind, price.date) == (0.145, "live", "2026-11-26")
    assert price.source == "simulated AWS price list"
    spot = book.spot("c7g.xlarge", "us-east-1b")
    assert (spot.kind, spot.source) == ("live", "simulated AWS Spot price history")
    assert spot.usd_per_hour == pytest.approx(0.145 * 0.39)
    ledger = Ledger(book)
    ledger.instance_started("i-1", "c7g.xlarge", Market.ON_DEMAND, at=0)
    assert ledger.total(now=3600).simulated, "also without cloud=local"


def test_without_a_zone_the_spot_price_is_that_of_the_most_expensive_one(tmp_path: Path, clock: Clock) -> None:
    cheap, dear = Known(0.05, NOW, NOW), Known(0.07, NOW, NOW)
    PriceCache(tmp_path / "us-east-1.json").write({"c7g.xlarge us-east-1a": cheap, "c7g.xlarge us-east-1b": dear})
    book = PriceBook("us-east-1", cache=tmp_path, now=clock)
    assert book.spot("c7g.xlarge", "us-east-1a").usd_per_hour == 0.05
    for zone in ("", "us-east-1f"):
        price = book.spot("c7g.xlarge", zone)
        assert (price.usd_per_hour, price.source) == (0.07, "AWS Spot price history (us-east-1b)")


def test_only_stale_prices_are_requested_again(book: PriceBook, account: AWS, clock: Clock) -> None:
    def calls() -> tuple[int, int]:
        return account.calls["pricing:GetProducts"], account.calls["ec2:DescribeSpotPriceHistory"]

    refresh(book, account, "c7g.xlarge")
    refresh(book, account, "c7g.xlarge")
    assert calls() == (1, 1)
    refresh(book, account, "c7g.xlarge", "c6g.xlarge")
    assert calls() == (2, 2)
    clock.now += 301
    assert book.spot("c7g.xlarge", ZONES[0]).kind == "cached"
    refresh(book, account, "c7g.xlarge", "c6g.xlarge")
    assert calls() == (2, 3)
    assert book.spot("c7g.xlarge", ZONES[0]).kind == "live"
    clock.now += DAY
    assert book.on_demand("c7g.xlarge").kind == "cached"
    refresh(book, account, "c7g.xlarge")
    assert calls() == (3, 4)


def test_a_refresh_that_is_cancelled_before_it_asks_leaves_nothing_unawaited(book: PriceBook) -> None:
    class RealAWS:
        async def is_real(self, service: str) -> bool:
            return True

    async def work() -> None:
        # `refresh` runs until it waits for both questions; the cancellation arrives before they start.
        refreshing = book.refresh(cast(AWS, RealAWS()), ["c7g.xlarge"], ZONES)
        task = asyncio.ensure_future(refreshing)
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    # Not as errors: the collector also ends what other tests have left.
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        asyncio.run(work())
        gc.collect()
    assert not [each.message for each in seen if "never awaited" in str(each.message)]


def test_unavailable_types_are_not_requested_at_every_refresh(book: PriceBook, account: AWS) -> None:
    for _ in range(3):
        refresh(book, account, "c99g.xlarge")
    assert account.calls["pricing:GetProducts"] == 1
    with pytest.raises(PriceUnknown, match=r"the price of c99g\.xlarge in us-east-1"):
        book.on_demand("c99g.xlarge")


def test_a_refusal_is_recorded_and_shown_with_the_price(book: PriceBook, aws: LocalAWS, account: AWS) -> None:
    denied = "User: arn:aws:iam::123456789012:user/a is not authorized to perform: pricing:GetProducts"
    code = "AccessDeniedException"
    aws.play([faults.Error(action="pricing:GetProducts", count=2, code=code, message=denied, status=400)])
    refresh(book, account, "c7g.xlarge", "c99g.xlarge")
    price = book.on_demand("c7g.xlarge")
    assert (price.usd_per_hour, price.kind) == (0.145, "bundled")
    assert sources([price]) == "AWS price list of 2026-07-20, bundled; live price denied: pricing:GetProducts"
    assert book.spot("c7g.xlarge", ZONES[0]).kind == "live", "one refusal does not spoil the other"
    with pytest.raises(PriceUnknown, match=r"\(live price denied: pricing:GetProducts\)$"):
        book.on_demand("c99g.xlarge")


def test_prices_are_kept_on_disk_and_counted_however_old(
    tmp_path: Path, clock: Clock, far: AWS, book: PriceBook
) -> None:
    refresh(book, far, "c7g.xlarge")
    assert book.on_demand("c7g.xlarge").source == "AWS price list"
    clock.now += 400 * DAY
    later = PriceBook("us-east-1", cache=tmp_path, now=clock)
    price = later.on_demand("c7g.xlarge")
    assert (price.usd_per_hour, price.kind, price.date) == (0.145, "cached", "2026-11-26")
    assert later.spot("c7g.xlarge", ZONES[0]).kind == "cached"
    clock.now = NOW + 3600
    assert PriceBook("us-east-1", cache=tmp_path, now=clock).on_demand("c7g.xlarge").kind == "live"


def test_simulated_prices_are_neither_kept_nor_mixed_with_real_ones(
    tmp_path: Path, clock: Clock, far: AWS, account: AWS
) -> None:
    refresh(PriceBook("us-east-1", cache=tmp_path, now=clock), far, "c7g.xlarge", "m7g.xlarge")
    kept = (tmp_path / "us-east-1.json").read_text()
    book = PriceBook("us-east-1", cache=tmp_path, now=clock)
    refresh(book, account, "c7g.xlarge", "c6g.xlarge")
    assert book.on_demand("c7g.xlarge").source == "simulated AWS price list"
    assert book.on_demand("m7g.xlarge").kind == "bundled"
    assert (tmp_path / "us-east-1.json").read_text() == kept


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"prices": {"c7g.xlarge": [0, 1, 1]}}', '{"prices": {"a": ["x"]}}'])
def test_a_broken_file_is_put_aside_with_a_warning_and_written_anew(
    tmp_path: Path, clock: Clock, far: AWS, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "us-east-1.json"
    path.write_text(broken)
    book = PriceBook("us-east-1", cache=tmp_path, now=clock)
    assert "cannot be read and are not used" in caplog.text
    assert book.on_demand("c7g.xlarge").kind == "bundled"
    refresh(book, far, "c7g.xlarge")
    assert json.loads(path.read_text())["prices"]["c7g.xlarge"][0] == 0.145


def test_two_processes_share_the_price_cache(tmp_path: Path) -> None:
    one, other = PriceCache(tmp_path / "x.json"), PriceCache(tmp_path / "x.json")
    one.write({"a": Known(1.0, 10, 10), "b": Known(2.0, 10, 10)})
    other.write({"b": Known(3.0, 20, 20), "c": Known(4.0, 20, 20)})
    one.write({"b": Known(2.0, 10, 10)})
    assert one.read() == {"a": Known(1.0, 10, 10), "b": Known(3.0, 20, 20), "c": Known(4.0, 20, 20)}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_a_folder_that_cannot_be_written_costs_a_warning(
    tmp_path: Path, clock: Clock, far: AWS, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    book = PriceBook("us-east-1", cache=tmp_path / "file" / "folder", now=clock)
    refresh(book, far, "c7g.xlarge")
    assert book.on_demand("c7g.xlarge").kind == "live"
    assert "cannot be cached" in caplog.text


def test_a_region_without_a_bundled_list_has_only_prices_from_aws(tmp_path: Path) -> None:
    book = PriceBook("xx-north-9", cache=tmp_path)
    for ask in (book.on_demand, book.spot):
        with pytest.raises(PriceUnknown, match="no prices of that region"):
            ask("c7g.xlarge")
