"""An argument that was not given, which is another thing than None: None means null, as in a configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final


class Unset:
    """The default of an argument that is a setting too: what `dask.config` says then holds."""

    def __repr__(self) -> str:
        return "<dask.config>"


#: Any, so that each argument has the type of what may be given for it.
UNSET: Final[Any] = Unset()


def given(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that were given."""
    return {name: value for name, value in arguments.items() if not isinstance(value, Unset)}
