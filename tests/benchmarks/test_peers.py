"""The evaluation of the peers benchmark's measurements."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.peers.inventory import is_settled, left
from benchmarks.peers.report import WITH_INSTANCES, Run, markdown, polls, times

RUN = Run(
    product="StarburstCluster",
    seed=0,
    workers=4,
    more=2,
    seconds={"constructor": 50.0, "first worker": 60.0, "ready": 70.0, "more": 40.0, "close": 5.0, "exit": 1.0},
    calls={"ecs:RunTask": 3, "ecs:DescribeTasks": 10, "ec2:DescribeVpcs": 1},
    calls_until={"ready": 12},
    throttled=0,
    left={"costs": {}, "free": {"clusters": 1, "roles": 2}},
    settled_seconds=0.0,
    waited={},
    versions={},
    load=0.0,
)
ECS = replace(RUN, product="ECSCluster", waited={"ready": 100.0, "more": 30.0})


def test_externally_created_instances_are_added_to_the_stages_that_need_them() -> None:
    found = times([RUN, ECS])
    assert found["StarburstCluster"]["ready"] == found["ECSCluster, instances there already"]["ready"] == [70.0]
    cold = found[WITH_INSTANCES]
    assert (cold["ready"], cold["more"], cold["close"]) == ([170.0], [70.0], [5.0])


def test_read_calls_are_distinguished_from_changing_calls() -> None:
    assert polls(RUN.calls) == 11


def test_the_table_shows_median_and_range_of_several_runs() -> None:
    slow = replace(RUN, seed=1, seconds={**RUN.seconds, "ready": 90.0}, throttled=7)
    text = markdown([RUN, slow])
    assert "80.0 (70.0–90.0)" in text
    assert "| throttled | 0–7 |" in text
    assert "| StarburstCluster | nothing | 1 cluster, 2 roles |" in text


def test_leftovers_are_the_resources_that_did_not_exist_before() -> None:
    before = {kind: frozenset({"a"}) for kind in ("instances", "tasks", "volumes", "network interfaces", "roles")}
    after = {**before, "roles": frozenset({"a", "b"}), "instances": frozenset({"b"})}
    assert left(before, after) == {"costs": {"instances": 1}, "free": {"roles": 1}}
    assert not is_settled(before, after)
    assert is_settled(before, {**after, "instances": frozenset({"a"})})
