"""Questions to Auto Scaling: terminating instances of which one is still pending (R18)."""

from __future__ import annotations

import asyncio

from dask_starburst.aws import autoscaling, inspection
from dask_starburst.errors import StarburstError
from dask_starburst.verify.clusters import small_cluster, workers_group
from dask_starburst.verify.model import Answer, Context, Question

#: Seconds to wait for an instance in the state Pending.
_LAUNCHES = 60.0


async def _mixed(context: Context) -> Answer:
    async with small_cluster(context) as cluster:
        group = (await workers_group(context)).name
        await cluster.scale(2)
        states = await _until_pending(context, group)
        pending = [instance for instance, state in states.items() if state.startswith("Pending")]
        ready = [instance for instance, state in states.items() if state == "InService"]
        if not pending or not ready:
            return Answer((f"no instance was seen in the state Pending: {sorted(states.values())}",), None)
        try:
            await autoscaling.terminate(context.aws, group, [ready[0], pending[0]])
            said = "accepted"
        except StarburstError as error:
            said = f"refused: {error}"
        after = await inspection.lifecycle_states(context.aws, group)
    seen = (
        f"terminating an InService and a Pending instance in one call is {said}",
        f"the InService instance is {after.get(ready[0], 'gone')} after it",
        f"the Pending instance is {after.get(pending[0], 'gone')} after it",
    )
    return Answer(seen, True)


async def _until_pending(context: Context, group: str) -> dict[str, str]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _LAUNCHES
    while True:
        states = await inspection.lifecycle_states(context.aws, group)
        if any(state.startswith("Pending") for state in states.values()) or loop.time() > deadline:
            return states
        await asyncio.sleep(0.2)


QUESTIONS = (
    Question(
        "terminate-pending",
        "Can one call terminate instances of which one is still Pending (R18)?",
        "Either; if the call is refused, dask_starburst terminates them one by one.",
        _mixed,
    ),
)
