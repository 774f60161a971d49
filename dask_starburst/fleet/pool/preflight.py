"""Check the account's vCPU quotas before anything is launched."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterable, Mapping
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
    Standing,
    Verdict,
    evaluate,
    scheduler_shortfall,
    usage,
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
    work: Awaitable[T], aws: AWS, requests: Iterable[CapacityRequest], patience: float = PATIENCE
) -> tuple[T, Quotas]:
    """Run `work` and `fetch_quotas` concurrently and return both results; wait at most `patience` s for the quotas."""
    fetching = asyncio.ensure_future(fetch_quotas(aws, requests))
    try:
        done = await work
        try:
            async with asyncio.timeout(patience):
                return done, await fetching
        except TimeoutError:
            return done, Quotas(aws.region, {}, unknown=f"Service Quotas did not answer within {patience:g} s.")
    finally:
        fetching.cancel()


async def fetch_quotas(aws: AWS, requests: Iterable[CapacityRequest]) -> Quotas:
    """Return the quotas that the requests count against; a refused call does not prevent a launch."""
    applicable = dict.fromkeys(quota for request in requests for quota in request.quotas)
    try:
        limits, running = await asyncio.gather(service_quotas.limits(aws, applicable), service_quotas.running(aws))
    except StarburstError as error:
        return Quotas(aws.region, {}, unknown=str(error))
    return Quotas(aws.region, limits, running)


def standings(quotas: Quotas, requests: Iterable[CapacityRequest]) -> tuple[Standing, ...]:
    """Return the limit and use of each quota that the requests count against; empty if they are unknown."""
    applicable = dict.fromkeys(quota for request in requests for quota in request.quotas)
    used = usage(quotas.running)
    known = (quota for quota in applicable if quota.code in quotas.limits)
    return tuple(Standing(quota, quotas.limits[quota.code], used.get(quota.code, 0)) for quota in known)


def check(quotas: Quotas, requests: Iterable[CapacityRequest], pool: str, emit: Emit) -> None:
    """Refuse a launch if not even one worker of a group fits; emit a warning if only some workers fit.

    Parameters
    ----------
    quotas : Quotas
        The result of `fetch_quotas`.
    requests : iterable of CapacityRequest
        The capacity to be launched, by group.
    pool : str
        The pool to launch in; its running instances are part of the requests.
    emit : callable
        Receives an event if a request does not fit, or if the quotas are unknown.

    Raises
    ------
    QuotaExceeded
        The scheduler does not fit, or not one of the requested workers of a group.
    """
    if quotas.unknown:
        emit(QuotaUnknown(region=quotas.region, why=quotas.unknown))
        return
    others: Counter[str] = Counter()
    for request in requests:
        _check_group(evaluate(request, quotas.limits, quotas.running, pool, others), quotas.region, pool, emit)
        others += request.vcpus()


def _check_group(verdict: Verdict, region: str, pool: str, emit: Emit) -> None:
    request, room = verdict.request, verdict.room
    if not verdict.head_fits:
        raise _refusal(scheduler_shortfall(verdict, region), verdict, 0)
    if request.count and not room:
        raise _refusal(f"{workers_shortfall(verdict, region)} Nothing was launched.", verdict, 0)
    if request.count > room or not room:
        text = workers_shortfall(verdict, region)
        emit(QuotaShort(pool=pool, workers=int(room), requested=request.count, text=text))


def _refusal(text: str, verdict: Verdict, workers: int) -> QuotaExceeded:
    standing = verdict.workers[0][0] if verdict.head_fits else verdict.head
    assert standing is not None
    return QuotaExceeded(text, quota=standing.quota.code, limit=standing.limit, used=standing.used, workers=workers)
