"""Spot interruption notices: parsed, with the seconds that are left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

#: AWS interrupts the instance: ``terminate``, ``stop`` or ``hibernate``.
INTERRUPTION = "interruption"
#: AWS reports an elevated risk of interruption. The client decides what to do.
REBALANCE = "rebalance"
#: The container got SIGTERM: its task was stopped or its instance shuts down.
STOP = "stop"
KINDS = (INTERRUPTION, REBALANCE, STOP)
#: The action that a client sends when it sees ECS drain the instance.
DRAINING = "draining"
#: The scheduler's answer to a notice that it has accepted.
ACCEPTED = "accepted"

#: Metadata paths of the notices; 404 while there is none
#: (EC2 User Guide: spot-instance-termination-notices.html, rebalance-recommendations.html).
ACTION_PATH = "latest/meta-data/spot/instance-action"
REBALANCE_PATH = "latest/meta-data/events/recommendations/rebalance"

#: Seconds from the notice to the interruption (the same page).
NOTICE_SECONDS = 120.0
#: Polling interval in seconds. AWS recommends 5; a shorter one leaves more time to move data.
POLL_INTERVAL = 2.0
#: Seconds before the interruption at which a worker is closed, even if it still holds data: Dask then knows at once
#: what to recompute, rather than from a connection that hangs. Of a short notice it is a quarter.
MARGIN = 15.0
#: Seconds between SIGTERM and SIGKILL if the instance shuts down: Docker's own timeout, because Docker does not know
#: that of the task definition (docs.docker.com/reference/cli/docker/container/stop, "--timeout").
HOST_STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Notice:
    """A notice: one of `KINDS`, the seconds that are left, and AWS's action."""

    kind: str
    seconds: float
    action: str = ""


def read_action(body: str, now: float) -> Notice:
    """Parse ``spot/instance-action``.

    Parameters
    ----------
    body : str
        JSON such as ``{"action": "terminate", "time": "2026-09-18T08:22:00Z"}``.
    now : float
        The time by the metadata service's clock (seconds since the epoch); the container's clock may be wrong.

    Raises
    ------
    ValueError
        The body is not a valid notice.
    """
    try:
        said = json.loads(body)
        action, when = str(said["action"]), datetime.fromisoformat(said["time"]).timestamp()
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a valid Spot notice: {body[:200]!r}") from error
    return Notice(INTERRUPTION, seconds_left(when - now), action)


def margin_of(seconds: float, most: float = MARGIN) -> float:
    """Return how long before the end of a notice a worker is closed (seconds)."""
    return min(most, max(seconds, 0.0) / 4)


def seconds_left(seconds: float) -> float:
    """Return the seconds that a notice leaves, corrected for clocks that disagree.

    They disagree if the time has passed, or is longer than AWS gives. Then assume AWS's time less one polling interval.
    """
    return seconds if 0 <= seconds <= NOTICE_SECONDS else NOTICE_SECONDS - POLL_INTERVAL
