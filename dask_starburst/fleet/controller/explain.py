"""Explain a failure in a sentence: the facts, AWS's text, the next step."""

from __future__ import annotations

from collections.abc import Iterable

from dask_starburst.aws import faults
from dask_starburst.errors import CapacityUnavailable, StarburstError, WorkerFailed
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.state import Limits, ScalingGroup, Worker
from dask_starburst.plan.loop.worker import by_itself, rest_of

#: The beginning of our own reasons, and the next step.
_OURS = {"did not join within": "Look at its log with cluster.get_logs()."}
#: The log is the user's: it is quoted, but never matched against AWS's error words.
_PROCESS = (
    "The process exited; its last log lines say why. `exec format error`: the image is built for another"
    " architecture; give arch= of the image, or build it for both. `No module named`: the image lacks a package; it"
    " must hold dask_starburst and the versions of dask and distributed that you use."
)
#: The number of last log lines that an error quotes.
LOG_LINES = 20


def hint(reason: str) -> str:
    """Return the next step for a failure with this reason; empty if none is known."""
    found = faults.meaning(reason)
    if found is not None:
        return found.advice
    return next((advice for words, advice in _OURS.items() if reason.startswith(words)), "")


def launch_refused(refusal: Refusal, group: ScalingGroup | None, refusals: Iterable[Refusal]) -> str:
    """Return the message of a launch that AWS refused: AWS's text, what else was tried, the next step."""
    what = f"no {refusal.placement.market} {refusal.type or 'instance'}"
    failed = {r.type for r in refusals if r.placement == refusal.placement and r.type}
    allowed = group.allowed if group else ()
    tried = f"; {len(failed)} of {len(allowed)} allowed types have failed lately" if failed and len(allowed) > 1 else ""
    left = len(allowed) > len(failed) > 0
    following = "AWS is trying the others." if left else faults.launch_meaning(refusal.text).advice
    purpose = "the scheduler" if refusal.placement.is_head else "a worker"
    return f"{what} for {purpose}: {refusal.text.rstrip('.')}{tried}. {following}"


def failure(worker: Worker, reason: str, lines: list[str], attempts: int, then: str = "") -> str:
    """Return the message of an attempt to start a process that failed, and what follows."""
    tail = "".join(f"\n    {line}" for line in lines[-LOG_LINES:])
    retrying = ", retrying" if worker.attempt + 1 < attempts else ""
    count = f"attempt {worker.attempt + 1} of {attempts}{retrying}"
    message = f"{worker.label} failed to start ({count}): {reason.rstrip('.')}."
    advice = faults.launch_meaning(reason).advice if worker.unserved else hint(reason)
    if advice := advice or (_PROCESS if tail else ""):
        message += f" {advice}"
    message += f" {then}" if then else ""
    return message + (f" Its last log lines:{tail}" if tail else "")


def rest(worker: Worker, limits: Limits) -> str:
    """Return when a worker that was given up is retried."""
    minutes = f"{rest_of(worker, limits) / 60:g} minutes"
    when = f"in {minutes}" if by_itself(worker) else f"in {minutes} if the cluster adapts and has work for it"
    return f"It still counts as requested and is retried {when}; scale() retries it at once."


def given_up(worker: Worker, text: str) -> StarburstError:
    """Return the error of a worker that was given up, with the message `text`; its class follows AWS's reason."""
    lacking = worker.unserved and faults.launch_meaning(worker.reason).kind in ("capacity", "quota", "passing")
    return CapacityUnavailable(text) if lacking else WorkerFailed(text)
