"""From what a user wrote, in a file or as arguments, to values of the right kinds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from dask.utils import parse_bytes, parse_timedelta

from dask_starburst.errors import BadArgument

T = TypeVar("T")
#: The groups of settings by the names of their classes.
Groups = Mapping[str, type[Any]]
#: Lists that may be empty, with what one may look like.
_LISTS = {
    "build.add": "['s3fs', 'scikit-learn>=1.7']",
    "build.exclude": "['jupyterlab', 'mypy']",
    "build.apt": "['libgeos-c1v5']",
}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one level of settings over another; hyphens are as good as underscores."""
    merged = {str(k).replace("-", "_"): v for k, v in base.items()}
    for key, value in over.items():
        key = key.replace("-", "_")
        if is_dataclass(value) and not isinstance(value, type):
            value = {f.name: getattr(value, f.name) for f in fields(value)}
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "tags":
            value = merge(merged[key], value)
        merged[key] = value
    return merged


def build(cls: type[T], values: Mapping[str, Any], groups: Groups, prefix: str = "") -> T:
    """Return the settings that `values` say.

    Raises
    ------
    BadArgument
        A name is not known, or a value of the wrong kind.
    """
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]  # every cls here is one
    converted = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; there are {', '.join(known)}."
            raise BadArgument(f"{prefix}{name} is not a setting{hint}")
        converted[name] = _convert(prefix + name, value, str(known[name].type), groups)
    return cls(**converted)


def _convert(name: str, value: Any, kind: str, groups: Groups) -> Any:
    if kind in groups:
        if not isinstance(value, Mapping):
            raise BadArgument(f"{name}={value!r} has to be a mapping of its settings.")
        return build(groups[kind], merge(value, {}), groups, f"{name}.")
    if value is None:
        if "None" not in kind and kind != "Any":
            raise BadArgument(f"{name}=None is not possible; give {_kind_in_words(kind)}, or leave it out.")
        return None
    if name in _MONEY:
        return _parse(name, value, "an amount in US dollars such as 2.5", _usd)
    if kind.startswith("float"):
        return parse_duration(name, value)
    if name == "worker.memory_limit":
        return _parse(name, value, "a size such as '8 GiB'", parse_bytes)
    if name == "instance_types":
        value = (value,) if isinstance(value, str) else value
        return _parse(name, value, "a list such as ['c7g.xlarge', 'm7g.xlarge']", _names)
    if name in _LISTS:
        value = (value,) if isinstance(value, str) else value
        return _parse(name, value, f"a list such as {_LISTS[name]}", _some_names)
    if name == "tags":
        return _parse(name, value, "a mapping such as {'team': 'research'}", _tags)
    expected = {"str": str, "int": int, "bool": bool}.get(kind.partition(" ")[0], object)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise BadArgument(f"{name}={value!r} is not {_kind_in_words(kind)}.")
    return value


#: Settings that are no durations but amounts in US dollars.
_MONEY = ("max_hourly_cost", "max_total_cost", "cost_alert_threshold")


def _usd(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def parse_duration(name: str, value: Any) -> float:
    """Return a duration in seconds, given as a number or as text."""
    return float(_parse(name, value, "a duration such as '20 minutes'", parse_timedelta))


def _kind_in_words(kind: str) -> str:
    words = {"str": "a text", "int": "a whole number", "bool": "true or false", "float": "a duration"}
    return words.get(kind.partition(" ")[0], "a value")


def _names(value: Any) -> tuple[str, ...]:
    if not value or not all(isinstance(name, str) for name in value):
        raise ValueError
    return tuple(value)


def _some_names(value: Any) -> tuple[str, ...]:
    return _names(value) if value else ()


def _tags(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError
    return {str(k): str(v) for k, v in value.items()}


def _parse(name: str, value: Any, example: str, parse: Any) -> Any:
    try:
        return parse(value)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadArgument(f"{name}={value!r} is not understood; give {example}.") from None
