"""Check the account's vCPU quotas before anything is launched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from dask_starburst.aws import service_quotas
from dask_starburst.aws.session import AWS
from dask_starburst.errors import QuotaExceeded, StarburstError
from dask_starburst.events.capacity import QuotaShort, QuotaUnknown
from dask_starburst.events.stream import Emit
from dask_starburst.plan.requests.quotas import (
    CapacityRequest,
    Running,
    Verdict,
    evaluate,
    scheduler_shortfall,
    workers_shortfall,
)

T = TypeVar("T")

#: Seconds that a start waits for the quotas once the account is set up. Usually they have arrived by then.
PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Quotas:
    """The account's quotas and the instances that count against them. `unknown`: why they could not be read."""

    region: str
    limits: Mapping[str, float]
    running: tuple[Running, ...] = ()
    unknown: str = ""


async def run_alongside(
    work: Awaitable[T], aws: AWS, request: CapacityRequest, patience: float = PATIENCE
) -> tuple[T, Quotas]:
    """Run `work` and `fetch_quotas` concurrently and return both results; wait at most `patience` s for the quotas."""
    fetching = asyncio.ensure_future(fetch_quotas(aws, request))
    try:
        done = await work
        try:
            async with asyncio.timeout(patience):
                return done, await fetching
        except TimeoutError:
            return done, Quotas(aws.region, {}, unknown=f"Service Quotas did not answer within {patience:g} s.")
    finally:
        fetching.cancel()


async def fetch_quotas(aws: AWS, request: CapacityRequest) -> Quotas:
    """Return the quotas that a request counts against; a refused call does not prevent a launch."""
    try:
        limits, running = await asyncio.gather(service_quotas.limits(aws, request.quotas), service_quotas.running(aws))
    except StarburstError as error:
        return Quotas(aws.region, {}, unknown=str(error))
    return Quotas(aws.region, limits, running)


def check(quotas: Quotas, request: CapacityRequest, pool: str, emit: Emit) -> None:
    """Refuse a request if not even one worker fits; emit a warning if only some workers fit.

    Parameters
    ----------
    quotas : Quotas
        The result of `fetch_quotas`.
    request : CapacityRequest
        The capacity to be launched.
    pool : str
        The pool to launch in; its running instances are part of the request.
    emit : callable
        Receives an event if the request does not fit, or if the quotas are unknown.

    Raises
    ------
    QuotaExceeded
        The scheduler does not fit, or not one of the requested workers.
    """
    if quotas.unknown:
        emit(QuotaUnknown(region=quotas.region, why=quotas.unknown))
        return
    verdict = evaluate(request, quotas.limits, quotas.running, pool)
    if not verdict.head_fits:
        raise _refusal(scheduler_shortfall(verdict, quotas.region), verdict, 0)
    room = verdict.room
    if request.count and not room:
        raise _refusal(f"{workers_shortfall(verdict, quotas.region)} Nothing was launched.", verdict, 0)
    if request.count > room or not room:
        text = workers_shortfall(verdict, quotas.region)
        emit(QuotaShort(pool=pool, workers=int(room), requested=request.count, text=text))


def _refusal(text: str, verdict: Verdict, workers: int) -> QuotaExceeded:
    standing = verdict.workers[0][0] if verdict.head_fits else verdict.head
    assert standing is not None
    return QuotaExceeded(text, quota=standing.quota.code, limit=standing.limit, used=standing.used, workers=workers)
