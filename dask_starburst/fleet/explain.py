"""What went wrong, in a sentence: the facts, AWS's text, the next step."""

from __future__ import annotations

from dask_starburst.plan.state import HEAD, Worker

_HINTS = (
    (("unable to pull secrets",), "The execution role must be allowed ssm:GetParameters on /starburst/*."),
    (("CannotPull", "pull"), "Check image= and that the execution role may pull it."),
    (
        ("exec format error",),
        "The image is built for another architecture: give arch= of the image, or build it for both.",
    ),
    (("OutOfMemory", "137"), "It was killed, most often for lack of memory: give a larger worker=."),
    (
        ("No module named",),
        "The image lacks a package that the cluster needs: it must hold dask_starburst and the"
        " versions of dask and distributed that you use.",
    ),
    (
        ("InsufficientInstanceCapacity", "sufficient"),
        'Allow more types with instance_types=[…], or spot_policy="on-demand".',
    ),
    (
        ("MaxSpotInstanceCountExceeded", "VcpuLimitExceeded", "vCPU"),
        "Ask AWS for a higher vCPU quota, or use smaller or fewer workers.",
    ),
    (("did not join",), "Look at its log with cluster.get_logs()."),
)
#: How many of the last log lines an error quotes.
LOG_LINES = 20


def hint(text: str) -> str:
    """Return the next step for a failure with this text; empty when we know none."""
    return next((advice for words, advice in _HINTS if any(w in text for w in words)), "")


def failure(worker: Worker, reason: str, lines: list[str], attempts: int) -> str:
    """Say that an attempt to start a process failed, and whether another follows."""
    who = "the scheduler" if worker.group == HEAD else f"worker {worker.name}"
    tail = "".join(f"\n    {line}" for line in lines[-LOG_LINES:])
    again = ", trying again" if worker.attempt + 1 < attempts else ""
    count = f"attempt {worker.attempt + 1} of {attempts}{again}"
    message = f"{who} could not be started ({count}): {reason.rstrip('.')}."
    if advice := hint(reason + tail):
        message += f" {advice}"
    return message + (f" Its last log lines:{tail}" if tail else "")
