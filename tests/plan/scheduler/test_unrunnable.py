"""Tasks that no worker of a cluster can run, and the message about them."""

from __future__ import annotations

import pytest

from dask_starburst.plan.scheduler.unrunnable import GRACE, SUSPECT, Restricted, advice, hopeless, out_of_reach, suspect

GPU = {"GPU": 1.0}


@pytest.mark.parametrize(
    ("task", "offered", "known", "expected"),
    [
        (Restricted("x", 1e6, {}), {}, False, False),  # it waits for workers, as work from zero does
        (Restricted("x", 1e6, {}), {}, True, False),
        (Restricted("x", 0.0, GPU), {}, True, True),
        (Restricted("x", 0.0, GPU), {}, False, False),  # the first worker shows what a plugin gives it
        (Restricted("x", 0.0, GPU), {"GPU": 1.0}, True, False),  # one had it, and is gone just now
        (Restricted("x", 0.0, {"GPU": 2.0}), {"GPU": 1.0}, True, True),
        (Restricted("x", GRACE, {}, ("nowhere",)), {}, False, True),
        (Restricted("x", GRACE - 1, {}, ("nowhere",)), {}, True, False),  # it may come back
        (Restricted("x", 0.0, GPU, ("nowhere",)), {}, True, True),  # it would not help
        (Restricted("x", 1e6, {}, ("tls://10.0.0.1:4",), there=True), {}, True, False),  # it is paused
    ],
)
def test_only_a_task_that_no_worker_can_run_is_hopeless(
    task: Restricted, offered: dict[str, float], known: bool, expected: bool
):
    assert hopeless(task, offered, known=known) is expected


@pytest.mark.parametrize(
    ("task", "known", "expected"),
    [
        (Restricted("x", 0.0, {}), True, False),
        (Restricted("x", 0.0, GPU), True, True),
        (Restricted("x", 0.0, GPU), False, False),
        (Restricted("x", 0.0, {}, ("nowhere",)), False, True),  # should it come back, it is there already
        (Restricted("x", 0.0, {}, ("nowhere",), there=True), True, False),
    ],
)
def test_no_worker_is_started_for_a_task_that_it_cannot_run(task: Restricted, known: bool, expected: bool):
    assert out_of_reach(task, {}, known=known) is expected


def test_an_unknown_resource_is_reported_within_a_minute_even_without_a_worker():
    assert not suspect(Restricted("x", SUSPECT - 1, GPU), {})
    assert suspect(Restricted("x", SUSPECT, GPU), {})
    assert not suspect(Restricted("x", SUSPECT, GPU), {"GPU": 1.0})
    assert not suspect(Restricted("x", SUSPECT, {}), {})
    assert SUSPECT < 60


def test_the_message_has_the_key_the_restriction_and_the_next_step():
    text = advice(Restricted("inc-1", 20.0, GPU), 3, ("0", "1"))
    for part in ("inc-1 and 2 more", "resources={'GPU': 1}", "without resources=", "future.cancel()", "idle_timeout"):
        assert part in text
    text = advice(Restricted("inc-1", 20.0, {}, ("nowhere",)), 1, ("0", "1"))
    for part in ("task inc-1 cannot run", "workers=['nowhere']", "(workers: 0, 1)", "allow_other_workers=True"):
        assert part in text
