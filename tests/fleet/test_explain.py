"""A failed start becomes a sentence: the facts, AWS's own text, the next step, the last log lines."""

from __future__ import annotations

import pytest

from dask_starburst.fleet.explain import LOG_LINES, failure, hint
from dask_starburst.plan.state import HEAD, SCHEDULER, Worker

FAILURES = [
    # AWS's own text, and a word of the advice
    ("CannotPullContainerError: pull image manifest has been retried 1 time(s): not found", "Check image="),
    ("exec /usr/bin/python: exec format error", "arch="),
    ("OutOfMemoryError: Container killed due to memory usage (exit code 137)", "larger worker="),
    ("ModuleNotFoundError: No module named 'dask_starburst'", "image lacks a package"),
    ("We currently do not have sufficient c7g.xlarge capacity (InsufficientInstanceCapacity)", "instance_types="),
    ("MaxSpotInstanceCountExceeded: Max spot instance count exceeded", "vCPU quota"),
    ("VcpuLimitExceeded: You have requested more vCPU capacity", "vCPU quota"),
    ("ResourceInitializationError: unable to pull secrets or registry auth", "ssm:GetParameters"),
    ("did not join within 180 s", "cluster.get_logs()"),
]


@pytest.mark.parametrize(("text", "advice"), FAILURES, ids=[text[:24] for text, _ in FAILURES])
def test_a_known_failure_comes_with_the_next_step(text: str, advice: str):
    assert advice in hint(text)


def test_an_unknown_failure_comes_without_a_guess():
    assert hint("Essential container in task exited (exit code 3)") == ""


def test_the_sentence_says_who_what_and_whether_another_attempt_follows():
    worker = Worker("7", "spot")
    text = "did not join within 180 s"
    assert failure(worker, text, [], 3) == (
        "worker 7 could not be started (attempt 1 of 3, trying again): did not join within 180 s."
        " Look at its log with cluster.get_logs()."
    )
    last = failure(Worker("7", "spot", attempt=2), text, [], 3)
    assert "(attempt 3 of 3)" in last
    assert "trying again" not in last


def test_the_scheduler_is_called_the_scheduler():
    assert failure(Worker(SCHEDULER, HEAD), "AGENT", [], 3).startswith("the scheduler could not be started")


def test_a_reason_that_ends_with_a_full_stop_gets_no_second_one():
    assert "terminated. " not in failure(Worker("1", "spot"), "Host EC2 terminated.", [], 3)
    assert failure(Worker("1", "spot"), "Host EC2 terminated.", [], 3).endswith("Host EC2 terminated.")


def test_only_the_last_log_lines_are_quoted_and_in_their_order():
    lines = [f"line {n}" for n in range(LOG_LINES + 5)]
    text = failure(Worker("1", "spot"), "it ended", lines, 3)
    quoted = text.partition("Its last log lines:\n")[2].splitlines()
    assert [line.strip() for line in quoted] == lines[5:]


def test_what_only_the_log_tells_is_advised_on_too():
    text = failure(Worker("1", "spot"), "Essential container in task exited (exit code 1)", ["No module named 'x'"], 3)
    assert "image lacks a package" in text


def test_without_a_log_nothing_is_said_about_one():
    assert "log lines" not in failure(Worker("1", "spot"), "it ended", [], 3)
