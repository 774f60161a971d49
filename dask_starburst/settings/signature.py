"""Show the settings in the signatures of functions that take them as ``**settings``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from inspect import Parameter
from typing import Any, TypeVar

from dask_starburst.settings.declare import Setting, declared
from dask_starburst.settings.given import UNSET
from dask_starburst.settings.kinds import Kind
from dask_starburst.settings.model import Settings
from dask_starburst.settings.reading import DASK_ARGUMENTS

F = TypeVar("F", bound=Callable[..., Any])


def shows_settings(function: F) -> F:
    """Show each setting as a keyword argument of `function`, in place of ``**settings``.

    ``inspect.signature`` has them then, and so do Jupyter and IPython. Type checkers read ``Unpack[Arguments]``.
    """
    signature = inspect.signature(function)
    own = [each for each in signature.parameters.values() if each.kind is not Parameter.VAR_KEYWORD]
    settings = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=UNSET, annotation=annotation(each))
        for name, each in declared(Settings).items()
    ]
    first = [each for each in own if each.name not in DASK_ARGUMENTS]
    last = [each for each in own if each.name in DASK_ARGUMENTS]
    function.__signature__ = signature.replace(parameters=[*first, *settings, *last])  # type: ignore[attr-defined]
    return function


def annotation(setting: Setting) -> str:
    """Return the type of a keyword argument."""
    kind = setting.kind
    if not isinstance(kind, Kind):
        return "Mapping[str, Any]"
    optional = " | None" if setting.null and kind.annotation != "Any" else ""
    return kind.annotation + optional
