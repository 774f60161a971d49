"""Questions to RunTask: when it places tasks, and where it tells that it cannot (R1)."""

from __future__ import annotations

import asyncio
from typing import Any

from dask_starburst.aws import ecs, inspection
from dask_starburst.errors import StarburstError
from dask_starburst.plan.requests.pool import PoolNames
from dask_starburst.verify.clusters import warm_hosts, workers_group
from dask_starburst.verify.model import Answer, Context, Question

#: Seconds to follow one task.
_FOLLOW = 60.0
#: Of an instance that is large enough for the task, and of one that no instance is.
_FITS, _TOO_LARGE = "256", "1000000"


async def _placed(context: Context) -> Answer:
    """Run a task where there is room, by capacity provider and by launch type."""
    seen = []
    for what, request in (await _ways(context)).items():
        seen += [f"{what}: {line}" for line in await _run(context, request, _FITS)]
    return Answer(tuple(seen), any("containerInstanceArn given" in line for line in seen))


async def _refused(context: Context) -> Answer:
    """Run a task for which no instance has the memory."""
    seen = []
    for what, request in (await _ways(context)).items():
        seen += [f"{what}: {line}" for line in await _run(context, request, _TOO_LARGE)]
    return Answer(tuple(seen), any("MEMORY" in line for line in seen))


async def _ways(context: Context) -> dict[str, dict[str, Any]]:
    group, hosts = await workers_group(context), await warm_hosts(context)
    ours = {instance for instance, _ in group.staying}
    place = [f"'{host.instance}'" for host in hosts if host.instance in ours]
    only = {"type": "memberOf", "expression": f"ec2InstanceId in [{', '.join(place)}]"}
    return {
        "capacityProviderStrategy": {
            "capacityProviderStrategy": [{"capacityProvider": group.name, "weight": 1}],
            "placementConstraints": [only],
        },
        "launchType=EC2": {"launchType": "EC2", "placementConstraints": [only]},
    }


async def _run(context: Context, request: dict[str, Any], memory: str) -> list[str]:
    definition = await inspection.newest_definition(context.aws, PoolNames(context.pool).family("worker"))
    overrides = {"cpu": "128", "memory": memory}
    try:
        tasks, failures = await inspection.run_task(
            context.aws, context.pool, definition, overrides=overrides, startedBy="starburst-verify", **request
        )
    except StarburstError as error:
        return [f"RunTask is an error: {error}"]
    seen = [f"RunTask failures: {reason}" for reason in failures]
    for task in tasks:
        seen.append(f"RunTask: {_described(task)}")
        seen += await _follow(context, task["taskArn"])
    return seen


async def _follow(context: Context, task: str) -> list[str]:
    """Describe a task until it runs or has stopped, and stop it."""
    loop = asyncio.get_running_loop()
    seen: list[str] = []
    began = loop.time()
    while loop.time() < began + _FOLLOW:
        found = await inspection.describe_task(context.aws, context.pool, task)
        line = _described(found)
        if not seen or seen[-1].partition(": ")[2] != line:
            seen.append(f"DescribeTasks after {loop.time() - began:.0f} s: {line}")
        if found.get("lastStatus") in ("RUNNING", "STOPPED"):
            break
        await asyncio.sleep(1)
    await ecs.stop_task(context.aws, context.pool, task, "starburst verify")
    return seen


def _described(task: dict[str, Any]) -> str:
    if not task:
        return "not shown"
    place = "given" if task.get("containerInstanceArn") else "absent"
    why = ", ".join(str(task[key]) for key in ("stopCode", "stoppedReason") if task.get(key))
    return (
        f"lastStatus {task['lastStatus']}, containerInstanceArn {place}, {len(task.get('containers', []))} containers"
        f"{', ' if why else ''}{why}"
    )


QUESTIONS = (
    Question(
        "placement",
        "Is a task placed when RunTask returns (R1)?",
        "At once or some seconds later; then containerInstanceArn is given.",
        _placed,
    ),
    Question(
        "placement-refused",
        "Where does ECS tell that it cannot place a task (R1)?",
        "In RunTask's failures, or in DescribeTasks with stopCode TaskFailedToStart; the reason names MEMORY.",
        _refused,
    ),
)
