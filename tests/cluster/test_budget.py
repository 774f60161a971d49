"""Costs on the embedded AWS: caps hold, and the ledger is right."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.catalog import EBS_GP3_GB_MONTH, PUBLIC_IPV4_HOUR
from dask_starburst.cost import Ledger, PriceBook
from dask_starburst.errors import BudgetExceeded
from dask_starburst.events import (
    BudgetWarning,
    ClusterFailed,
    InstanceTerminated,
    SpotInterruption,
    WorkerLeaving,
    WorkersOverBudget,
)
from dask_starburst.fleet.blueprint import blueprint, within_caps
from dask_starburst.local import LocalAWS
from dask_starburst.local.faults.events import Capacity, Interrupt, SpotPrice
from dask_starburst.plan.money.budget import INTERVAL, Caps
from dask_starburst.settings import Settings
from tests.support.cluster_asserts import costs_nothing, emitted, nothing_left, read_until, script_process, wait_until

#: Speed of the embedded AWS where an hour of cost has to pass.
FAST = 8
EXTRA = PUBLIC_IPV4_HOUR + 30 * EBS_GP3_GB_MONTH / 730


def price(instance: dict[str, Any]) -> float:
    """Return USD an hour of an instance of the embedded AWS, with its address and volume."""
    book = PriceBook("us-east-1", cache=Path("does-not-exist"))
    ask = book.spot if instance["market"] == "spot" else book.on_demand
    return ask(instance["type"]).usd_per_hour + EXTRA


def rates_over_time(history: list[dict[str, Any]]) -> list[float]:
    """Return the hourly cost of all instances at each moment at which one was launched or terminated."""
    moments = sorted({at for i in history for at in (i["launched_at"], i["ended_at"]) if at is not None})
    middles = [(one + other) / 2 for one, other in pairwise(moments)]
    return [
        sum(price(i) for i in history if i["launched_at"] <= at and (i["ended_at"] is None or at < i["ended_at"]))
        for at in middles
    ]


def bill(history: list[dict[str, Any]], dearer_from: float = math.inf, times: float = 1.0) -> float:
    """Compute the cost of the instances from the history of the embedded AWS, as EC2 bills them.

    Spot costs `times` as much from a moment on.
    """
    usd = 0.0
    for i in history:
        end = max(i["launched_at"] + 60.0, i["ended_at"])
        hours = (end - i["launched_at"]) / 3600
        if i["market"] == "spot" and i["interrupted"] and hours < 1:
            usd += hours * EXTRA
            continue
        usd += hours * price(i)
        if i["market"] == "spot":
            later = max(0.0, end - max(i["launched_at"], dearer_from)) / 3600
            usd += later * (times - 1) * (price(i) - EXTRA)
    return usd


def cluster(aws: LocalAWS, **more: Any) -> StarburstCluster:
    return StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, quiet=True, **more)


def slowly(n: int) -> int:
    time.sleep(0.2)
    return n


def test_a_launch_above_its_cap_is_refused_before_anything_exists(aws: LocalAWS) -> None:
    with pytest.raises(BudgetExceeded, match=r"set n_workers=[0-9]+, or max_hourly_cost="):
        cluster(aws, n_workers=50, money={"max_hourly_cost": 0.5})
    assert not aws.instances()
    assert nothing_left(aws)


def test_a_cap_excludes_expensive_types_and_an_alert_threshold_does_not() -> None:
    planned = blueprint(Settings.load(region="us-east-1", n_workers=2), "")
    rates = Ledger(PriceBook("us-east-1", cache=Path("does-not-exist")), types=planned.types).rates()
    assert within_caps(planned, Caps(alert=0.01), rates).types == planned.types
    assert 1 < len(within_caps(planned, Caps(hourly=5.0), rates).default.types) < len(planned.default.types)


def test_under_adaptive_load_the_hourly_cost_stays_below_its_cap_and_the_work_completes(
    new_aws: LocalAWS,
) -> None:
    cap = 0.3
    with cluster(new_aws, money={"max_hourly_cost": cap, "cost_alert_threshold": 0.2}) as limited:
        limited.adapt(minimum=6, maximum=8)
        with Client(limited) as client:
            assert sum(client.gather(client.map(slowly, range(100)))) == sum(range(100))
        with pytest.raises(BudgetExceeded, match="wait, because of max_hourly_cost="):
            limited.wait_for_workers(6)
        kinds = {type(event) for event in limited.events}
        history = new_aws.instances()
    assert max(rates_over_time(history)) <= cap
    assert max(rates_over_time(history)) > 0.6 * cap, "the cap is used"
    assert {WorkersOverBudget, BudgetWarning} <= kinds


def test_a_cluster_that_reaches_max_total_cost_warns_and_closes_with_little_overrun(new_aws: LocalAWS) -> None:
    cap = 0.004
    limited = cluster(new_aws, n_workers=1, money={"max_total_cost": cap})
    new_aws.set_speed(FAST)
    wait_until(lambda: any(isinstance(e, BudgetWarning) for e in limited.events), 60, "the warning at 80 %")
    new_aws.set_speed(1)  # closing takes real seconds
    wait_until(lambda: limited.status.name == "closed", 120, "the cluster closes at its cap")
    assert nothing_left(new_aws)
    messages = {type(event): event.message for event in limited.events}
    history = new_aws.instances()
    limited.close()
    assert "max_total_cost=0.004" in messages[BudgetWarning]
    assert "max_total_cost=0.004 is reached" in messages[ClusterFailed]
    interval = max(rates_over_time(history)) * INTERVAL / 3600
    assert cap - 2 * interval < bill(history) <= cap + interval


@pytest.mark.slow
def test_workers_are_retired_when_the_spot_price_rises_above_the_cap(aws: LocalAWS) -> None:
    with (
        cluster(aws, n_workers=3, instance_types=["c7g.xlarge"], money={"max_hourly_cost": 0.5}) as own,
        Client(own) as client,
    ):
        own.wait_for_workers(3)
        kept = client.map(slowly, range(30), pure=False)
        client.gather(kept)
        aws.play([SpotPrice(times=3.0)])  # then three workers exceed the cap, and two do not
        aws.advance(600)
        wait_until(lambda: len(own.scheduler_info["workers"]) == 2, 60, "one worker is retired")
        assert client.gather(kept) == list(range(30))  # no result is lost or recomputed
        assert emitted(own, WorkersOverBudget)
    assert nothing_left(aws)


SCRIPT = """
import time
from dask.distributed import Client
from dask_starburst import StarburstCluster
cluster = StarburstCluster(
    cloud="local", endpoint_url={url!r}, quiet=True, n_workers=1,
    money={{"max_total_cost": {cap}}}, keep={{"no_client_timeout": None, "idle_timeout": None}},
)
cluster.wait_for_workers(1)
while cluster.cost.usd < {seen}:
    time.sleep(0.1)
time.sleep(12)  # longer than the interval between two cost reports to the scheduler
print("SPENT", flush=True)
time.sleep(1000)
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_scheduler_empties_its_pool_at_max_total_cost_without_a_client(new_aws: LocalAWS) -> None:
    with script_process(SCRIPT.format(url=new_aws.endpoint_url, cap=0.0026, seen=0.001)) as process:
        read_until(process, "SPENT")
        process.kill()
        process.wait()
        wait_until(lambda: costs_nothing(new_aws), 240, "the scheduler empties its pool")
        events = new_aws.client("logs").filter_log_events(logGroupName="/starburst")["events"]
        assert any("max_total_cost=0.0026" in event["message"] for event in events)


def test_the_ledger_agrees_with_the_history_of_the_embedded_aws(new_aws: LocalAWS) -> None:
    with cluster(
        new_aws,
        n_workers=2,
        spot={"policy": "spot_with_fallback"},
        keep={"warm_timeout": 20},
        timeouts={"fallback": 5, "capacity": 30},
    ) as own:
        own.wait_for_workers(2)
        new_aws.set_speed(FAST)
        new_aws.play([Capacity(market="spot", room=0)])
        own.scale(3)
        own.wait_for_workers(3)
        new_aws.play([Interrupt(count=1)])
        # ECS may drain the instance before its worker receives the notice.
        kinds = SpotInterruption | WorkerLeaving
        wait_until(lambda: any(isinstance(e, kinds) for e in own.events), 60, "an interruption")
        own.wait_for_workers(3)
        # Else the first price that AWS gives is the new one, and counts from the beginning.
        wait_until(lambda: all(each.kind != "assumed" for each in own.cost.prices), 60, "the first prices")
        new_aws.play([SpotPrice(times=2.0)])
        before = {each.usd_per_hour for each in own.cost.prices}
        new_aws.advance(600)
        wait_until(lambda: {each.usd_per_hour for each in own.cost.prices} - before, 60, "the new price of Spot")
        own.scale(1)  # the others stay warm for a while
        wait_until(
            lambda: sum(isinstance(e, InstanceTerminated) for e in own.events) >= 2,
            60,
            "their instances are terminated",
        )
    cost, history = own.cost, new_aws.instances()
    (dearer,) = (past["at"] for past in new_aws.past_faults() if past["kind"] == "spot-price")
    usd = bill(history, dearer, 2.0)
    assert cost.usd == pytest.approx(usd, rel=0.005)
    assert usd > bill(history) * 1.05  # ten times the tolerance: a wrong price would be noticed
    assert sum(cost.by_group.values()) == pytest.approx(cost.usd)
    assert sum(cost.by_cause.values()) == pytest.approx(cost.usd)
    assert {"scheduler", "boot", "idle", "interrupted"} <= cost.by_cause.keys()
    assert {"head", "default"} == cost.by_group.keys()
    assert {"spot", "on-demand"} == cost.by_market.keys()
