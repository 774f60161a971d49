"""The look at the account's vCPU quotas before anything is launched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from dask_starburst.aws import service_quotas
from dask_starburst.aws.session import AWS
from dask_starburst.errors import QuotaExceeded, StarburstError
from dask_starburst.plan.requests.quotas import (
    CapacityRequest,
    Running,
    Verdict,
    evaluate,
    scheduler_shortfall,
    workers_shortfall,
)

T = TypeVar("T")

#: Seconds that a start waits for the answer once the account is set up. By then it is there, if AWS gives one.
PATIENCE = 5.0


class Tell(Protocol):
    """Where an event goes."""

    def __call__(self, kind: str, subject: str, message: str, level: int = ..., **facts: Any) -> None:
        """Emit one event."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """What AWS says that the account may run, and what runs. `unknown`: why it has not said it."""

    region: str
    limits: Mapping[str, float]
    running: tuple[Running, ...] = ()
    unknown: str = ""


async def run_alongside(
    work: Awaitable[T], aws: AWS, request: CapacityRequest, patience: float = PATIENCE
) -> tuple[T, Quotas]:
    """Return what some work returns, and what `look` has found meanwhile or finds within `patience` (seconds)."""
    looking = asyncio.ensure_future(look(aws, request))
    try:
        done = await work
        try:
            async with asyncio.timeout(patience):
                return done, await looking
        except TimeoutError:
            return done, Quotas(aws.region, {}, unknown=f"Service Quotas did not answer within {patience:g} s.")
    finally:
        looking.cancel()


async def look(aws: AWS, request: CapacityRequest) -> Quotas:
    """Ask for the quotas that a wish counts against; a refusal is no reason not to launch."""
    try:
        limits, running = await asyncio.gather(service_quotas.limits(aws, request.quotas), service_quotas.running(aws))
    except StarburstError as error:
        return Quotas(aws.region, {}, unknown=str(error))
    return Quotas(aws.region, limits, running)


def check(quotas: Quotas, request: CapacityRequest, pool: str, tell: Tell) -> None:
    """Refuse a wish of which nothing useful fits; warn of one that does not fit whole.

    Parameters
    ----------
    quotas : Quotas
        What `look` has found.
    wish : Wish
        What is to be launched.
    pool : str
        The pool that it is launched in, whose instances are part of the wish.
    tell : callable
        Is told what does not fit, or that nobody knows.

    Raises
    ------
    QuotaExceeded
        The scheduler does not fit, or not one of the workers that were asked for.
    """
    if quotas.unknown:
        text = f"the account's vCPU quotas are unknown, so nothing is checked against them: {quotas.unknown}"
        tell("quota-unknown", quotas.region, text)
        return
    verdict = evaluate(request, quotas.limits, quotas.running, pool)
    if not verdict.head_fits:
        raise _refusal(scheduler_shortfall(verdict, quotas.region), verdict, 0)
    room = verdict.room
    if request.count and not room:
        raise _refusal(f"{workers_shortfall(verdict, quotas.region)} Nothing was launched.", verdict, 0)
    if request.count > room:
        text = f"{workers_shortfall(verdict, quotas.region)} Until then the others wait."
        tell("quota-short", pool, text, logging.WARNING, workers=int(room), wanted=request.count)
    elif not room:
        tell("quota-short", pool, workers_shortfall(verdict, quotas.region), logging.WARNING, workers=0, wanted=0)


def _refusal(text: str, verdict: Verdict, workers: int) -> QuotaExceeded:
    standing = verdict.workers[0][0] if verdict.head_fits else verdict.head
    assert standing is not None
    return QuotaExceeded(text, quota=standing.quota.code, limit=standing.limit, used=standing.used, workers=workers)
