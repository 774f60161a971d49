"""The default of arguments that were not given. It differs from None, which means null, as in a configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final


class Unset:
    """The default of an argument that is also a setting: the value in `dask.config` applies."""

    def __repr__(self) -> str:
        return "<dask.config>"


#: Typed as Any, so that each argument keeps the type of its values.
UNSET: Final[Any] = Unset()


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that were given."""
    return {name: value for name, value in arguments.items() if not isinstance(value, Unset)}
