"""Questions to the first start: what AWS does not show yet, tags, and what an instance registers."""

from __future__ import annotations

from dask_starburst.aws import inspection
from dask_starburst.catalog import find
from dask_starburst.cluster.starburst import StarburstCluster
from dask_starburst.events.aws import StartDelayed
from dask_starburst.events.pool import RolesUnseen
from dask_starburst.events.workers import WorkerDelayed, WorkerReady, WorkerStartFailed
from dask_starburst.plan.requests.policies import MANAGED_TAG
from dask_starburst.plan.requests.sizing import task_memory
from dask_starburst.verify.clusters import TAGS, small_cluster, warm_hosts, workers_group
from dask_starburst.verify.model import Answer, Context, Question

#: Events of a start that was held up.
_HELD_UP = (StartDelayed, RolesUnseen, WorkerStartFailed, WorkerDelayed)


async def _start(context: Context) -> Answer:
    """Start a cluster, compute something, and leave its instances warm for the next questions."""
    async with small_cluster(context) as cluster:
        events = [event for event in cluster.events if isinstance(event, _HELD_UP)]
        seconds = _first_ready(cluster)
    seen = (f"the first worker was ready {seconds:.0f} s after it was requested", *(str(event) for event in events))
    return Answer(seen, not any(isinstance(event, WorkerStartFailed) for event in events))


def _first_ready(cluster: StarburstCluster) -> float:
    """Return the seconds from the request of the first worker to the moment that it was ready."""
    return next(event.seconds for event in cluster.events if isinstance(event, WorkerReady))


async def _tags(context: Context) -> Answer:
    group = await workers_group(context)
    lives = await inspection.instance_tags(context.aws, [instance for instance, _ in group.staying])
    seen = tuple(f"{key}={value}" for tags in lives.values() for key, value in sorted(tags.items()))
    expected = {MANAGED_TAG: context.pool, **TAGS}
    return Answer(seen, bool(lives) and all(expected.items() <= tags.items() for tags in lives.values()))


async def _memory(context: Context) -> Answer:
    hosts = await inspection.registered(context.aws, context.pool)
    seen, fits = [], bool(hosts)
    for host in hosts:
        expected = task_memory(find(host.type))
        fits = fits and host.memory >= expected and host.provider.startswith(context.pool)
        seen.append(
            f"{host.type}: MEMORY {host.memory} MiB, at least {expected} expected; capacityProviderName"
            f" {host.provider or 'absent'}"
        )
    return Answer(tuple(seen), fits)


async def _reuse(context: Context) -> Answer:
    """Start on the warm pool three times, each time as soon as the cluster before has closed."""
    seen, same = [], True
    for _ in range(3):
        warm, pool = len(await warm_hosts(context)), context.pool
        async with small_cluster(context) as cluster:
            seconds = _first_ready(cluster)
            claimed = context.pool
        same = same and pool == claimed
        seen.append(
            f"{warm} warm instances; claimed {'the same' if pool == claimed else 'another'} pool;"
            f" the worker was ready after {seconds:.0f} s"
        )
    return Answer(tuple(seen), same)


QUESTIONS = (
    Question(
        "start",
        "Does a start wait for what AWS does not show yet (R2, R3)?",
        "It may be delayed, and does not fail.",
        _start,
        needs_pool=False,
    ),
    Question(
        "tags",
        "Which tags does an instance have if the user gives a Name (R11)?",
        "The user's Name once, the pool's tag, and the user's other tags.",
        _tags,
    ),
    Question(
        "memory",
        "How much memory do instances register, and which capacity provider do they name?",
        "At least what tasks of that type reserve; the provider of their Auto Scaling group.",
        _memory,
    ),
    Question(
        "reuse",
        "Can a cluster claim the pool that another has just released (R9)?",
        "Yes, with its warm instances, three times in a row.",
        _reuse,
    ),
)
