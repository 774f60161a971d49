"""What AWS is asked at a look: little, but whatever something speaks against."""

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
from dask_starburst.plan.loop.state import Group, Instance, Observed, SetDesired, Task, Worker, WorkerState

S = WorkerState
NOW = 1000.0


def instance(name: str = "i", **more: object) -> Instance:
    usual: dict = {"arn": f"arn:{name}", "connected": True, "seen": True}
    return Instance(name, "spot", "c7g.xlarge", **(usual | more))


def worker(state: WorkerState, name: str = "a", since: float = NOW - 60) -> Worker:
    return Worker(name, "spot", state, since, task=f"t-{name}", instance="arn:i")


def task(name: str = "a", status: str = "RUNNING", instance: str = "arn:i") -> Task:
    return Task(f"t-{name}", name, 0, status, instance)


def asked(*workers: Worker, members: str = "", described: float = 0.0, on: Instance | None = None) -> set[str]:
    tasks = {t.arn: t for t in [task()]}
    observed = Observed(instances={"i": on or instance()}, tasks=tasks, members=frozenset(members))
    return unverified(workers, observed, {"t-a": described}, NOW, 6.0)


def test_who_is_up_and_known_to_dask_is_not_asked_for():
    assert asked(worker(S.READY), members="a") == set()


def test_who_vanished_from_dask_is_asked_for_at_every_look():
    assert asked(worker(S.READY), described=NOW) == {"t-a"}


def test_who_has_just_been_placed_is_given_time_and_then_asked_for_now_and_then():
    assert asked(worker(S.PLACED, since=NOW - 5)) == set()
    assert asked(worker(S.PLACED, since=NOW - 6)) == {"t-a"}
    assert asked(worker(S.PLACED), described=NOW - 5) == set()
    assert asked(worker(S.STARTED), described=NOW - 6) == {"t-a"}


def test_a_task_that_nobody_keeps_is_asked_for_until_it_is_over():
    assert asked() == {"t-a"}
    assert asked(worker(S.DRAINED), members="a") == {"t-a"}


def test_a_task_whose_instance_goes_is_asked_for_though_dask_still_knows_it():
    assert asked(worker(S.READY), members="a", on=instance(terminating=True)) == {"t-a"}
    assert asked(worker(S.READY), members="a", on=instance("other", arn="arn:other")) == {"t-a"}


def test_a_sweep_finds_strays_and_those_that_ended_unnoticed():
    tasks = {t.arn: t for t in (task("a"), task("b"), task("c", "STOPPED"))}
    assert differing(Observed(tasks=tasks), ["t-a", "t-stray"]) == {"t-b", "t-stray"}


def test_a_new_task_that_ecs_does_not_know_yet_is_believed_for_a_while():
    known = {"t-a": task()}
    assert join_tasks(known, ["t-a"], {}, {"t-a": NOW - 29}, NOW) == known
    assert join_tasks(known, ["t-a"], {}, {"t-a": NOW - 31}, NOW) == {}


def test_a_task_that_is_over_is_remembered_while_a_worker_has_it():
    over = {"t-a": task(status="STOPPED")}
    assert join_tasks({"t-a": task()}, ["t-a"], over, {"t-a": NOW}, NOW) == over
    assert join_tasks({"t-a": task()}, ["t-a"], over, {}, NOW) == {}


def test_instances_are_joined_with_what_ecs_says_and_kept_when_it_was_not_asked():
    present = [("i", "spot", "c7g.xlarge", False)]
    first = join_instances(present, None, Observed(), NOW)
    assert booting(first.values())
    connected = Connected(frozenset({"arn:i"}), {"arn:i": "i"})
    second = join_instances(present, connected, Observed(instances=first), NOW + 3)
    assert second["i"] == instance(launched=NOW, idle_since=NOW)
    assert join_instances(present, None, Observed(instances=second), NOW + 6) == second
    disconnected = join_instances(present, Connected(frozenset(), {}), Observed(instances=second), NOW + 9)
    assert (disconnected["i"].connected, disconnected["i"].seen, disconnected["i"].arn) == (False, True, "arn:i")


def test_looks_are_rarer_when_many_are_under_way_and_rarest_when_none_is():
    assert pause(1.5, 1, idle=False) == 1.5
    assert pause(1.5, 201, idle=False) == 3.0
    assert pause(1.5, 0, idle=True) == 12.0


def test_instances_are_listed_again_only_when_some_may_have_come_or_gone():
    here = replace(instance(), connected=True, seen=True)
    idle = Observed(groups={here.group: Group(here.group, 1)}, instances={here.id: here})
    up = [worker(S.READY)]
    assert not instances_may_have_changed(idle, up, {"a"})
    assert instances_may_have_changed(idle, up, set()), "a worker has gone"
    assert instances_may_have_changed(replace(idle, groups={here.group: Group(here.group, 2)}), up, {"a"}), (
        "one is to come"
    )
    assert instances_may_have_changed(replace(idle, instances={here.id: replace(here, terminating=True)}), up, {"a"})
    assert instances_may_have_changed(replace(idle, instances={here.id: replace(here, connected=False)}), up, {"a"})
    assert instances_may_have_changed(replace(idle, in_flight={SetDesired(here.group, 2): NOW}), up, {"a"})
