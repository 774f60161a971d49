"""Convert settings from files and arguments to typed values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from dask_starburst.errors import BadArgument, UnknownArgument
from dask_starburst.settings.declare import Group, GroupsByName, Setting, declared
from dask_starburst.settings.given import as_mapping, as_name, given
from dask_starburst.settings.moved import MOVED, typed

T = TypeVar("T")

#: Arguments of every Dask cluster, which are not settings.
DASK_ARGUMENTS = ("asynchronous", "loop", "shutdown_on_close")
#: Removed settings, each with its replacement.
_REMOVED = {
    "stopped": "keep={'warm': …} for idle running instances, or keep={'warm_timeout': …} to keep them after close()"
}


def merge(cls: type[Any], base: Mapping[Any, Any], over: Mapping[Any, Any]) -> dict[str, Any]:
    """Merge the settings of `cls` over others; hyphens and underscores are equivalent.

    A group is merged, but a mapping of the user's own names is replaced.
    """
    known, merged = declared(cls), {as_name(k): v for k, v in base.items()}
    for key, value in given(over).items():
        name = as_name(key)
        kind = known[name].kind if name in known else None
        if isinstance(kind, Group) and _is_group(value):
            below = merged.get(name)
            below = below if isinstance(below, Mapping) else {}
            value = merge(kind.cls, below, as_mapping(name, value, kind.example))
        merged[name] = value
    return merged


def _is_group(value: Any) -> bool:
    return isinstance(value, Mapping) or (is_dataclass(value) and not isinstance(value, type))


def build(cls: type[T], values: Mapping[Any, Any], prefix: str = "", root: type[Any] | None = None) -> T:
    """Build the settings that `cls` declares from `values`.

    Parameters
    ----------
    cls : type
        The dataclass.
    values : mapping
        From names, with hyphens or underscores, to values.
    prefix : str
        The path of the group that `cls` is, such as "worker.".
    root : type, optional
        The dataclass of all settings, among which an unknown name is looked for.

    Raises
    ------
    BadArgument
        A name is unknown, or a value is not valid.
    """
    known, converted = declared(cls), {}
    for key, value in values.items():
        name = as_name(key)
        if name not in known:
            raise UnknownArgument(_unknown(name, known, declared(root or cls), prefix))
        converted[name] = _convert(prefix + name, value, known[name], root or cls)
    return cls(**converted)


def _convert(name: str, value: Any, setting: Setting, root: type[Any]) -> Any:
    kind = setting.kind
    if isinstance(kind, Group):
        return build(kind.cls, as_mapping(name, value, kind.example), f"{name}.", root)
    if isinstance(kind, GroupsByName):
        return {
            str(key): build(kind.cls, as_mapping(f"{name}.{key}", below, kind.example), f"{name}.{key}.", root)
            for key, below in as_mapping(name, value, f"{{'big': {kind.example}}}").items()
        }
    if value is None:
        if not setting.null:
            raise BadArgument(f"{name}=None (null) is not valid; give {kind.words}, or leave it out.")
        return None
    return kind.read(name, value)


def _unknown(name: str, known: Mapping[str, Setting], everything: Mapping[str, Setting], prefix: str) -> str:
    """Return the message about an unknown setting, with the closest known one."""
    if name in ("gpu", "gpus"):
        hint = "; GPUs are not supported yet."
    elif name in _REMOVED and not prefix:
        hint = f" anymore; give {_REMOVED[name]}."
    elif (near := _nearest(name, known, everything, prefix)) is not None:
        hint = f"; did you mean {near}?"
    else:
        hint = f"; known settings: {', '.join(known)}."
    return f"{prefix}{name} is not a setting{hint}"


def _nearest(name: str, known: Mapping[str, Setting], everything: Mapping[str, Setting], prefix: str) -> str | None:
    if near := get_close_matches(name, known, 1, 0.6 if prefix else 0.85):
        return prefix + near[0]
    elsewhere: dict[str, str] = {}
    for other, argument in _everywhere(everything):
        elsewhere.setdefault(other, argument)
    near = get_close_matches(name, elsewhere, 1, 0.85 if prefix else 0.6)
    return elsewhere[near[0]] if near else None


def _everywhere(everything: Mapping[str, Setting]) -> Iterator[tuple[str, str]]:
    """Yield every name, and how to type it as an argument."""
    yield from ((name, name) for name in (*everything, *DASK_ARGUMENTS))
    for name, each in everything.items():
        if isinstance(each.kind, Group):
            yield from ((below, typed(name, {below: ...})) for below in declared(each.kind.cls))
    yield from ((old, typed(group, {below: ...})) for old, (group, below) in MOVED.items())
