"""Recent launches that AWS refused, and what is left to try: instance types, then markets.

As in Karpenter, an offering that failed is not requested again for three minutes. By then AWS may have
capacity again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dask_starburst.plan.groups import Placement

#: Seconds for which a refusal is remembered, as in Karpenter.
REFUSAL_TTL = 180.0

#: Maximum seconds after a refusal until an instance of the same launch appears.
LAUNCH_SLACK = 10.0

#: Why AWS launched nothing: no capacity, the account's quota is used up, the request is invalid, or a passing fault
#: of AWS (a throttle, an internal error).
Kind = Literal["capacity", "quota", "fault", "passing"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One launch that AWS refused.

    Parameters
    ----------
    placement : Placement
        Where it was refused.
    kind : {"capacity", "quota", "fault", "passing"}
        Reason.
    text : str
        Message of AWS.
    at : float
        Time in seconds, AWS's clock.
    type : str
        Instance type; empty if the refusal is about the whole placement.
    """

    placement: Placement
    kind: Kind
    text: str
    at: float
    type: str = ""


def remember(
    known: Iterable[Refusal], new: Iterable[Refusal], launched: Mapping[Placement, float], now: float
) -> tuple[Refusal, ...]:
    """Return the refusals that still apply.

    Parameters
    ----------
    known, new : iterable of Refusal
        Earlier and new refusals.
    launched : mapping of Placement to float
        Launch time of each placement's youngest instance. It ends earlier refusals of the whole placement.
    now : float
        Seconds, AWS's clock.
    """
    # The instances of a launch that partly failed appear a moment later.
    over = {placement: at - LAUNCH_SLACK for placement, at in launched.items()}
    latest = {(r.placement, r.type): r for r in sorted((*known, *new), key=lambda r: r.at)}
    return tuple(
        r for r in latest.values() if now - r.at < REFUSAL_TTL and (r.type or r.at >= over.get(r.placement, r.at))
    )


def launchable(allowed: Sequence[str], refusals: Iterable[Refusal], placement: Placement) -> tuple[str, ...]:
    """Return the types that a placement should launch now; all allowed ones if each has failed."""
    failed = {r.type for r in refusals if r.placement == placement}
    return tuple(t for t in allowed if t not in failed) or tuple(allowed)


def closed(allowed: Collection[str], refusals: Iterable[Refusal], placement: Placement) -> Refusal | None:
    """Return the newest refusal if no type is left to try in the placement, else None.

    Parameters
    ----------
    allowed : collection of str
        The types that the placement may launch.
    refusals : iterable of Refusal
        Those that still apply.
    placement : Placement
        The placement.
    """
    mine = [r for r in refusals if r.placement == placement]
    whole = [r for r in mine if not r.type or r.kind != "capacity"]
    failed = {r.type for r in mine}
    against = whole or (mine if allowed and failed.issuperset(allowed) else [])
    return max(against, key=lambda r: r.at, default=None)
