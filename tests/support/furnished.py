"""An account with the resources of clusters, made by our own code without a cluster."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from dask_starburst.aws import ecr, ecs, ssm
from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.fleet.blueprint import available_types, blueprint
from dask_starburst.fleet.pool import claims
from dask_starburst.fleet.pool.account import set_up
from dask_starburst.fleet.pool.pool import claim, make
from dask_starburst.local import LocalAWS
from dask_starburst.plan.requests.policies import MANAGED_TAG, NAMESPACE
from dask_starburst.plan.requests.pool import PoolNames
from dask_starburst.settings import Settings

T = TypeVar("T")
CALLER = "198.51.100.7/32"


def ask(account: LocalAWS, work: Callable[[AWS], Awaitable[T]]) -> T:
    """Run a function with a session of its own, whose rate limits are unused."""

    async def run() -> T:
        aws = AWS(session=account.session())
        try:
            return await work(aws)
        finally:
            aws.close()

    return asyncio.run(run())


def furnish(account: LocalAWS, *, in_use: bool = False) -> str:
    """Make every kind of resource that a cluster with an image leaves; return the name of its pool."""
    return ask(account, lambda aws: _furnish(aws, in_use))


async def _furnish(aws: AWS, in_use: bool) -> str:
    patience = Patience(60.0, lambda event: None)
    settings = Settings.load(region=aws.region, arch="arm64", n_workers=1)
    plan = blueprint(settings, "")
    made = await set_up(aws, settings, plan.types, patience)
    spec = available_types(plan, made).spec(made)
    names = PoolNames(spec.pool_name(int(in_use)))
    session = uuid.uuid4().hex
    assert await claim(aws, names, session, made.caller)
    pool = await make(aws, spec, names, session, CALLER, (8786,), patience)
    await ssm.put_secret(aws, names.secret, "x")
    for role in ("scheduler", "worker"):
        await ecs.ensure_definition(aws, _definition(names.family(role)), pool.tags)
    await ecr.ensure_repository(aws, settings.build.repository, {MANAGED_TAG: NAMESPACE}, 30)
    if in_use:
        await pool.open(1, aws.now() + 1800, patience)
    else:
        await claims.free(aws, names)
    return pool.name


def _definition(family: str) -> dict[str, Any]:
    container = {"name": "dask", "image": "dask", "memory": 128, "essential": True}
    return {"family": family, "containerDefinitions": [container], "requiresCompatibilities": ["EC2"]}
