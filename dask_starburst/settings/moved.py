"""The old names of settings that have moved into a group. They work until version 0.1 is out."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any

from dask_starburst.errors import BadArgument
from dask_starburst.settings.given import as_mapping, as_name

#: The group and the name of each now.
MOVED = {
    "spot_policy": ("spot", "policy"),
    "spot_notices": ("spot", "notices"),
    "on_rebalance": ("spot", "on_rebalance"),
    "max_hourly_cost": ("money", "max_hourly_cost"),
    "max_total_cost": ("money", "max_total_cost"),
    "cost_alert_threshold": ("money", "cost_alert_threshold"),
    "idle_timeout": ("keep", "idle_timeout"),
    "no_client_timeout": ("keep", "no_client_timeout"),
    "warm": ("keep", "warm"),
    "warm_timeout": ("keep", "warm_timeout"),
    "lease": ("keep", "lease"),
    "ecr_image_ttl_days": ("build", "image_ttl_days"),
}


def typed(group: str, values: Mapping[str, Any]) -> str:
    """Return how to type settings of a group as an argument; `...` stands for a value."""
    pairs = (f"{name!r}: {'…' if value is ... else repr(value)}" for name, value in values.items())
    return f"{group}={{{', '.join(pairs)}}}"


def in_groups(values: Mapping[Any, Any], defaults: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return settings with those of old names in their groups, and warn of old names.

    Parameters
    ----------
    values : mapping
        The settings that were given, by name.
    defaults : mapping, optional
        The defaults that `values` contains, if it is a configuration. A default is not a value that was given.

    Raises
    ------
    BadArgument
        A setting was given by both names with different values.
    """
    moved = {as_name(key): value for key, value in values.items()}
    old = {name: moved.pop(name) for name in MOVED if name in moved}
    now: dict[str, dict[str, Any]] = {}
    for name, value in old.items():
        group, key = MOVED[name]
        now.setdefault(group, {})[key] = value
        given = as_mapping(group, moved.get(group, {}), f"{{{key!r}: {value!r}}}")
        below = {as_name(other): each for other, each in given.items()}
        if key in below and below[key] != value and not _is_default(defaults, group, key, below[key]):
            raise BadArgument(
                f"{name}={value!r} and {typed(group, {key: below[key]})} are the same setting; give only the second."
            )
        moved[group] = {**below, key: value}
    if old:
        _warn(list(old), now, configured=defaults is not None)
    return moved


def _is_default(defaults: Mapping[str, Any] | None, group: str, key: str, value: Any) -> bool:
    return defaults is not None and value == defaults[group][key.replace("_", "-")]


def _warn(old: list[str], now: Mapping[str, Mapping[str, Any]], *, configured: bool) -> None:
    if configured:
        names = ", ".join(f"starburst.{name.replace('_', '-')}" for name in old)
        instead = ", ".join(f"starburst.{'.'.join(MOVED[name])}".replace("_", "-") for name in old)
    else:
        names, instead = ", ".join(old), ", ".join(typed(group, values) for group, values in now.items())
    have = "has" if len(old) == 1 else "have"
    text = f"{names} {have} moved; give {instead} instead. The old way works until 0.1 is released."
    warnings.warn(text, FutureWarning, stacklevel=_callers_level())


def _callers_level() -> int:
    """Return the `stacklevel` of the first caller outside of this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "dask_starburst":
        level, frame = level + 1, frame.f_back
    return level
