"""Cost caps: allowed launches, workers that wait, and that a pool never exceeds its cap."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness.simulator.aws import TYPES, SimulatedAWS
from benchmarks.harness.simulator.loop import SimulatedController
from dask_starburst.catalog.markets import Market
from dask_starburst.errors import BudgetExceeded
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.state import (
    Action,
    Instance,
    Limits,
    Name,
    Observed,
    ScalingGroup,
    SetDesired,
    Task,
    Worker,
    WorkerState,
)
from dask_starburst.plan.money.budget import (
    CLIENT_TIMEOUT,
    INTERVAL,
    Caps,
    Rates,
    check_launch,
    extrapolated,
    hourly,
    near_in_price,
    over_budget,
)
from tests.support.placements import HEAD, ON_DEMAND, ONLY_SPOT, SPOT, WITH_FALLBACK

S = WorkerState
NOW = 1000.0
LIMITS = Limits(placements=ONLY_SPOT, capped=True)
CHEAP, EXPENSIVE = TYPES
RATES = Rates(
    {
        (CHEAP, Market.SPOT): 0.1,
        (EXPENSIVE, Market.SPOT): 0.3,
        (CHEAP, Market.ON_DEMAND): 0.4,
        (EXPENSIVE, Market.ON_DEMAND): 0.5,
    }
)


def pool(
    desired: int = 0, *kinds: str, requested: int | None = None, groups: tuple[Placement, ...] = (SPOT,)
) -> Observed:
    """Return a pool with instances of these types, and this desired capacity of its first group."""
    instances = {f"i-{n}": Instance(f"i-{n}", groups[0], kind, f"arn:{n}", True) for n, kind in enumerate(kinds)}
    sizes = {name: desired if name == groups[0] else 0 for name in groups}
    order: dict[Action, float] = {SetDesired(groups[0], requested): NOW} if requested is not None else {}
    return Observed({n: ScalingGroup(n, size, TYPES, TYPES) for n, size in sizes.items()}, instances, in_flight=order)


def requests(count: int, **more: object) -> list[Worker]:
    return [Worker(f"w{n}", SPOT, since=float(n), **more) for n in range(count)]  # type: ignore[arg-type]  # by name


def waiting(
    workers: list[Worker], observed: Observed, caps: Caps, spent: float = 0.0, limits: Limits = LIMITS
) -> set[Name]:
    return set(over_budget(workers, observed, NOW, limits, RATES, caps, spent))


# -- cost of a pool ----------------------------------------------------------------------------


def test_existing_instances_count_at_their_price_and_requested_ones_at_the_highest():
    assert hourly(pool(3, CHEAP), RATES, NOW, LIMITS) == pytest.approx(0.1 + 2 * 0.3)


def test_a_request_in_flight_counts_immediately_and_not_indefinitely():
    ordered = pool(0, requested=2)
    assert hourly(ordered, RATES, NOW, LIMITS) == pytest.approx(2 * 0.3)
    assert hourly(ordered, RATES, NOW + 2 * LIMITS.repeat, LIMITS) == 0


def test_terminating_instances_are_not_counted():
    seen = pool(1, CHEAP, CHEAP)
    gone = replace(seen, instances={**seen.instances, "i-1": replace(seen.instances["i-1"], terminating=True)})
    assert hourly(gone, RATES, NOW, LIMITS) == pytest.approx(0.1)


def test_an_unknown_type_counts_at_the_highest_price():
    assert Rates({("a", Market.SPOT): 1.0, ("b", Market.SPOT): 2.0}).of("x", Market.SPOT) == 2.0


# -- waiting workers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cap", "waits"), [(0.9, 0), (0.8999, 1), (0.6, 1), (0.3, 2), (0.29, 3)])
def test_the_latest_workers_wait_when_the_cap_is_reached(cap: float, waits: int):
    last = {f"w{n}" for n in range(3 - waits, 3)}
    assert waiting(requests(3), pool(), Caps(hourly=cap)) == last


def test_an_empty_paid_instance_is_used_before_a_new_one_is_requested():
    assert waiting(requests(2), pool(1, CHEAP), Caps(hourly=0.1)) == {"w1"}


def test_an_instance_with_an_old_task_that_is_still_running_is_not_empty():
    seen = replace(pool(1, CHEAP), tasks={"t": Task("t", "gone", 0, "RUNNING", "arn:0")})
    assert waiting(requests(1), seen, Caps(hourly=0.1)) == {"w0"}


def test_a_cordoned_instance_counts_but_is_not_usable():
    seen = pool(1, CHEAP)
    cordoned = replace(seen, instances={"i-0": replace(seen.instances["i-0"], cordoned=True)})
    assert waiting(requests(1), cordoned, Caps(hourly=0.3)) == {"w0"}
    assert waiting(requests(1), cordoned, Caps(hourly=0.4)) == set()


def test_the_scheduler_never_waits_and_takes_precedence_over_workers():
    seen = pool(groups=(SPOT, HEAD))
    head = Worker("scheduler", HEAD)
    assert waiting([head, *requests(1)], seen, Caps(hourly=0.5)) == {"w0"}
    assert waiting([head, *requests(1)], seen, Caps(hourly=0.8)) == set()


def test_spares_take_precedence_over_workers():
    limits = replace(LIMITS, spare={SPOT: 1})
    assert waiting(requests(1), pool(), Caps(hourly=0.5), limits=limits) == {"w0"}


def test_a_worker_that_falls_back_is_checked_against_the_on_demand_price():
    limits = replace(LIMITS, placements=WITH_FALLBACK)
    lower = [replace(w, placement=ON_DEMAND) for w in requests(1)]
    seen = pool(groups=(SPOT, ON_DEMAND))
    assert waiting(lower, seen, Caps(hourly=0.4), limits=limits) == {"w0"}
    assert waiting(lower, seen, Caps(hourly=0.5), limits=limits) == set()


def test_a_worker_waits_if_its_first_minute_would_exceed_the_total_cap():
    minute = 0.3 / 60
    assert waiting(requests(1), pool(), Caps(total=1.0), spent=1.0 - minute - 1e-9) == set()
    assert waiting(requests(1), pool(), Caps(total=1.0), spent=1.0 - minute + 1e-9) == {"w0"}


def test_a_pool_over_its_cap_retires_as_few_workers_as_possible_and_the_most_expensive_first():
    seen = pool(3, CHEAP, EXPENSIVE, CHEAP)
    running = [Worker(f"w{n}", SPOT, S.READY, since=n, task=f"t{n}", instance=f"arn:{n}") for n in range(3)]
    assert waiting(running, seen, Caps(hourly=0.49)) == {"w1"}
    assert waiting(running, seen, Caps(hourly=0.19)) == {"w1", "w2"}


def test_a_retiring_worker_counts_as_gone():
    seen = pool(2, CHEAP, EXPENSIVE)
    leaving = Worker("w1", SPOT, S.RETIRING, task="t1", instance="arn:1", over_budget=True)
    stays = Worker("w0", SPOT, S.READY, task="t0", instance="arn:0")
    assert waiting([stays, leaving], seen, Caps(hourly=0.1)) == set()


@given(
    st.integers(0, 2**32),
    st.floats(0.1, 3.0),
    st.lists(st.integers(0, 12), min_size=1, max_size=5),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_pool_never_exceeds_its_cap_and_uses_it_fully(seed: int, cap: float, sizes: list[int], mixed: bool):
    aws = SimulatedAWS(Random(seed), now=NOW, desired={SPOT: 0}, mixed=mixed)
    fleet = SimulatedController(aws, LIMITS, rates=RATES, caps=Caps(hourly=cap))
    for size in sizes:
        fleet.request((str(n) for n in range(size)), SPOT)
        for _ in range(120):
            fleet.tick()
            costs = sum(RATES.of(m.type, Market.SPOT) for m in aws.instances.values() if not m.terminating)
            assert costs <= cap + 1e-9
    up = sum(w.state is S.READY for w in fleet.workers.values())
    assert up == sizes[-1] or costs + 0.3 > cap, "every worker within the cap is up"
    assert aws.launched <= sum(sizes) + len(sizes), "and no instance is launched in vain"


# -- launches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caps", "requested", "spares"),
    [(Caps(hourly=1.0), 9, 0), (Caps(hourly=1.0), 7, 2), (Caps(hourly=0.2), None, 0), (Caps(), 500, 9)],
)
def test_a_launch_that_costs_exactly_its_cap_is_allowed(caps: Caps, requested: int | None, spares: int):
    check_launch(caps, 0.1, [(0.1, requested)], spares)


@pytest.mark.parametrize(
    ("caps", "requested", "text"),
    [
        (Caps(hourly=0.99), 9, "n_workers=8"),
        (Caps(hourly=0.99), 9, "max_hourly_cost=1 or more"),
        (Caps(hourly=0.15), None, "1 worker and the scheduler cost up to $0.2000 an hour"),
        (Caps(total=0.001), 9, "a minute of every instance"),
    ],
)
def test_a_launch_above_a_cap_is_rejected_with_the_size_that_fits(caps: Caps, requested: int | None, text: str):
    with pytest.raises(BudgetExceeded) as caught:
        check_launch(caps, 0.1, [(0.1, requested)])
    assert text in str(caught.value)
    assert "Nothing was launched" in str(caught.value)


def test_a_cap_excludes_types_that_cost_much_more_than_the_first():
    rates = Rates(
        {("a", Market.SPOT): 0.10, ("b", Market.SPOT): 0.12, ("c", Market.SPOT): 0.13, ("d", Market.SPOT): 0.05}
    )
    assert near_in_price(("a", "b", "c", "d"), rates, Market.SPOT) == ("a", "b", "d")


# -- without a client -----------------------------------------------------------------------------


def test_nothing_is_extrapolated_while_the_client_reports():
    assert extrapolated(5.0, 1.0, INTERVAL) == 0.0


def test_possible_spending_since_the_last_report_of_the_client_is_added():
    assert extrapolated(5.0, 3600.0, CLIENT_TIMEOUT + 1) == pytest.approx(5.0 + CLIENT_TIMEOUT + 1)
