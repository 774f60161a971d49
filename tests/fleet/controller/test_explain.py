"""The message of a failed start: the facts, AWS's text, the next step, the last log lines."""

from __future__ import annotations

import pytest

from dask_starburst.aws.faults import launch_refusal
from dask_starburst.errors import CapacityUnavailable, WorkerFailed
from dask_starburst.fleet.controller.explain import LOG_LINES, failure, given_up, hint, launch_refused, rest
from dask_starburst.plan.loop.state import SCHEDULER, Limits, Worker, WorkerState
from tests.support.placements import HEAD, SPOT

#: AWS's message of a failed launch, its kind, and a part of the advice.
LAUNCHES = [
    (
        "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count exceeded.",
        "quota",
        "vCPU",
    ),
    ("Max spot instance count exceeded. Launching EC2 instance failed.", "quota", "vCPU quota"),
    (
        "You have requested more vCPU capacity than your current vCPU limit of 5 allows for the instance bucket that"
        " the specified instance type belongs to. Launching EC2 instance failed.",
        "quota",
        "vCPU quota",
    ),
    ("0 instance(s) are already running. Launching EC2 instance failed.", "quota", "vCPU quota"),
    (
        "We currently do not have sufficient c7g.xlarge capacity in the Availability Zone you requested (us-east-1a)."
        " Launching EC2 instance failed.",
        "capacity",
        "instance_types=",
    ),
    ("There is no Spot capacity available that matches your request.", "capacity", "instance_types="),
    (
        "Could not launch Spot Instances. UnfulfillableCapacity - Unable to fulfill capacity due to your request"
        " configuration. Please adjust your request and try again. Launching EC2 instance failed.",
        "capacity",
        "instance_types=",
    ),
    (
        "Your requested instance type (m7i-flex.2xlarge) is not supported in your requested Availability Zone"
        " (us-east-1e). Launching EC2 instance failed.",
        "capacity",
        "instance_types=",
    ),
    ("Client.InternalError: Client error on launch. Launching EC2 instance failed.", "fault", "in KMS"),
    (
        "Server.InternalError: Internal error on launch. Launching EC2 instance failed.",
        "passing",
        "temporary fault of AWS",
    ),
    (
        "Could not launch Spot Instances. InternalError - An internal error has occurred.",
        "passing",
        "temporary fault of AWS",
    ),
    (
        "Could not launch Spot Instances. RequestLimitExceeded - Request limit exceeded.",
        "passing",
        "temporary fault of AWS",
    ),
    (
        "PendingVerification - Your request for accessing resources in this region is being validated, and you will not"
        " be able to launch additional resources in this region until the validation is complete.",
        "passing",
        "four hours",
    ),
    (
        "InsufficientFreeAddressesInSubnet - There are not enough free addresses in subnet 'subnet-1' to satisfy the"
        " requested number of instances. Launching EC2 instance failed.",
        "fault",
        "subnet-…",
    ),
    (
        "You are not authorized to perform this operation. Encoded authorization failure message: abc. Launching EC2"
        " instance failed.",
        "fault",
        "decode-authorization-message",
    ),
    (
        "Value (x) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
        "fault",
        "waiting",
    ),
    ("The image id '[ami-0123]' does not exist. Launching EC2 instance failed.", "fault", "waiting does not help"),
    ("Something that no page of AWS's has", "fault", "waiting does not help"),
]

#: ECS's reason of a stopped task, and a part of the advice.
STOPPED = [
    ("CannotPullContainerError: pull image manifest has been retried 1 time(s): not found", "Check image="),
    ("CannotPullContainerError: dial tcp 1.2.3.4:443: i/o timeout", "the subnet can"),
    ("CannotStartContainerError: exec /usr/bin/python: exec format error", "another architecture"),
    ("OutOfMemoryError: Container killed due to memory usage (exit code 137)", "larger worker="),
    ("ResourceInitializationError: unable to pull secrets or registry auth", "ssm:GetParameters"),
    (
        "ResourceInitializationError: unable to pull secrets or registry auth: service call has been retried 5 time(s):"
        " ThrottlingException: Rate exceeded",
        "temporary fault of AWS",
    ),
    ("Host EC2 (instance i-0123) terminated.", "another one is used"),
    ("DockerTimeoutError: Could not transition to started; timed out after waiting 3m0s", "storage.volume_size"),
    ("did not join within 180 s", "cluster.get_logs()"),
]


@pytest.mark.parametrize(("text", "kind", "advice"), LAUNCHES, ids=[text[:40] for text, *_ in LAUNCHES])
def test_the_event_and_the_error_of_a_launch_that_failed_say_the_same(text: str, kind: str, advice: str):
    refusal = launch_refusal(SPOT, text, 1.0)
    assert refusal.kind == kind
    event = launch_refused(refusal, None, [refusal])
    error = failure(Worker("7", SPOT, attempt=2, unserved=True), refusal.text, [], 3)
    for message in (event, error):
        assert advice in message
        assert message.count("That is a") <= 1, "one next step, not two that contradict each other"
    expected = WorkerFailed if kind == "fault" else CapacityUnavailable
    assert type(given_up(Worker("7", SPOT, unserved=True, reason=text), error)) is expected


@pytest.mark.parametrize(("text", "advice"), STOPPED, ids=[text[:40] for text, _ in STOPPED])
def test_a_known_failure_comes_with_the_next_step(text: str, advice: str):
    assert advice in hint(text)


@pytest.mark.parametrize(
    "text",
    [
        "Essential container in task exited (exit code 3)",
        "pulling the pullman data",  # parts of words
        "insufficient data for a fit",
        "vCPU",
        "MyInternalErrorHandler",
    ],
)
def test_an_unknown_failure_comes_without_a_guess(text: str):
    assert hint(text) == ""


@pytest.mark.parametrize(
    "line",
    [
        "pullman 3.1 started",
        "ValueError: insufficient data",
        "RuntimeError: InsufficientInstanceCapacity",
        "CannotPullContainerError: quoted from a runbook",
        "Max spot instance count exceeded",
    ],
)
def test_the_log_of_a_worker_is_quoted_and_never_matched_against_aws_errors(line: str):
    plain = failure(Worker("1", SPOT), "Essential container in task exited (exit code 1)", ["something"], 3)
    text = failure(Worker("1", SPOT), "Essential container in task exited (exit code 1)", [line], 3)
    assert text == plain.replace("something", line)


def test_the_message_names_the_process_the_reason_and_whether_it_is_retried():
    worker = Worker("7", SPOT)
    text = "did not join within 180 s"
    assert failure(worker, text, [], 3) == (
        "worker 7 failed to start (attempt 1 of 3, retrying): did not join within 180 s."
        " Look at its log with cluster.get_logs()."
    )
    last = failure(Worker("7", SPOT, attempt=2), text, [], 3)
    assert "(attempt 3 of 3)" in last
    assert "retrying" not in last


def test_the_message_of_a_worker_that_was_given_up_says_when_it_is_retried():
    limits = Limits()
    lacks = Worker("7", SPOT, WorkerState.FAILED, attempt=2, unserved=True, rounds=3)
    assert rest(lacks, limits).startswith("It still counts as requested and is retried in 5 minutes;")
    refused = Worker("7", SPOT, WorkerState.FAILED, attempt=2, aws_failed=True, rounds=1)
    assert "retried in 10 minutes; scale() retries it at once" in rest(refused, limits)
    own = Worker("7", SPOT, WorkerState.FAILED, attempt=2)
    assert "retried in 5 minutes if the cluster adapts and has work for it; scale()" in rest(own, limits)
    text = failure(own, "Essential container in task exited", ["a line"], 3, rest(own, limits))
    assert "scale() retries it at once. Its last log lines:\n    a line" in text


def test_the_scheduler_is_called_the_scheduler():
    assert failure(Worker(SCHEDULER, HEAD), "AGENT", [], 3).startswith("the scheduler failed to start")


def test_a_reason_that_ends_with_a_full_stop_gets_no_second_one():
    assert failure(Worker("1", SPOT), "Its task was stopped.", [], 3).endswith(": Its task was stopped.")


def test_only_the_last_log_lines_are_quoted_and_in_their_order():
    lines = [f"line {n}" for n in range(LOG_LINES + 5)]
    text = failure(Worker("1", SPOT), "it ended", lines, 3)
    quoted = text.partition("Its last log lines:\n")[2].splitlines()
    assert [line.strip() for line in quoted] == lines[5:]


def test_a_process_that_exited_gets_advice_on_its_log():
    text = failure(Worker("1", SPOT), "Essential container in task exited (exit code 1)", ["No module named 'x'"], 3)
    assert "its last log lines say why" in text
    assert "the image lacks a package" in text


def test_without_a_log_nothing_is_said_about_one():
    assert "log lines" not in failure(Worker("1", SPOT), "it ended", [], 3)
