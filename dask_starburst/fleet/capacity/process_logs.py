"""Read the log of a process, also of an ended one."""

from __future__ import annotations

from dask_starburst.aws import logs
from dask_starburst.errors import StarburstError
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.loop.state import SCHEDULER, Worker
from dask_starburst.plan.requests.tasks import LOG_GROUP


async def tail(pool: Pool, worker: Worker, lines: int) -> list[str]:
    """Return the newest log lines of a process; if AWS refuses, one line that says why."""
    role = SCHEDULER if worker.is_scheduler else "worker"
    stream = f"{pool.name}/{role}/{(worker.task or '').rpartition('/')[2]}"
    try:
        return await logs.tail(pool.aws, LOG_GROUP, stream, lines)
    except StarburstError as error:
        return [f"(its log cannot be read: {error})"]
