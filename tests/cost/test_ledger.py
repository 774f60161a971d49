"""The ledger counts as EC2 does, and says what its numbers are worth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_starburst.cost import Ledger
from dask_starburst.errors import PriceUnknown
from dask_starburst.events import Event

HOUR = 3600.0


def test_nothing_costs_nothing():
    assert Ledger().total(now=0).usd == 0


def test_an_hour_of_an_instance_has_three_parts():
    ledger = Ledger()
    ledger.instance_started("i-1", "c7g.xlarge", "on-demand", at=0)
    ledger.instance_ended("i-1", at=HOUR)
    cost = ledger.total(now=5 * HOUR)
    assert cost.instances == pytest.approx(0.145)
    assert cost.public_ipv4 == pytest.approx(0.005)
    assert cost.storage == pytest.approx(30 * 0.08 / 730)
    assert cost.usd == pytest.approx(0.145 + 0.005 + 30 * 0.08 / 730)


def test_stopped_instances_cost_their_volumes_until_the_end():
    ledger = Ledger()
    ledger.note(Event(0.0, "stopped-wished", "pool", "", facts={"count": 3}))
    assert ledger.total(now=HOUR).usd == pytest.approx(3 * 30 * 0.08 / 730)
    assert ledger.total(now=HOUR).instance_hours == 0
    ledger.close(2 * HOUR)
    assert ledger.total(now=9 * HOUR).usd == pytest.approx(2 * 3 * 30 * 0.08 / 730)


def test_spot_costs_less_than_on_demand():
    ledger = Ledger()
    ledger.instance_started("i-1", "c7g.xlarge", "spot", at=0)
    assert ledger.total(now=HOUR).instances == pytest.approx(0.145 * 0.39)


def test_a_second_is_billed_as_a_minute():
    ledger = Ledger()
    ledger.instance_started("i-1", "c7g.xlarge", "on-demand", at=100)
    ledger.instance_ended("i-1", at=101)
    assert ledger.total(now=101).instances == pytest.approx(0.145 / 60)


def test_a_running_instance_costs_more_every_second():
    ledger = Ledger()
    ledger.instance_started("i-1", "c7g.xlarge", "spot", at=0)
    assert ledger.total(now=2 * HOUR).usd == pytest.approx(2 * ledger.total(now=HOUR).usd)


def test_a_repeated_event_costs_nothing():
    ledger = Ledger()
    for at in (0.0, 10.0):
        ledger.instance_started("i-1", "c7g.xlarge", "spot", at=at)
    for at in (HOUR, 2 * HOUR):
        ledger.instance_ended("i-1", at=at)
    assert ledger.total(now=9 * HOUR).instance_hours == pytest.approx(1)


def test_the_end_of_a_strange_instance_is_passed_over():
    ledger = Ledger()
    ledger.instance_ended("i-of-somebody-else", at=5)
    assert ledger.total(now=10).usd == 0


def test_a_type_without_a_price_is_refused_when_it_starts():
    with pytest.raises(PriceUnknown, match="nobody says what x99"):
        Ledger().instance_started("i-1", "x99.huge", "spot", at=0)


def test_the_line_says_whose_prices_of_when_and_that_nobody_pays():
    ledger = Ledger(simulated=True)
    ledger.instance_started("i-1", "c7g.xlarge", "spot", at=0)
    assert str(ledger.total(now=HOUR)) == (
        "$0.0648 (bundled us-east-1 prices of 2026-07-20; Spot estimated from June 2025 savings; simulated run)"
    )


def test_the_line_does_not_speak_of_spot_where_there_was_none():
    ledger = Ledger()
    ledger.instance_started("i-1", "c7g.xlarge", "on-demand", at=0)
    assert str(ledger.total(now=HOUR)) == "$0.1533 (bundled us-east-1 prices of 2026-07-20)"


def test_the_line_owns_up_to_an_assumed_price():
    ledger = Ledger()
    ledger.instance_started("i-1", "m6g.xlarge", "spot", at=0)
    assert "counted as on demand" in str(ledger.total(now=HOUR))


@given(st.lists(st.tuples(st.sampled_from(["c7g.large", "m7i.xlarge"]), st.floats(0, 1e6), st.floats(0, 1e6))))
def test_the_sum_is_the_sum_of_its_instances(runs):
    together = Ledger()
    alone = 0.0
    for number, (kind, started, lasted) in enumerate(runs):
        single = Ledger()
        for ledger in (together, single):
            ledger.instance_started(f"i-{number}", kind, "spot", started)
            ledger.instance_ended(f"i-{number}", started + lasted)
        alone += single.total(now=0).usd
    assert together.total(now=0).usd == pytest.approx(alone)


def test_closing_the_books_ends_what_still_runs_and_nothing_grows_afterwards():
    ledger = Ledger()
    ledger.instance_started("i-1", "c7g.xlarge", "spot", 0.0)
    ledger.instance_started("i-2", "c7g.xlarge", "spot", 0.0)
    ledger.instance_ended("i-1", 100.0)
    ledger.close(200.0)
    assert ledger.total(10_000.0) == ledger.total(200.0)
    assert ledger.total(200.0).instance_hours == pytest.approx(300 / 3600)
