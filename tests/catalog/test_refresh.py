"""The generation of the bundled catalogue: it filters wrong source data, and refuses a bad source."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from dask_starburst.catalog.instance_types import size_units
from dask_starburst.local import LocalAWS
from tools import from_aws, from_packages, lowest_cluster, published, refresh_catalog
from tools.lowest_cluster import Point
from tools.offered import Offered


@pytest.fixture(scope="module")
def offered() -> Offered:
    return from_packages.offered()


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in refresh_catalog.DATA.glob("*.*")}


def test_the_bundled_files_agree_with_the_tool(offered: Offered, written: dict[str, str]) -> None:
    assert written == refresh_catalog.rendered(offered), "run: python -m tools.refresh_catalog"


def test_the_files_are_small_and_their_sums_are_written_down(written: dict[str, str]) -> None:
    about = json.loads(written["SOURCES.json"])
    tables = {name: text for name, text in written.items() if name.endswith(".csv")}
    assert about["sha256"] == {name: hashlib.sha256(text.encode()).hexdigest() for name, text in tables.items()}
    assert sum(map(len, written.values())) < 80_000
    for source in about["prices"].values():
        assert source.keys() >= {"origin", "words", "date", "method"}


# The price list that is the check was read elsewhere (see tools/published.py), a year after libcloud's.
def test_the_method_finds_the_published_prices_of_us_east_1(offered: Offered) -> None:
    found = offered.rates["libcloud"][published.REGION]
    known = {family: usd for table in published.XLARGE.values() for family, usd in table.items()}
    both = found.keys() & known.keys()
    assert len(both) >= 80
    worst = max(both, key=lambda family: abs(found[family] / known[family] - 1))
    assert found[worst] == pytest.approx(known[worst], rel=2e-5), worst
    assert all(found[family] == pytest.approx(1.0) for family in ("g4dn", "g5", "g6", "g6e", "inf1", "inf2"))


def test_oregon_has_the_prices_of_virginia(offered: Offered) -> None:
    rates = offered.rates["libcloud"]
    both = rates["us-east-1"].keys() & rates["us-west-2"].keys()
    assert len(both) >= 80
    assert all(rates["us-west-2"][family] == pytest.approx(rates["us-east-1"][family], rel=2e-3) for family in both)


def test_a_third_of_the_raw_table_is_wrong_and_no_price_is_lower_than_the_true_one(offered: Offered) -> None:
    raw = from_packages.libcloud_pricing()["compute"]["ec2_linux"]
    known = {
        family: usd
        for source in ("aws-2026-02-09", "aws-2026-07-20")
        for family, usd in offered.rates[source][published.REGION].items()
    }
    ratios = [
        usd[published.REGION] / (known[family] * units)
        for name, usd in raw.items()
        for family in [name.partition(".")[0]]
        for units in [offered.odd_units.get(name, size_units(name))]
        if published.REGION in usd and known.get(family) and units
    ]
    wrong = [ratio for ratio in ratios if abs(ratio - 1) > 0.01]
    assert 0.2 < len(wrong) / len(ratios) < 0.4
    assert all(ratio == 0 or ratio > 1.05 for ratio in wrong)


def test_zeros_and_faults_are_passed_over() -> None:
    assert lowest_cluster.rate([Point(0.0, 1), Point(0.11, 2), Point(0.10, 4), Point(0.106, 8)]) == 0.10


def test_the_largest_size_that_agrees_counts_because_it_has_the_most_digits() -> None:
    points = [Point(0.1452, 0.25), Point(0.1450, 1), Point(0.1450, 2), Point(0.14504, 16)]
    assert lowest_cluster.rate(points) == 0.14504


@pytest.mark.parametrize(
    "points",
    [[], [Point(0.0, 1)], [Point(0.1, 1)], [Point(0.1, size) for size in (1, 2, 4)], [Point(0.1, 1), Point(0.2, 2)]],
)
def test_unconfirmed_prices_are_left_out(points: list[Point]) -> None:
    assert lowest_cluster.rate(points) is None


def test_the_newer_of_two_sources_of_us_east_1_wins(written: dict[str, str]) -> None:
    rows = [row for row in csv.DictReader(written["prices.csv"].splitlines()) if row["family"] == "c7g"]
    assert [row["source"] for row in rows] == ["libcloud", "aws-2026-07-20"]
    assert all(float(row["us-east-1"]) == 0.145 for row in rows)


def test_a_refresh_that_loses_types_or_moves_prices_is_refused(written: dict[str, str]) -> None:
    types = written["instance-types.csv"].splitlines()
    fewer = written | {"instance-types.csv": "\n".join(types[: len(types) * 9 // 10])}
    assert "types are lost" in refresh_catalog.refusal(written, fewer)
    header, *rows = [line.split(",") for line in written["prices.csv"].splitlines()]
    dearer = [[cell if i < 2 or not cell else str(float(cell) * 1.01) for i, cell in enumerate(row)] for row in rows]
    moved = written | {"prices.csv": "\n".join(",".join(row) for row in [header, *dearer])}
    assert "prices have moved" in refresh_catalog.refusal(written, moved)
    assert refresh_catalog.refusal(written, written) == ""


def test_the_tool_refuses_writes_and_changes_nothing_the_second_time(tmp_path: Path, written: dict[str, str]) -> None:
    into = ["--into", str(tmp_path)]
    for name, text in written.items():
        (tmp_path / name).write_text(text.replace(",^12.5G,", ",^12.4G,"), encoding="utf-8")
    (tmp_path / "prices.csv").write_text("family,source,us-east-1\nc7g,libcloud,7.5\n")
    refused = CliRunner().invoke(refresh_catalog.main, into)
    assert refused.exit_code == 1
    assert "1 of 1 prices have moved: c7g in us-east-1." in refused.output
    for words in ([*into, "--accept"], into):
        done = CliRunner().invoke(refresh_catalog.main, words)
        assert done.exit_code == 0, done.output
        assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == written


def test_from_aws_a_family_has_the_price_of_its_largest_size_and_units_of_their_own_what_is_off_its_size() -> None:
    home = {"t3.nano": 0.0052, "t3.large": 0.0832, "t3.2xlarge": 0.3328, "x8i.large": 0.21883, "x8i.2xlarge": 0.87532}
    home |= {"x8i.xlarge": 0.43766, "x8i.96xlarge": 48.74438, "g5.xlarge": 1.006, "g5.2xlarge": 1.212}
    units = {name: from_aws.own_units(name, home) for name in home}
    assert (units["t3.nano"], units["x8i.2xlarge"], units["g5.2xlarge"]) == (1 / 32, 2, 1.212)
    assert units["x8i.96xlarge"] == pytest.approx(111.375, rel=1e-4)
    assert from_aws.own_units("g5.24xlarge", home) == 0, "unknown price"
    assert from_aws.own_units("t3.xlarge", home) == 1
    assert from_aws.rates(home, units) == pytest.approx({"t3": 0.1664, "x8i": 0.43766, "g5": 1.0})


@pytest.mark.slow
def test_the_catalogue_that_aws_gives_agrees_with_the_bundled_one(
    aws: LocalAWS, offered: Offered, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    found = from_aws.offered(["us-east-1", "eu-central-1"])
    bundled = {each.name: each for each in offered.types}
    # moto says of each region only what is sold there.
    assert len(found.types) > 900
    assert all(each == bundled[each.name] for each in found.types)
    (rates,) = found.rates.values()
    for region, libcloud in (
        ("us-east-1", offered.rates["aws-2026-07-20"]),
        ("eu-central-1", offered.rates["libcloud"]),
    ):
        for family, usd in libcloud[region].items():
            if family in rates[region]:
                assert rates[region][family] == pytest.approx(usd, rel=1e-4), (region, family)
    assert found.odd_units["x8i.96xlarge"] == pytest.approx(published.UNITS["x8i.96xlarge"])
    assert found.odd_units["g5.xlarge"] == pytest.approx(1.006)
    refresh_catalog.rendered(found)
