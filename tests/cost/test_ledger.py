"""The ledger bills as EC2 does, and names the sources of its prices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_starburst.catalog import Price
from dask_starburst.catalog.markets import Market
from dask_starburst.catalog.prices import Kind
from dask_starburst.cost import Ledger
from dask_starburst.errors import PriceUnknown
from dask_starburst.events import (
    Event,
    InstanceLaunched,
    InstanceTerminated,
    SpotInterruption,
    WorkerReady,
    WorkerStopped,
)

HOUR = 3600.0


def test_nothing_costs_nothing():
    assert Ledger().total(now=0).usd == 0


def test_an_hour_of_an_instance_has_three_parts():
    ledger = Ledger()
    ledger.instance_started("i-1", "c7g.xlarge", Market.ON_DEMAND, at=0)
    ledger.instance_ended("i-1", at=HOUR)
    cost = ledger.total(now=5 * HOUR)
    assert cost.instances == pytest.approx(0.145)
    assert cost.public_ipv4 == pytest.approx(0.005)
    assert cost.storage == pytest.approx(30 * 0.08 / 730)
    assert cost.usd == pytest.approx(0.145 + 0.005 + 30 * 0.08 / 730)


def test_spot_costs_less_than_on_demand():
    ledger = Ledger()
    ledger.instance_started("i-1", "c7g.xlarge", Market.SPOT, at=0)
    assert ledger.total(now=HOUR).instances == pytest.approx(0.145 * 0.39)


def test_a_second_is_billed_as_a_minute():
    ledger = Ledger()
    ledger.instance_started("i-1", "c7g.xlarge", Market.ON_DEMAND, at=100)
    ledger.instance_ended("i-1", at=101)
    assert ledger.total(now=101).instances == pytest.approx(0.145 / 60)


def test_a_running_instance_costs_more_every_second():
    ledger = Ledger()
    ledger.instance_started("i-1", "c7g.xlarge", Market.SPOT, at=0)
    assert ledger.total(now=2 * HOUR).usd == pytest.approx(2 * ledger.total(now=HOUR).usd)


def test_a_repeated_event_costs_nothing():
    ledger = Ledger()
    for at in (0.0, 10.0):
        ledger.instance_started("i-1", "c7g.xlarge", Market.SPOT, at=at)
    for at in (HOUR, 2 * HOUR):
        ledger.instance_ended("i-1", at=at)
    assert ledger.total(now=9 * HOUR).instance_hours == pytest.approx(1)


def test_the_end_of_a_strange_instance_is_passed_over():
    ledger = Ledger()
    ledger.instance_ended("i-of-another-cluster", at=5)
    assert ledger.total(now=10).usd == 0


def test_a_type_without_a_price_is_booked_and_owned_up_to():
    ledger = Ledger()
    ledger.instance_started("i-1", "x99.huge", Market.SPOT, at=0)
    ledger.instance_started("i-2", "c7g.xlarge", Market.ON_DEMAND, at=0)
    cost = ledger.total(now=HOUR)
    assert cost.instances == pytest.approx(0.145)
    assert cost.unpriced == ("x99.huge",)
    assert "without x99.huge, whose price is unknown" in str(cost)


def test_the_text_has_the_source_and_date_of_the_prices_and_that_it_is_simulated():
    ledger = Ledger(simulated=True)
    ledger.instance_started("i-1", "c7g.xlarge", Market.ON_DEMAND, at=0)
    assert str(ledger.total(now=HOUR)) == "$0.1533 (AWS price list of 2026-07-20, bundled; simulated run)"


def test_the_line_owns_up_to_an_assumed_price():
    ledger = Ledger()
    ledger.instance_started("i-1", "c7g.xlarge", Market.ON_DEMAND, at=0)
    ledger.instance_started("i-2", "c7g.xlarge", Market.SPOT, at=0)
    assert "Spot savings of c7g" in str(ledger.total(now=HOUR))
    assert "assumed" in str(ledger.total(now=HOUR))


def launched(name: str, kind: str, market: Market, group: str) -> InstanceLaunched:
    return InstanceLaunched(time=0, instance=name, type=kind, market=market, placement="", group=group)


class Quotes:
    """Prices that a test moves."""

    region = "us-east-1"
    kind: Kind = "bundled"

    def __init__(self, usd: float) -> None:
        self.usd = usd
        self.since: float | None = None

    def on_demand(self, instance_type: str) -> Price:
        return Price(0.4, "test", "2026-01-01")

    def spot(self, instance_type: str, zone: str = "") -> Price:
        return Price(self.usd, "test", "2026-01-01", self.kind, since=self.since)


def test_a_spot_price_that_moves_counts_from_then_on():
    ledger = Ledger(market := Quotes(0.1))
    ledger.instance_started("i-1", "c7g.xlarge", Market.SPOT, at=0)
    market.usd = 0.2
    ledger.reprice(HOUR)
    market.usd = 0.3
    ledger.instance_ended("i-1", 3 * HOUR)
    ledger.reprice(3 * HOUR)
    assert ledger.total(9 * HOUR).instances == pytest.approx(0.1 + 2 * 0.2)
    assert ledger.total(9 * HOUR).saved == pytest.approx(3 * 0.4 - 0.5)


@pytest.mark.parametrize(("since", "hours"), [(1.5 * HOUR, 1.5), (2 * HOUR, 1.0), (9 * HOUR, 1.0), (-HOUR, 3.0)])
def test_a_new_spot_price_applies_from_the_time_that_aws_gives(since: float, hours: float):
    ledger = Ledger(market := Quotes(0.1))
    ledger.instance_started("i-1", "c7g.xlarge", Market.SPOT, at=0)
    market.usd, market.since = 0.2, since
    ledger.reprice(2 * HOUR)
    assert ledger.total(3 * HOUR).instances == pytest.approx((3 - hours) * 0.1 + hours * 0.2)


@pytest.mark.parametrize(("since", "hours"), [(0.5 * HOUR, 1.5), (1.5 * HOUR, 1.0), (None, 1.0)])
def test_a_price_that_is_known_only_after_the_end_counts_from_the_time_that_aws_gives(
    since: float | None, hours: float
):
    market = Quotes(0.1)
    ledger = Ledger(market)
    ledger.instance_started("i-1", "c7g.xlarge", Market.SPOT, at=0)
    ledger.instance_ended("i-1", at=HOUR)
    market.usd, market.since = 0.2, since
    ledger.reprice(at=1.01 * HOUR)
    assert ledger.total(now=2 * HOUR).instances == pytest.approx(0.1 * hours)


def test_the_first_live_price_applies_from_the_start():
    ledger = Ledger(market := Quotes(0.1))
    ledger.instance_started("i-1", "c7g.xlarge", Market.SPOT, at=0)
    market.usd, market.kind = 0.2, "live"
    ledger.reprice(60)
    market.usd = 0.4
    ledger.reprice(HOUR)
    assert ledger.total(2 * HOUR).instances == pytest.approx(0.2 + 0.4)


def test_times_from_ec2_replace_the_observed_ones():
    ledger = Ledger(Quotes(0.1))
    ledger.instance_started("i-1", "c7g.xlarge", Market.SPOT, at=30)
    ledger.instance_ended("i-1", 2 * HOUR + 30)
    ledger.correct("i-1", 0, 2 * HOUR, "us-east-1a")
    assert ledger.total(9 * HOUR).instances == pytest.approx(0.2)


@pytest.mark.parametrize(("lasted", "usd"), [(HOUR - 1, 0.0), (HOUR, 0.1), (2 * HOUR, 0.2)])
def test_spot_that_aws_interrupts_in_its_first_hour_is_free_but_for_address_and_volume(lasted: float, usd: float):
    ledger = Ledger(Quotes(0.1))
    ledger.instance_started("i-1", "c7g.xlarge", Market.SPOT, at=0)
    ledger.correct("i-1", 0, lasted, "us-east-1a", taken=True)
    cost = ledger.total(9 * HOUR)
    assert cost.instances == pytest.approx(usd)
    assert cost.public_ipv4 > 0


def test_time_is_split_by_cause():
    ledger = Ledger(Quotes(0.1))
    happened: list[Event] = [
        launched("i-0", "m7g.medium", Market.ON_DEMAND, "head"),
        launched("i-1", "c7g.xlarge", Market.SPOT, "default"),
        WorkerReady(time=100, name="0", instance="i-1", seconds=5.0),
        SpotInterruption(time=700, name="0", instance="i-1", type="c7g.xlarge", seconds=120.0, replaced=True),
        WorkerStopped(time=750, name="0", instance="i-1"),
        InstanceTerminated(time=800, instance="i-1"),
    ]
    for event in happened:
        ledger.note(event)
    ledger.record_busy({"0": 200.0, "strange": 5.0})
    ledger.record_busy({"0": 450.0})
    cost = ledger.total(800)
    worker = cost.by_group["default"]
    assert cost.by_cause["boot"] == pytest.approx(worker * 100 / 800)
    assert cost.by_cause["work"] == pytest.approx(worker * 450 / 800)
    assert cost.by_cause["idle"] == pytest.approx(worker * 150 / 800)
    assert cost.by_cause["interrupted"] == pytest.approx(worker * 100 / 800)
    assert cost.by_cause["scheduler"] == pytest.approx(cost.by_group["head"])
    assert sum(cost.by_cause.values()) == pytest.approx(cost.usd)


def test_an_unknown_spot_price_counts_as_the_one_on_demand():
    class Unknown(Quotes):
        def spot(self, instance_type: str, zone: str = "") -> Price:
            raise PriceUnknown("no source has a price")

    rates = Ledger(Unknown(0.0), types=("c7g.xlarge",)).rates()
    assert rates.of("c7g.xlarge", Market.SPOT) == rates.of("c7g.xlarge", Market.ON_DEMAND) > 0.4


def test_a_type_without_any_price_has_no_rate_and_no_cap_can_be_kept_with_it():
    ledger = Ledger(types=("c7g.xlarge", "x99.huge"))
    assert {kind for kind, _ in ledger.rates().usd} == {"c7g.xlarge"}
    with pytest.raises(PriceUnknown, match=r"a cost cap cannot be enforced on a cluster that may launch x99\.huge"):
        ledger.require_prices()


@given(st.lists(st.tuples(st.sampled_from(["c7g.large", "m7i.xlarge"]), st.floats(0, 1e6), st.floats(0, 1e6))))
def test_the_sum_is_the_sum_of_its_instances(runs):
    together = Ledger()
    alone = 0.0
    for number, (kind, started, lasted) in enumerate(runs):
        single = Ledger()
        for ledger in (together, single):
            ledger.instance_started(f"i-{number}", kind, Market.SPOT, started)
            ledger.instance_ended(f"i-{number}", started + lasted)
        alone += single.total(now=0).usd
    assert together.total(now=0).usd == pytest.approx(alone)


def test_closing_the_ledger_ends_running_instances_and_the_cost_stops_growing():
    ledger = Ledger()
    ledger.instance_started("i-1", "c7g.xlarge", Market.SPOT, 0.0)
    ledger.instance_started("i-2", "c7g.xlarge", Market.SPOT, 0.0)
    ledger.instance_ended("i-1", 100.0)
    ledger.close(200.0)
    assert ledger.total(10_000.0) == ledger.total(200.0)
    assert ledger.total(200.0).instance_hours == pytest.approx(300 / 3600)
