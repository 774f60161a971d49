"""The ledger of a cluster that runs for a month: its state does not grow."""

from __future__ import annotations

import pytest

from dask_starburst.cost.ledger import Ledger
from dask_starburst.events import InstanceLaunched, InstanceTerminated, WorkerReady

HOUR = 3600.0
DAY = 24 * HOUR


def churn(ledger: Ledger, hours: int) -> None:
    """Run one instance after the other for an hour each, with a worker of its own."""
    for number in range(hours):
        at, instance = number * HOUR, f"i-{number}"
        launched = InstanceLaunched(
            time=at, instance=instance, type="c7g.xlarge", market="spot", placement="spot", group="default"
        )
        ledger.note(launched)
        ledger.note(WorkerReady(time=at + 60, name=f"worker-{number}", instance=instance, seconds=5.0))
        ledger.record_busy({f"worker-{number}": 1000.0})
        ledger.note(InstanceTerminated(time=at + HOUR, instance=instance))
        ledger.reprice(at + HOUR)


def test_a_month_of_churn_keeps_no_more_state_than_a_day():
    day, month = Ledger(), Ledger()
    churn(day, 24)
    churn(month, 30 * 24)
    assert len(month.instances) == len(day.instances) < 10
    assert len(month._runs_on) == len(day._runs_on) < 10
    assert len(month._busy) == 1
    one, all_of_it = day.total(DAY), month.total(30 * DAY)
    assert all_of_it.usd == pytest.approx(30 * one.usd)
    assert month.spent(30 * DAY) == pytest.approx(all_of_it.usd)
    assert all_of_it.instance_hours == pytest.approx(30 * 24)
    assert all_of_it.saved == pytest.approx(30 * one.saved)
    assert sum(all_of_it.by_group.values()) == pytest.approx(all_of_it.usd)
    assert all_of_it.by_cause["work"] == pytest.approx(30 * one.by_cause["work"])
    assert len(all_of_it.prices) == len(one.prices)
