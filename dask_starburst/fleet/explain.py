"""What went wrong, in a sentence: the facts, AWS's text, the next step."""

from __future__ import annotations

from collections.abc import Iterable

from dask_starburst.plan.offerings import Refusal
from dask_starburst.plan.state import HEAD, Group, Instance, Worker

#: What to do about a launch that AWS refuses.
_NEXT = {
    "capacity": "Allow more types with instance_types=[…], or on-demand ones with"
    ' spot_policy="spot_with_fallback" or "on-demand".',
    "quota": "Look with `starburst quota status`, and ask AWS for a higher vCPU quota of EC2 in Service Quotas with"
    " `starburst quota request`; or use smaller or fewer workers.",
    "fault": "That is a fault in the request or in the account, which waiting does not mend.",
}


_HINTS = (
    (("unable to pull secrets",), "The execution role must be allowed ssm:GetParameters on /starburst/*."),
    (
        ("CannotPull", "pull"),
        "Check image= and that the execution role may pull it. ECR deletes images whose time is over:"
        " `starburst image list` shows those that it has.",
    ),
    (
        ("exec format error",),
        "The image is built for another architecture: give arch= of the image, or build it for both.",
    ),
    (("OutOfMemory",), "It was killed, most often for lack of memory: give a larger worker=."),
    (
        ("No module named",),
        "The image lacks a package that the cluster needs: it must hold dask_starburst and the"
        " versions of dask and distributed that you use.",
    ),
    (("InsufficientInstanceCapacity", "sufficient", "fulfill"), _NEXT["capacity"]),
    (("MaxSpotInstanceCountExceeded", "VcpuLimitExceeded", "vCPU"), _NEXT["quota"]),
    (("did not join",), "Look at its log with cluster.get_logs()."),
)
#: How many of the last log lines an error quotes.
LOG_LINES = 20


def hint(text: str) -> str:
    """Return the next step for a failure with this text; empty when we know none."""
    return next((advice for words, advice in _HINTS if any(w in text for w in words)), "")


def launch_refused(refusal: Refusal, group: Group | None, refusals: Iterable[Refusal]) -> str:
    """Say that AWS did not launch an instance: its own words, what else was tried, the next step."""
    market = "on-demand" if refusal.group == HEAD else refusal.group
    what = f"no {market} {refusal.type or 'instance'}"
    failed = {r.type for r in refusals if r.group == refusal.group and r.type}
    allowed = group.allowed if group else ()
    tried = f"; {len(failed)} of {len(allowed)} allowed types have failed lately" if failed and len(allowed) > 1 else ""
    left = len(allowed) > len(failed) > 0
    following = "AWS tries the others now." if left else _NEXT[refusal.kind]
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


def failure(worker: Worker, reason: str, lines: list[str], attempts: int) -> str:
    """Say that an attempt to start a process failed, and whether another follows."""
    who = "the scheduler" if worker.group == HEAD else f"worker {worker.name}"
    tail = "".join(f"\n    {line}" for line in lines[-LOG_LINES:])
    again = ", trying again" if worker.attempt + 1 < attempts else ""
    count = f"attempt {worker.attempt + 1} of {attempts}{again}"
    message = f"{who} could not be started ({count}): {reason.rstrip('.')}."
    if advice := hint(reason + tail) or (_NEXT["fault"] if worker.unserved else ""):
        message += f" {advice}"
    return message + (f" Its last log lines:{tail}" if tail else "")
