"""Prewarm a pool: launch instances before a cluster needs them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace

from dask_starburst.aws import autoscaling, ecs
from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.errors import CapacityUnavailable
from dask_starburst.fleet.blueprint import Blueprint, available_types
from dask_starburst.fleet.pool import preflight, release, reuse
from dask_starburst.fleet.pool.account import set_up
from dask_starburst.fleet.pool.checkout import Checkout
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.groups import HEAD_PLACEMENT, Placement
from dask_starburst.plan.requests.reuse import Kept

Report = Callable[[str], None]


async def prewarm(aws: AWS, blueprint: Blueprint, workers: int, seconds: float, report: Report) -> tuple[str, Kept]:
    """Launch warm instances in a free pool of this specification: one a worker, and one for the scheduler.

    The pool is the one that the next cluster of these settings would claim. Surplus instances in it are terminated.

    Parameters
    ----------
    aws : AWS
        The account.
    blueprint : Blueprint
        The blueprint of the clusters that will use the pool.
    workers : int
        Number of instances for workers.
    seconds : float
        How long they are kept; then AWS empties the pool.
    report : callable
        Receives progress messages.

    Returns
    -------
    tuple of str and Kept
        The pool, and the instances that are kept in it.

    Raises
    ------
    QuotaExceeded
        The account's quotas do not allow them; nothing was launched.
    CapacityUnavailable
        No instance became ready in time; nothing is left running.
    """
    patience = Patience(blueprint.settings.timeouts.consistency, lambda event: report(event.message))
    setting_up = set_up(aws, blueprint.settings, blueprint.types, patience)
    account, quotas = await preflight.run_alongside(setting_up, aws, blueprint.requests())
    blueprint = available_types(blueprint, account)
    checkout = Checkout(aws, uuid.uuid4().hex, patience)

    def check(name: str) -> None:
        requests = blueprint.requests({blueprint.default.name: workers})
        preflight.check(quotas, requests, name, lambda event: report(event.message))

    spec, timeouts = blueprint.spec(account), blueprint.settings.timeouts
    try:
        # No caller is admitted: there is no scheduler yet to connect to.
        made = await checkout.run(spec, account.caller, workers, aws.now() + seconds, check)
    except BaseException:
        await release.attempt("releasing the pool", checkout.undo(timeouts.close, timeouts.poll))
        raise
    pool = replace(made, keeps=True)
    try:
        report(f"pool {pool.name}: launching warm instances")
        kept = await _fill(pool, blueprint, workers, seconds, report)
    except BaseException:  # Ctrl-C as well: terminate what was requested; if that fails, the lease does
        await release.attempt("emptying the pool", _undo(pool, blueprint))
        raise
    return pool.name, kept


async def _fill(pool: Pool, blueprint: Blueprint, workers: int, seconds: float, report: Report) -> Kept:
    timeouts = blueprint.settings.timeouts
    sizes = dict.fromkeys(pool.placements, 0)
    sizes |= {HEAD_PLACEMENT: 1, blueprint.default.placements[0]: workers}
    began = pool.aws.now()
    await pool.renew(began + seconds)
    there = await _instances(pool)
    # Surplus instances are terminated by id in the end: AWS would choose among all, and not at once.
    await asyncio.gather(*(pool.resize(each, max(size, len(there[each]))) for each, size in sizes.items()))
    await _connected(pool, sizes, timeouts.capacity + timeouts.connect, timeouts.poll, report)
    failures = await asyncio.gather(*(autoscaling.failures(pool.aws, name, began) for name in pool.group_names))
    for text in dict.fromkeys(text for some in failures for text, _ in some):
        report(f"AWS failed to launch an instance: {text}")
    kept = await reuse.keep(pool, seconds, timeouts.close, timeouts.poll, most=sizes)
    if kept is None:
        raise CapacityUnavailable(
            f"no instance of pool {pool.name} connected to ECS within {timeouts.capacity + timeouts.connect:g} s; run"
            " `starburst pool warm` again, or allow other instance types."
        )
    return kept


async def _instances(pool: Pool) -> dict[Placement, list[str]]:
    """Return the instances of each placement that are not terminating."""
    found = await autoscaling.describe(pool.aws, pool.group_names)
    return {each: [instance for instance, _ in found[pool.names.group(each)].staying] for each in pool.placements}


async def _ready(pool: Pool, sizes: Mapping[Placement, int]) -> int:
    """Return how many of the requested instances accept tasks; surplus ones of a placement do not count."""
    hosts, there = await asyncio.gather(ecs.hosts(pool.aws, pool.name), _instances(pool))
    ready = {host.instance for host in hosts if host.ready}
    return sum(min(size, len(ready.intersection(there[each]))) for each, size in sizes.items())


async def _connected(pool: Pool, sizes: Mapping[Placement, int], patience: float, poll: float, report: Report) -> None:
    """Wait until the requested instances accept tasks, or for as long as a cluster would wait for them."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    count, reported = sum(sizes.values()), -1
    while True:
        ready = await _ready(pool, sizes)
        if ready != reported:
            report(f"{ready} of {count} instances are ready")
        reported = ready
        if ready >= count or loop.time() > deadline:
            return
        await asyncio.sleep(poll)


async def _undo(pool: Pool, blueprint: Blueprint) -> None:
    timeouts = blueprint.settings.timeouts
    await release.empty_pool(pool, timeouts.close, timeouts.poll)
