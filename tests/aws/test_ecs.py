"""ECS's answers as values of the fleet."""

from __future__ import annotations

import asyncio
from typing import Any, cast

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
