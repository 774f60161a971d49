"""Questions to what ends a cluster without its client: the scheduler's rights (R4) and the lease."""

from __future__ import annotations

import asyncio

from distributed.core import Status

from dask_starburst.aws import autoscaling, inspection
from dask_starburst.plan.requests.tasks import LOG_GROUP
from dask_starburst.verify.clusters import small_cluster, until, workers_group
from dask_starburst.verify.model import Answer, Context, Question

#: Seconds without work after which the scheduler ends its cluster, and to wait for that.
_IDLE, _ENDS = 45.0, 240.0
#: Seconds until the scheduled action; the latest that dask_starburst assumes it to be executed after that (aws-facts,
#: finding 8).
_AHEAD, _LATE = 90.0, 120.0
_ACTION = "starburst-verify"


async def _zero(context: Context) -> Answer:
    """Let the scheduler end its cluster, and read in its log whether AWS let it."""
    began = context.aws.now()
    async with small_cluster(context, keep={"idle_timeout": _IDLE, "warm_timeout": 0}) as cluster:
        await until(lambda: cluster.status in (Status.closed, Status.failed), _ENDS)
    lines = await inspection.log_lines(context.aws, LOG_GROUP, f"{context.pool}/scheduler/", began)
    said = [line for line in lines if "distributed.starburst" in line]
    done, failed = any("to zero" in line for line in said), any("AWS call failed" in line for line in said)
    return Answer(
        tuple(said) or ("the scheduler logged nothing: the client was first",), done if done or failed else None
    )


async def _lateness(context: Context) -> Answer:
    """Schedule an empty group's maximum to become zero; it launches nothing."""
    group = (await workers_group(context)).name
    at = int(context.aws.now() + _AHEAD)
    await inspection.schedule_maximum(context.aws, group, _ACTION, at)
    try:
        while context.aws.now() < at + _LATE:
            if (await autoscaling.describe(context.aws, [group], instances=False))[group].maximum == 0:
                late = max(0.0, context.aws.now() - at)
                return Answer((f"executed {late:.0f} s after its time, looked at every two seconds",), True)
            await asyncio.sleep(2)
        return Answer((f"not executed {_LATE:.0f} s after its time",), False)
    finally:
        await autoscaling.drop_lease(context.aws, group, _ACTION)
        await autoscaling.set_zero(context.aws, group)


QUESTIONS = (
    Question(
        "scheduler-zeroes",
        "May the scheduler's role set its Auto Scaling groups to zero (R4)?",
        "Yes; else it shortens their lease.",
        _zero,
    ),
    Question(
        "scheduled-action",
        "How late does Auto Scaling execute a scheduled action?",
        f"At most {_LATE:.0f} s after its time.",
        _lateness,
    ),
)
