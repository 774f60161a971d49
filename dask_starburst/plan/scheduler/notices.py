"""What AWS says before it takes a Spot instance, read and turned into seconds."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

#: AWS takes the instance: ``terminate``, ``stop`` or ``hibernate``.
INTERRUPTION = "interruption"
#: AWS says that the instance is at a higher risk of that. The client decides what comes of it.
REBALANCE = "rebalance"
#: The container was told to end (SIGTERM): a task was stopped, a host shuts down.
STOP = "stop"
KINDS = (INTERRUPTION, REBALANCE, STOP)
#: What a client says in place of AWS's own word when it sees ECS drain the instance.
DRAINING = "draining"
#: What the scheduler answers to a notice that it has taken.
ACCEPTED = "taken"

#: Where instance metadata has them; 404 as long as there is nothing to say
#: (EC2 User Guide: spot-instance-termination-notices.html, rebalance-recommendations.html).
ACTION_PATH = "latest/meta-data/spot/instance-action"
REBALANCE_PATH = "latest/meta-data/events/recommendations/rebalance"

#: How long before the interruption AWS says so (seconds; the same page).
NOTICE_SECONDS = 120.0
#: Seconds between two looks. AWS advises five; a notice is worth more.
POLL_INTERVAL = 2.0
#: A worker is gone so many seconds before the end, whatever it still holds: Dask then knows at once what to
#: compute again, in place of finding out by a connection that hangs.
MARGIN = 15.0


@dataclass(frozen=True, slots=True)
class Notice:
    """What was said: one of `KINDS`, how many seconds are left, and AWS's own word for what it will do."""

    kind: str
    seconds: float
    action: str = ""


def read_action(body: str, now: float) -> Notice:
    """Return what ``spot/instance-action`` says.

    Parameters
    ----------
    body : str
        JSON such as ``{"action": "terminate", "time": "2026-09-18T08:22:00Z"}``.
    now : float
        The time by the metadata service's own clock, in seconds since 1970; the container's may be wrong.

    Raises
    ------
    ValueError
        It is nothing of the kind.
    """
    try:
        said = json.loads(body)
        action, when = str(said["action"]), datetime.fromisoformat(said["time"]).timestamp()
    except (KeyError, TypeError) as error:
        raise ValueError(f"this is no Spot notice: {body[:200]!r}") from error
    return Notice(INTERRUPTION, seconds_left(when - now), action)


def seconds_left(seconds: float) -> float:
    """Return how long a notice allows, from what two clocks make of it.

    They disagree if that is over, or longer than AWS ever gives. Then only AWS's promise is left, less the
    time in which nobody looked.
    """
    return seconds if 0 <= seconds <= NOTICE_SECONDS else NOTICE_SECONDS - POLL_INTERVAL
