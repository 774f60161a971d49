"""The requests of a poll: few, but every task whose state is in doubt."""

from __future__ import annotations

from dataclasses import replace

from dask_starburst.plan.loop.polling import (
    Connected,
    booting,
    differing,
    instances_may_have_changed,
    join_instances,
    join_tasks,
    pause,
    unverified,
)
from dask_starburst.plan.loop.state import Instance, Observed, ScalingGroup, SetDesired, Task, Worker, WorkerState
from tests.support.placements import SPOT

S = WorkerState
NOW = 1000.0


def instance(name: str = "i", **more: object) -> Instance:
    usual: dict = {"arn": f"arn:{name}", "connected": True, "seen": True}
    return Instance(name, SPOT, "c7g.xlarge", **(usual | more))


def worker(state: WorkerState, name: str = "a", since: float = NOW - 60) -> Worker:
    return Worker(name, SPOT, state, since, task=f"t-{name}", instance="arn:i")


def task(name: str = "a", status: str = "RUNNING", instance: str = "arn:i") -> Task:
    return Task(f"t-{name}", name, 0, status, instance)


def described_tasks(
    *workers: Worker, members: str = "", described: float = 0.0, on: Instance | None = None
) -> set[str]:
    tasks = {t.arn: t for t in [task()]}
    observed = Observed(instances={"i": on or instance()}, tasks=tasks, members=frozenset(members))
    return unverified(workers, observed, {"t-a": described}, NOW, 6.0)


def test_a_worker_known_to_the_scheduler_is_not_described():
    assert described_tasks(worker(S.READY), members="a") == set()


def test_a_worker_that_vanished_from_the_scheduler_is_described_at_every_poll():
    assert described_tasks(worker(S.READY), described=NOW) == {"t-a"}


def test_a_placed_worker_has_time_to_join_and_is_then_described_periodically():
    assert described_tasks(worker(S.PLACED, since=NOW - 5)) == set()
    assert described_tasks(worker(S.PLACED, since=NOW - 6)) == {"t-a"}
    assert described_tasks(worker(S.PLACED), described=NOW - 5) == set()
    assert described_tasks(worker(S.STARTED), described=NOW - 6) == {"t-a"}


def test_a_task_without_a_worker_is_described_until_it_has_stopped():
    assert described_tasks() == {"t-a"}
    assert described_tasks(worker(S.DRAINED), members="a") == {"t-a"}


def test_a_task_on_a_terminating_instance_is_described_although_the_scheduler_knows_it():
    assert described_tasks(worker(S.READY), members="a", on=instance(terminating=True)) == {"t-a"}
    assert described_tasks(worker(S.READY), members="a", on=instance("other", arn="arn:other")) == {"t-a"}


def test_a_full_refresh_finds_unknown_tasks_and_tasks_that_ended_unnoticed():
    tasks = {t.arn: t for t in (task("a"), task("b"), task("c", "STOPPED"))}
    assert differing(Observed(tasks=tasks), ["t-a", "t-stray"]) == {"t-b", "t-stray"}


def test_a_new_task_that_ecs_does_not_know_yet_is_kept_for_a_grace_period():
    known = {"t-a": task()}
    assert join_tasks(known, ["t-a"], {}, {"t-a": NOW - 29}, NOW) == known
    assert join_tasks(known, ["t-a"], {}, {"t-a": NOW - 31}, NOW) == {}


def test_a_stopped_task_is_kept_while_a_worker_has_it():
    over = {"t-a": task(status="STOPPED")}
    assert join_tasks({"t-a": task()}, ["t-a"], over, {"t-a": NOW}, NOW) == over
    assert join_tasks({"t-a": task()}, ["t-a"], over, {}, NOW) == {}


def test_instances_are_joined_with_the_response_of_ecs_and_kept_without_one():
    present = [("i", SPOT, "c7g.xlarge", False)]
    first = join_instances(present, None, Observed(), NOW)
    assert booting(first.values())
    connected = Connected(frozenset({"arn:i"}), {"arn:i": "i"})
    second = join_instances(present, connected, Observed(instances=first), NOW + 3)
    assert second["i"] == instance(launched=NOW, idle_since=NOW)
    assert join_instances(present, None, Observed(instances=second), NOW + 6) == second
    disconnected = join_instances(present, Connected(frozenset(), {}), Observed(instances=second), NOW + 9)
    assert (disconnected["i"].connected, disconnected["i"].seen, disconnected["i"].arn) == (False, True, "arn:i")


def test_polls_are_less_frequent_with_many_starting_workers_and_least_frequent_when_idle():
    assert pause(1.5, 1, idle=False) == 1.5
    assert pause(1.5, 201, idle=False) == 3.0
    assert pause(1.5, 0, idle=True) == 12.0


def test_instances_are_listed_again_only_if_some_may_have_started_or_terminated():
    here = replace(instance(), connected=True, seen=True)
    idle = Observed(groups={here.placement: ScalingGroup(here.placement, 1)}, instances={here.id: here})
    up = [worker(S.READY)]
    assert not instances_may_have_changed(idle, up, {"a"})
    assert instances_may_have_changed(idle, up, set()), "a worker is gone"
    two = {here.placement: ScalingGroup(here.placement, 2)}
    assert instances_may_have_changed(replace(idle, groups=two), up, {"a"}), "one is still to launch"
    assert instances_may_have_changed(replace(idle, instances={here.id: replace(here, terminating=True)}), up, {"a"})
    assert instances_may_have_changed(replace(idle, instances={here.id: replace(here, connected=False)}), up, {"a"})
    assert instances_may_have_changed(replace(idle, in_flight={SetDesired(here.placement, 2): NOW}), up, {"a"})
