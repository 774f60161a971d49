"""ECS's answers as values of the fleet."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from dask_starburst.aws import ecs
from dask_starburst.aws.session import AWS
from dask_starburst.local import LocalAWS
from dask_starburst.plan.requests.tasks import Launch, Place, run_request
from dask_starburst.settings import Settings
from tests.support.placements import SPOT

ARN = "arn:aws:ecs:us-east-1:123456789012:"


class DescribedTasks:
    """A fake account whose DescribeTasks returns the tasks of one batch and one foreign task."""

    def __init__(self, places: tuple[Place, ...]) -> None:
        request = run_request(Launch("pool", "session", SPOT, "worker", "d:1", places, 1024, 2048, {}, {}))
        ours = [(place.container_instance, request["overrides"]) for place in places]
        self._tasks = [
            {
                "taskArn": f"{ARN}task/pool/{number}",
                "lastStatus": "RUNNING",
                "containerInstanceArn": f"{ARN}container-instance/pool/{instance}",
                "overrides": overrides,
            }
            for number, (instance, overrides) in enumerate([*ours, ("other", {})])
        ]

    async def call(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        return {"tasks": [task for task in self._tasks if task["taskArn"] in request["tasks"]]}


def test_our_tasks_are_described_including_worker_0_and_others_are_not():
    places = tuple(Place(f"i-{n}", f"instance-{n}", n, 0, 2**30) for n in range(2))
    arns = [f"{ARN}task/pool/{n}" for n in range(3)]
    seen = asyncio.run(ecs.tasks(cast(AWS, DescribedTasks(places)), "pool", arns))
    assert [seen[arn].worker for arn in arns[:2]] == [0, 1]
    assert set(seen) == set(arns[:2])


class Answer:
    """A fake account that returns one task from RunTask and DescribeTasks."""

    def __init__(self, *places: Place, **task: Any) -> None:
        self.request = run_request(Launch("pool", "session", SPOT, "worker", "d:1", places, 1024, 2048, {}, {}))
        task = {"taskArn": f"{ARN}task/pool/1", "lastStatus": "PROVISIONING", "containers": [], **task}
        self._task = {**task, "overrides": self.request["overrides"]}

    async def call(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        return {"tasks": [self._task], "failures": []}


def ran(answer: Answer) -> ecs.Placements:
    return asyncio.run(ecs.run_tasks(cast(AWS, answer), answer.request))


ONE, TWO = Place("i-1", "c1", 7, 2, 2**30), Place("i-2", "c2", 8, 0, 2**30)


def test_a_task_without_an_instance_is_ours_and_has_the_only_instance_on_which_it_can_be_placed():
    answer = ran(Answer(ONE))
    (task,) = answer.tasks
    assert (task.worker, task.launch, task.placed) == (7, 2, False)
    assert task.instance == f"{ARN}container-instance/pool/c1"
    assert not answer.immediate


def test_a_task_of_a_batch_without_an_instance_has_no_worker_and_its_workers_may_be_started_again():
    answer = ran(Answer(ONE, TWO))
    assert (answer.tasks, answer.unknown) == ((), (f"{ARN}task/pool/1",))
    assert not answer.immediate
    assert answer.passes(answer.refusal(f"{ARN}container-instance/pool/c1"))


def test_a_task_with_an_instance_was_placed_within_the_call():
    answer = ran(Answer(ONE, TWO, containerInstanceArn=f"{ARN}container-instance/pool/c2"))
    assert answer.immediate
    assert [(task.worker, task.placed) for task in answer.tasks] == [(8, True)]


@pytest.mark.parametrize("before", ["", "TaskFailedToStart: "])
@pytest.mark.parametrize(
    ("reason", "passing"),
    [
        ("RESOURCE:MEMORY", True),
        ("AGENT", True),
        ("MemberOf placement constraint unsatisfied.", True),
        ("NO ACTIVE INSTANCES", True),
        ("EMPTY CAPACITY PROVIDER", True),
        ("ATTRIBUTE", False),
    ],
)
def test_a_refusal_that_only_the_stopped_task_shows_is_read_as_one_of_run_task(before: str, reason: str, passing: bool):
    stopped = Answer(ONE, lastStatus="STOPPED", stopCode="TaskFailedToStart", stoppedReason=before + reason)
    (task,) = asyncio.run(ecs.tasks(cast(AWS, stopped), "pool", ["any"])).values()
    assert (task.stopped, task.placed, task.passing, task.aws_failed) == (True, False, passing, True)


def test_container_insights_are_off_in_an_account_that_turns_them_on(aws: LocalAWS) -> None:
    aws.client("ecs").put_account_setting_default(name="containerInsights", value="enhanced")
    aws.client("ecs").create_cluster(clusterName="of-others")
    ours = AWS(session=aws.session())
    asyncio.run(ecs.ensure_cluster(ours, "ours", {}, Settings().storage.container_insights))
    ours.close()
    shown = aws.client("ecs").describe_clusters(clusters=["of-others", "ours"], include=["SETTINGS"])["clusters"]
    assert {one["clusterName"]: one["settings"][0]["value"] for one in shown} == {
        "of-others": "enhanced",
        "ours": "disabled",
    }
