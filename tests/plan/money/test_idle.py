"""The idle bill: all costs are counted, and free resources are listed."""

from __future__ import annotations

import pytest

from dask_starburst.plan.money.idle import FREE, Kept, cents, idle_bill, total, total_text


def test_an_empty_account_costs_nothing():
    assert total(idle_bill(Kept())) == 0
    assert [row.usd_per_month for row in idle_bill(Kept())] == [0.0] * 2
    assert total_text(idle_bill(Kept())) == "0.0 ¢"


def test_kept_resources_are_listed_the_most_expensive_first():
    rows = idle_bill(Kept(image_bytes=400_000_000, images=2, log_bytes=2_000_000_000))
    assert [row.what for row in rows] == ["logs in CloudWatch", "images in ECR"]
    assert rows[0].usd_per_month == pytest.approx(0.06)
    assert rows[1].usd_per_month == pytest.approx(0.04)
    assert rows[1].amount == "2 images, 400.0 MB"
    assert all(row.less for row in rows)


@pytest.mark.parametrize(("usd", "text"), [(0.0, "0.0 ¢"), (0.031, "3.1 ¢"), (0.999, "99.9 ¢"), (24.0, "$24.00")])
def test_small_amounts_are_in_cents(usd: float, text: str):
    assert cents(usd) == text


def test_free_resources_are_listed():
    assert any("Auto Scaling groups of size zero" in text for text in FREE)


def test_an_amount_that_aws_does_not_report_is_unknown_and_not_zero():
    rows = idle_bill(Kept(image_bytes=None, log_bytes=2_000_000_000))
    (images,) = (row for row in rows if row.what == "images in ECR")
    assert images.usd_per_month is None
    assert images.amount == "unknown"
    assert total_text(rows) == "at least 6.0 ¢"
