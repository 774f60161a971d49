"""Settings as they are given, before they are converted.

The default of an argument that was not given differs from None, which means null, as in a configuration file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, Final

from dask_starburst.errors import BadArgument


class Unset:
    """The default of an argument that is also a setting: the value in `dask.config` applies."""

    def __repr__(self) -> str:
        return "<dask.config>"


#: Typed as Any, so that each argument keeps the type of its values.
UNSET: Final[Any] = Unset()


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that were given."""
    return {name: value for name, value in arguments.items() if not isinstance(value, Unset)}


def as_name(key: Any) -> str:
    """Return the name of a setting as Python writes it."""
    return str(key).replace("-", "_")


def as_mapping(name: str, value: Any, example: str) -> Mapping[Any, Any]:
    """Return a group of settings, from a file or an argument.

    Raises
    ------
    BadArgument
        The value is not a mapping.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in fields(value)}
    if not isinstance(value, Mapping):
        raise BadArgument(f"{name}={value!r:.200} must be a mapping of its settings, such as {example}.")
    return value
