"""Ask the questions one after the other, within the cost cap, and leave nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from dask_starburst.errors import (
    AWSError,
    CapacityUnavailable,
    LeaseExpired,
    PermissionDenied,
    QuotaExceeded,
    SchedulerFailed,
    StarburstError,
    WorkerFailed,
)
from dask_starburst.fleet.pool import discovery
from dask_starburst.verify.clusters import LEAST
from dask_starburst.verify.model import Answer, Context, Question

#: Seconds that one question may take.
_LONGEST = 1200.0
#: Failures that come from the account.
_FROM_AWS = (
    AWSError,
    PermissionDenied,
    CapacityUnavailable,
    QuotaExceeded,
    SchedulerFailed,
    WorkerFailed,
    LeaseExpired,
)


@dataclass(frozen=True, slots=True)
class Result:
    """A question and its answer."""

    question: Question
    answer: Answer


async def verify(context: Context, questions: tuple[Question, ...]) -> list[Result]:
    """Ask all questions, and delete the pools that they used.

    A question that fails is answered with its error, and the others go on.

    Parameters
    ----------
    context : Context
        What they are asked with.
    questions : tuple of Question
        Asked in this order.
    """
    results = []
    try:
        for question in questions:
            context.say(f"{question.name}: {question.title}")
            results.append(Result(question, await _ask(context, question)))
    finally:
        await _clean_up(context)
    return results


async def _ask(context: Context, question: Question) -> Answer:
    if question.needs_pool and not context.pool:
        return Answer(("not asked: no cluster has started",), None)
    if context.left < LEAST:
        return Answer((f"not asked: ${context.spent:.2f} of ${context.max_cost:.2f} are spent",), None)
    try:
        async with asyncio.timeout(_LONGEST):
            return await question.ask(context)
    except TimeoutError:
        return Answer((f"no answer within {_LONGEST:.0f} s",), None)
    except _FROM_AWS as error:
        return Answer((f"failed: {error}",), False)
    except StarburstError as error:  # what is missing here, or wrong in the settings, says nothing about AWS
        return Answer((f"failed: {error}",), None)


async def _clean_up(context: Context) -> None:
    """Delete the pools of the questions, which no other cluster uses because of their tags."""
    for pool in sorted(context.pools):
        context.say(f"deleting {pool}")
        try:
            await discovery.delete(context.aws, pool)
        except StarburstError as error:
            context.say(
                f"{pool} is left, and its lease empties it: {error}. To delete it: starburst pool delete {pool}"
            )
