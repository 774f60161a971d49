"""How large a group with stopped instances may be, and what these cost."""

from __future__ import annotations

import pytest

from dask_starburst.plan.reconcile import settle, step
from dask_starburst.plan.state import (
    Action,
    Group,
    Instance,
    Limits,
    Observed,
    SetDesired,
    SetMaximum,
    Terminate,
    Worker,
    WorkerState,
)
from dask_starburst.plan.stopped import price, promise

NOW = 1000.0
LIMITS = Limits(stopped={"on-demand": 2})


def seen(desired: int, maximum: int, instances: int = 0, asked: dict[Action, float] | None = None) -> Observed:
    there = [
        Instance(f"i-{n}", "on-demand", "c7g.xlarge", f"arn:{n}", connected=True, seen=True) for n in range(instances)
    ]
    group = Group("on-demand", desired, ("c7g.xlarge",), ("c7g.xlarge",), maximum)
    return Observed({"on-demand": group}, {i.id: i for i in there}, asked=asked or {})


def maxima(observed: Observed, *workers: Worker, limits: Limits = LIMITS) -> list[SetMaximum]:
    return [a for a in step(workers, observed, NOW, limits) if isinstance(a, SetMaximum)]


def test_a_group_that_has_become_smaller_keeps_no_more_stopped_than_were_asked_for():
    assert maxima(seen(desired=0, maximum=5)) == [SetMaximum("on-demand", 2)]
    assert maxima(seen(desired=0, maximum=2)) == []


def test_without_stopped_instances_the_maximum_is_left_alone():
    assert maxima(seen(desired=0, maximum=500), limits=Limits()) == []


def test_an_order_brings_its_own_maximum():
    worker = Worker("a", "on-demand", WorkerState.CAPACITY, since=NOW)
    actions = step([worker], seen(desired=0, maximum=9), NOW, LIMITS)
    assert actions == (SetDesired("on-demand", 1),)


def test_the_maximum_never_goes_below_what_has_been_ordered_and_cannot_be_seen_yet():
    worker = Worker("a", "on-demand", WorkerState.CAPACITY, since=NOW)
    ordered = seen(desired=1, maximum=9, asked={SetDesired("on-demand", 6): NOW})
    assert maxima(ordered, worker) == [SetMaximum("on-demand", 8)]


def test_nor_below_what_is_desired_while_a_termination_may_have_failed():
    ending: dict[Action, float] = {Terminate(f"i-{n}", "on-demand"): NOW for n in range(3)}
    assert maxima(seen(desired=3, maximum=9, instances=3, asked=ending)) == [SetMaximum("on-demand", 5)]


def test_what_was_asked_for_is_not_asked_for_twice():
    asked: dict[Action, float] = {SetMaximum("on-demand", 2): NOW}
    observed = seen(desired=0, maximum=5, asked=asked)
    assert maxima(observed) == []
    assert settle(observed.asked, observed) == asked
    assert settle(observed.asked, seen(desired=0, maximum=2)) == {}


@pytest.mark.parametrize(
    ("count", "gib", "text"),
    [(1, 30, "1 stopped, $2.40 a month for 30 GB"), (3, 100, "3 stopped, $24.00 a month for 100 GB each")],
)
def test_stopped_instances_cost_their_volumes(count: int, gib: int, text: str):
    assert price(count, gib) == text
    assert text in promise("c7g.xlarge", count, gib)
