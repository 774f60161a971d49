"""Declare settings: the fields of a dataclass, each with its default, the kind of its values and what it means."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from dask_starburst.settings.kinds import Kind


@dataclass(frozen=True)
class Group:
    """A mapping of the settings that a dataclass declares.

    Parameters
    ----------
    cls : type
        The dataclass.
    example : str
        A mapping, in messages.
    """

    cls: type[Any]
    example: str


@dataclass(frozen=True)
class GroupsByName:
    """A mapping of the user's own names to mappings of the settings that a dataclass declares.

    Parameters
    ----------
    cls : type
        The dataclass.
    example : str
        A mapping of the settings of one of them, in messages.
    """

    cls: type[Any]
    example: str


@dataclass(frozen=True)
class Setting:
    """A declared setting.

    Parameters
    ----------
    name : str
        With underscores.
    kind : Kind, Group or GroupsByName
        The values that it takes.
    default : Any
        The converted default value.
    doc : str
        What it means, in sentences; the first one stands alone.
    null : str
        What None means, such as "never"; empty if None is not valid.
    """

    name: str
    kind: Kind | Group | GroupsByName
    default: Any
    doc: str
    null: str = ""


def setting(default: Any, kind: Kind, doc: str, *, null: str = "") -> Any:
    """Declare a field of a dataclass as a setting; see `Setting` for the parameters."""
    metadata = {"kind": kind, "doc": doc, "null": null}
    if isinstance(default, Mapping):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def group(cls: type[Any], example: str) -> Any:
    """Declare a field of a dataclass as a group of settings; its meaning is the docstring of the class."""
    return field(default_factory=cls, metadata={"kind": Group(cls, example), "doc": inspect.getdoc(cls)})


def groups_by_name(cls: type[Any], example: str, doc: str) -> Any:
    """Declare a field of a dataclass as groups of settings, each with a name that the user chooses."""
    return field(default_factory=dict, metadata={"kind": GroupsByName(cls, example), "doc": doc})


def declared(cls: type[Any]) -> Mapping[str, Setting]:
    """Return the settings that a dataclass declares, by name."""
    found = {}
    for each in fields(cls):
        default = each.default if each.default_factory is MISSING else each.default_factory()
        found[each.name] = Setting(each.name, default=default, **each.metadata)
    return found
