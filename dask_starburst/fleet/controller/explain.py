"""What went wrong, in a sentence: the facts, AWS's text, the next step."""

from __future__ import annotations

from collections.abc import Iterable

from dask_starburst.aws import faults
from dask_starburst.errors import CapacityUnavailable, StarburstError, WorkerFailed
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.state import HEAD, Group, Instance, Limits, Worker
from dask_starburst.plan.loop.worker import by_itself, rest_of

#: Our own words for what went wrong, and the next step.
_OURS = {"did not join within": "Look at its log with cluster.get_logs()."}
#: Its log is the user's own: it is quoted, and never read for words of AWS.
_PROCESS = (
    "The process ended by itself; its last log lines say why. `exec format error`: the image is built for another"
    " architecture; give arch= of the image, or build it for both. `No module named`: the image lacks a package; it"
    " must hold dask_starburst and the versions of dask and distributed that you use."
)
#: How many of the last log lines an error quotes.
LOG_LINES = 20


def hint(reason: str) -> str:
    """Return the next step for a failure with this reason, of AWS or of ours; empty when we know none."""
    found = faults.meaning(reason)
    if found is not None:
        return found.advice
    return next((advice for words, advice in _OURS.items() if reason.startswith(words)), "")


def launch_refused(refusal: Refusal, group: Group | None, refusals: Iterable[Refusal]) -> str:
    """Say that AWS did not launch an instance: its own words, what else was tried, the next step."""
    market = "on-demand" if refusal.group == HEAD else refusal.group
    what = f"no {market} {refusal.type or 'instance'}"
    failed = {r.type for r in refusals if r.group == refusal.group and r.type}
    allowed = group.allowed if group else ()
    tried = f"; {len(failed)} of {len(allowed)} allowed types have failed lately" if failed and len(allowed) > 1 else ""
    left = len(allowed) > len(failed) > 0
    following = "AWS tries the others now." if left else faults.launch_meaning(refusal.text).advice
    whom = "the scheduler" if refusal.group == HEAD else "a worker"
    return f"{what} for {whom}: {refusal.text.rstrip('.')}{tried}. {following}"


def instance_given_up(instance: Instance, reason: str) -> str:
    """Say why an instance is terminated that never did, or no longer does, what it is for."""
    text = f"instance {instance.id} ({instance.type}) is given up: {reason}; another one is asked for."
    if instance.seen:
        return text
    return (
        f"{text} If that goes on: can the subnet reach ECS (a public subnet, NAT or endpoints), and does the instance"
        " role allow ecs:RegisterContainerInstance?"
    )


def failure(worker: Worker, reason: str, lines: list[str], attempts: int, then: str = "") -> str:
    """Say that an attempt to start a process failed, and what follows."""
    who = "the scheduler" if worker.group == HEAD else f"worker {worker.name}"
    tail = "".join(f"\n    {line}" for line in lines[-LOG_LINES:])
    again = ", trying again" if worker.attempt + 1 < attempts else ""
    count = f"attempt {worker.attempt + 1} of {attempts}{again}"
    message = f"{who} could not be started ({count}): {reason.rstrip('.')}."
    advice = faults.launch_meaning(reason).advice if worker.unserved else hint(reason)
    if advice := advice or (_PROCESS if tail else ""):
        message += f" {advice}"
    message += f" {then}" if then else ""
    return message + (f" Its last log lines:{tail}" if tail else "")


def rest(worker: Worker, limits: Limits) -> str:
    """Say when a worker that was given up is tried again."""
    minutes = f"{rest_of(worker, limits) / 60:g} minutes"
    when = f"in {minutes}" if by_itself(worker) else f"in {minutes} if the cluster adapts and has work for it"
    return f"It counts as a requested worker and is tried again {when}; scale() tries it at once."


def given_up(worker: Worker, text: str) -> StarburstError:
    """Return the error of a worker that was given up, told by `text`; its class agrees with what AWS said."""
    lacking = worker.unserved and faults.launch_meaning(worker.reason).kind in ("capacity", "quota", "passing")
    return CapacityUnavailable(text) if lacking else WorkerFailed(text)
