"""Stopped instances of a warm pool: why not Spot, what they cost, and how large a group they need."""

from __future__ import annotations

from collections.abc import Mapping

from dask_starburst.catalog import EBS_GP3_GB_MONTH
from dask_starburst.plan.state import Action, Group, SetDesired, SetMaximum


def usd_per_month(count: int, volume_gib: int) -> float:
    """Return what so many stopped instances cost a month: their gp3 volumes, and nothing else (aws-facts §7)."""
    return EBS_GP3_GB_MONTH * volume_gib * count


def price(count: int, volume_gib: int) -> str:
    """Say how many instances are stopped, and what they cost a month."""
    volumes = f"{volume_gib} GB each" if count > 1 else f"{volume_gib} GB"
    return f"{count} stopped, ${usd_per_month(count, volume_gib):.2f} a month for {volumes}"


def promise(kind: str, count: int, volume_gib: int) -> str:
    """Say what stopped instances cost as long as the cluster lives."""
    return (
        f"instances of {kind} are kept while the cluster lives: {price(count, volume_gib)}; each runs on demand until"
        " it has booted once"
    )


def fit(group: Group, seen: Group, scaled: list[Action], stopped: Mapping[str, int]) -> list[SetMaximum]:
    """Lower the maximum of a group that has become smaller, so that no more than `stopped` are kept for it.

    AWS keeps as many as the maximum is above the desired capacity. The maximum never goes below what is
    desired, or may be by now: AWS would terminate instances of its own choice.

    Parameters
    ----------
    group, seen : Group
        As AWS says, and as it will be once what was asked for has happened.
    scaled : list of Action
        What is being asked for; an order brings its own maximum.
    stopped : mapping of str to int
        How many are kept, by group.
    """
    if group.name not in stopped or any(isinstance(action, SetDesired) for action in scaled):
        return []
    maximum = max(group.desired, seen.desired) + stopped[group.name]
    return [SetMaximum(group.name, maximum)] if group.maximum > maximum else []
