"""Convert settings from files and arguments to typed values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from dask.utils import parse_bytes, parse_timedelta

from dask_starburst.errors import BadArgument, UnknownArgument
from dask_starburst.settings.caller import parse_caller

T = TypeVar("T")
#: Mappings with the user's own keys: a later one replaces an earlier one as a whole.
_OWN_KEYS = ("tags", "worker_groups")
#: The groups of settings by the names of their classes.
Groups = Mapping[str, type[Any]]


#: Arguments of every Dask cluster, which are not settings.
_DASK_ARGUMENTS = ("asynchronous", "loop", "shutdown_on_close")
#: Removed settings, each with its replacement.
_REMOVED = {"stopped": "warm=… for idle running instances, or warm_timeout=… to keep them after close()"}


def as_mapping(name: str, value: Any) -> Mapping[Any, Any]:
    """Return a group of settings, from a file or an argument.

    Raises
    ------
    BadArgument
        The value is not a mapping.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    if not isinstance(value, Mapping):
        raise BadArgument(f"{name}={value!r:.200} must be a mapping of its settings, such as {_example(name)}.")
    return value


def _example(name: str) -> str:
    if name.startswith("worker_groups.") and name.count(".") == 1:
        return "{'worker': {'memory_limit': '64 GiB'}, 'maximum': 4}"
    return _EXAMPLES[_general(name)]


def merge(base: Mapping[Any, Any], over: Mapping[Any, Any]) -> dict[str, Any]:
    """Merge settings over others; hyphens and underscores are equivalent."""
    merged = {_name(k): v for k, v in base.items()}
    for key, value in over.items():
        name = _name(key)
        if is_dataclass(value) and not isinstance(value, type):
            value = as_mapping(name, value)
        if isinstance(value, Mapping) and isinstance(merged.get(name), Mapping) and name not in _OWN_KEYS:
            value = merge(merged[name], value)
        merged[name] = value
    return merged


def build(cls: type[T], values: Mapping[str, Any], groups: Groups, prefix: str = "") -> T:
    """Build the settings from `values`.

    Raises
    ------
    BadArgument
        A name is unknown, or a value has the wrong type.
    """
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]  # every cls here is one
    converted = {}
    for key, value in values.items():
        name = _name(key)
        if name not in known:
            raise UnknownArgument(_unknown(name, known, groups if not prefix else {}, prefix))
        converted[name] = _convert(prefix + name, value, str(known[name].type), groups)
    return cls(**converted)


def _unknown(name: str, known: Iterable[str], groups: Groups, prefix: str = "") -> str:
    """Return the message about an unknown setting, with the closest known one.

    Parameters
    ----------
    name : str
        The unknown name.
    known : iterable of str
        The known names.
    groups : mapping
        Nested groups, in which the name may be known.
    prefix : str
        The group of the name.
    """
    near = get_close_matches(name, [*known, *(() if prefix else _DASK_ARGUMENTS)], 1)
    below = (
        [each for kind, each in _GROUP_NAMES.items() if any(f.name == name for f in fields(groups[kind]))]
        if groups
        else []
    )
    if name in ("gpu", "gpus"):
        hint = "; GPUs are not supported yet."
    elif name in _REMOVED and not prefix:
        hint = f" anymore; give {_REMOVED[name]}."
    elif near:
        hint = f"; did you mean {prefix}{near[0]}?"
    elif below:
        hint = f"; did you mean {below[0]}={{{name!r}: …}}?"
    else:
        hint = f"; known settings: {', '.join(known)}."
    return f"{prefix}{name} is not a setting{hint}"


def _names_of(cls: type[Any]) -> set[str]:
    return {f.name for f in fields(cls)}


def _name(key: Any) -> str:
    return str(key).replace("-", "_")


def _convert(name: str, value: Any, kind: str, groups: Groups) -> Any:
    if kind in groups:
        return build(groups[kind], merge(as_mapping(name, value), {}), groups, f"{name}.")
    if kind.startswith("Mapping[str, ") and (each := kind[13:-1]) in groups:
        named = as_mapping(name, value).items()
        return {str(key): _convert(f"{name}.{key}", below, each, groups) for key, below in named}
    if value is None:
        if "None" not in kind and kind != "Any":
            raise BadArgument(f"{name}=None (null) is not valid; give {_kind_in_words(name, kind)}, or leave it out.")
        return None
    if parser := _PARSERS.get(_general(name)):
        return parser(name, value)
    if kind.startswith("float"):
        return parse_duration(name, value)
    expected = {"str": str, "int": int, "bool": bool}.get(kind.partition(" ")[0], object)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise BadArgument(f"{name}={value!r:.200} is not {_kind_in_words(name, kind)}.")
    return value


def _general(name: str) -> str:
    """Return the name under which a setting of a worker group is known in the group ``default``."""
    return name.split(".", 2)[-1] if name.startswith("worker_groups.") else name


def parse_duration(name: str, value: Any) -> float:
    """Return a duration in seconds, given as a number or as text."""
    return float(_parse(name, value, "a duration such as '20 minutes'", _seconds))


def _seconds(value: Any) -> float:
    seconds = float(parse_timedelta(value))
    if isinstance(value, bool) or not math.isfinite(seconds):
        raise TypeError
    return seconds


def _kind_in_words(name: str, kind: str) -> str:
    if meaning := _MEANINGS.get(_general(name)):
        return meaning
    words = {"str": "a string", "int": "a whole number", "bool": "true or false", "float": "a duration"}
    return words.get(kind.partition(" ")[0], "a value")


def _usd(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _bytes(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return int(parse_bytes(value))


def _names(value: Any) -> tuple[str, ...]:
    value = (value,) if isinstance(value, str) else value
    if not value or isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError
    return tuple(value)


def _some_names(value: Any) -> tuple[str, ...]:
    return _names(value) if value or value in ("", 0, False) else ()


def _tags(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or None in value.values():
        raise TypeError
    return {str(k): str(v) for k, v in value.items()}


def _parse(name: str, value: Any, example: str, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise BadArgument(f"{name}={value!r:.200} is not valid; give {example}.") from None


def _parser(example: str, parse: Callable[[Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: _parse(name, value, example, parse)


#: Descriptions of values, with an example, where the field's type is not enough.
_MEANINGS = {
    "max_hourly_cost": "an amount in US dollars such as 2.5",
    "max_total_cost": "an amount in US dollars such as 2.5",
    "cost_alert_threshold": "an amount in US dollars such as 2.5",
    "worker.memory_limit": "a size such as '8 GiB'",
    "instance_types": "a list such as ['c7g.xlarge', 'm7g.xlarge']",
    "build.add": "a list such as ['s3fs', 'scikit-learn>=1.7']",
    "build.exclude": "a list such as ['jupyterlab', 'mypy']",
    "build.apt": "a list such as ['libgeos-c1v5']",
    "tags": "a mapping such as {'team': 'research'}",
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "max_hourly_cost": _usd,
    "max_total_cost": _usd,
    "cost_alert_threshold": _usd,
    "worker.memory_limit": _bytes,
    "instance_types": _names,
    "build.add": _some_names,
    "build.exclude": _some_names,
    "build.apt": _some_names,
    "tags": _tags,
}
_PARSERS: dict[str, Callable[[str, Any], Any]] = {
    **{name: _parser(_MEANINGS[name], parse) for name, parse in _READERS.items()},
    "network.caller": parse_caller,
}
#: An example of each group.
_EXAMPLES = {
    "starburst": "{'n-workers': 4}",
    "worker": "{'nthreads': 4}",
    "worker_groups": "{'big': {'worker': {'memory_limit': '64 GiB'}, 'maximum': 4}}",
    "build": "{'builder': 'direct'}",
    "scheduler": "{'port': 8786}",
    "adaptive": "{'maximum': 20}",
    "network": "{'caller': '203.0.113.7/32'}",
    "timeouts": "{'connect': '3 minutes'}",
    "storage": "{'volume_size': 50}",
}
#: The names of the groups, by class name.
_GROUP_NAMES = {
    "WorkerShape": "worker",
    "BuildSettings": "build",
    "SchedulerSettings": "scheduler",
    "AdaptiveSettings": "adaptive",
    "NetworkSettings": "network",
    "Timeouts": "timeouts",
    "StorageSettings": "storage",
}
