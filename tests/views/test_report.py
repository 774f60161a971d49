"""The report of a cluster, as text and as HTML."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from dask_starburst.cost import Cost
from dask_starburst.fleet.controller.interruptions import SpotCounts
from dask_starburst.plan.money.budget import Caps
from dask_starburst.views.bill import money_rows
from dask_starburst.views.html import as_html
from dask_starburst.views.report import ClusterReport, as_text, rows

MEMBER = {"nthreads": 4, "memory_limit": 2**30}
REPORT = ClusterReport(
    name="mine",
    status="running",
    address="tls://198.51.100.7:8786",
    dashboard="https://198.51.100.7:8787/status",
    region="us-east-1",
    types=("c7g.xlarge",),
    members=({"nthreads": 4, "memory_limit": 2**30},) * 3,
    requested=3,
    failed=0,
    cost=Cost(instances=0.02),
    lease=43_200.0,
    pool="starburst-mine",
)
EVIL = "<script>alert('x')</script>\"&"


class Text(HTMLParser):
    """The text of a page and its tags, each of which has to be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text: list[str] = []
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._open.append(tag)
        self.links += [value for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize(
    ("ready", "requested", "failed", "text"),
    [(3, 3, 0, "3"), (1, 3, 0, "1 of 3"), (0, 0, 0, "0"), (2, 3, 1, "2 of 3 (1 failed)")],
)
def test_the_report_shows_requested_and_failed_workers_if_there_are_any(
    ready: int, requested: int, failed: int, text: str
):
    report = replace(REPORT, members=REPORT.members[:1] * ready, requested=requested, failed=failed)
    assert dict(rows(report))["Workers"] == text


def test_the_repr_is_one_line_with_the_key_facts():
    assert as_text(REPORT) == (
        "StarburstCluster(mine, 'tls://198.51.100.7:8786', running, workers=3, threads=12,"
        " memory=3.00 GiB, c7g.xlarge in AWS, us-east-1; $0.0200 so far)"
    )
    spot = SpotCounts(interruptions=1, bytes_moved=2**20, fallbacks=2, moved_back=1)
    costly = replace(REPORT, usd_per_hour=0.5, caps=Caps(hourly=2.0, total=9.0), spot=spot)
    assert as_text(costly).endswith(
        "; $0.0200 so far, $0.5000 an hour, of max_hourly_cost=2; max_total_cost=9; Spot: 1 interruptions, 1.00 MiB"
        " moved, 0 results lost, 0 tasks recomputed, 0 worker-seconds lost, 2 workers bought on demand instead, 1 moved"
        " back)"
    )


def test_many_types_are_counted_and_a_cluster_that_was_not_launched_says_so():
    many = replace(REPORT, types=tuple(f"c{n}g.xlarge" for n in range(5, 9)), region="", lease=None)
    assert "c5g.xlarge and 3 similar types in not launched" in as_text(many)
    assert dict(rows(many))["Lease"] == "none"
    assert dict(rows(REPORT))["Lease"] == "AWS empties the pool at 12:00:00 UTC unless renewed"


def test_what_aws_bills_is_a_row_only_on_an_account():
    assert "starburst-mine" in dict(rows(REPORT))["What AWS bills"]
    assert "What AWS bills" not in dict(rows(replace(REPORT, simulated=True)))
    assert "What AWS bills" not in dict(rows(replace(REPORT, cost=Cost())))


def test_where_the_money_went_are_rows_of_their_own():
    cost = Cost(instances=0.9, storage=0.1, saved=1.0, by_group={"spot": 0.75, "head": 0.25}, by_cause={"work": 1.0})
    shown = dict(rows(replace(REPORT, cost=cost)))
    assert shown["Spent on"] == "instances $0.9000 (90%), volumes $0.1000 (10%)"
    assert shown["Spent in"] == "spot $0.7500 (75%), head $0.2500 (25%)"
    assert shown["Spent while"] == "work $1.00 (100%)"
    assert shown["Against on demand"] == "$2.00, so 50% less"
    assert money_rows(Cost()) == []


def test_every_row_is_in_the_html():
    page = Text(as_html(REPORT))
    for title, text in rows(REPORT):
        assert title in page.text
        assert text in page.text
    assert "StarburstCluster mine" in page.text
    assert page.links == [REPORT.dashboard]


def test_a_dashboard_that_is_not_up_has_no_link():
    page = Text(as_html(replace(REPORT, dashboard="")))
    assert page.links == []
    assert "none" in page.text


@pytest.mark.parametrize("field", ["name", "status", "dashboard", "region"])
def test_no_name_can_smuggle_html_in(field: str):
    report = replace(REPORT, **{field: EVIL}, types=(EVIL,))  # type: ignore[arg-type]  # the fields above are all text
    page = Text(as_html(report))
    assert "script" not in page.tags
    assert any(EVIL in text for text in page.text)


def test_the_controls_of_a_widget_are_put_in_as_they_are():
    assert "button" in Text(as_html(REPORT, controls="<button>Scale</button>")).tags
