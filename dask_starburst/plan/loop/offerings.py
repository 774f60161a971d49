"""What AWS has refused to launch lately, and what is left to try: types, then markets.

Karpenter's way: an offering that failed is not asked for again for three minutes; by then AWS may well
have it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

#: Seconds for which a refusal is believed, as long as Karpenter does.
REFUSAL_TTL = 180.0

#: So many seconds later at most an instance is seen that was launched together with one that was refused.
LAUNCH_SLACK = 10.0

#: Why AWS launched nothing: it has none now, the account may have no more, the request is wrong, or AWS itself failed
#: in a way that passes (a throttle, an internal error).
Kind = Literal["capacity", "quota", "fault", "passing"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """One launch that AWS refused.

    Parameters
    ----------
    group : str
        In which group.
    kind : {"capacity", "quota", "fault", "passing"}
        Why.
    text : str
        AWS's own words.
    at : float
        When (seconds, AWS's clock).
    type : str
        Which instance type; empty where the words speak of the whole group.
    """

    group: str
    kind: Kind
    text: str
    at: float
    type: str = ""


def remember(
    known: Iterable[Refusal], new: Iterable[Refusal], launched: dict[str, float], now: float
) -> tuple[Refusal, ...]:
    """Return the refusals that still count.

    Parameters
    ----------
    known, new : iterable of Refusal
        Those of before and those just learned of.
    launched : dict of str to float
        When each group got its youngest instance: what was said of a whole group before that is over.
    now : float
        Seconds, AWS's clock.
    """
    # A launch that partly failed shows its instances a moment later.
    over = {group: at - LAUNCH_SLACK for group, at in launched.items()}
    latest = {(r.group, r.type): r for r in sorted((*known, *new), key=lambda r: r.at)}
    return tuple(r for r in latest.values() if now - r.at < REFUSAL_TTL and (r.type or r.at >= over.get(r.group, r.at)))


def launchable(allowed: Sequence[str], refusals: Iterable[Refusal], group: str) -> tuple[str, ...]:
    """Return the types that a group had better launch now; all that are allowed when each has failed."""
    failed = {r.type for r in refusals if r.group == group}
    return tuple(t for t in allowed if t not in failed) or tuple(allowed)


def closed(allowed: Collection[str], refusals: Iterable[Refusal], group: str) -> Refusal | None:
    """Return what speaks against the whole group: the newest refusal, if nothing is left to try in it.

    Parameters
    ----------
    allowed : collection of str
        The types that the group may launch.
    refusals : iterable of Refusal
        Those that still count.
    group : str
        The group.
    """
    mine = [r for r in refusals if r.group == group]
    whole = [r for r in mine if not r.type or r.kind != "capacity"]
    failed = {r.type for r in mine}
    against = whole or (mine if allowed and failed.issuperset(allowed) else [])
    return max(against, key=lambda r: r.at, default=None)
