"""The kinds of settings: what values they take, how these are converted and checked, and how they are described."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from dask_starburst.errors import BadArgument

#: Validates a converted value; the first argument is the name of the setting.
Check = Callable[[str, Any], None]


class Kind:
    """What values a setting takes. None is not one of them: `Setting.null` says whether it is allowed."""

    @property
    def words(self) -> str:
        """What to give, in messages, such as "a whole number"."""
        return "a value"

    @property
    def annotation(self) -> str:
        """The type of the keyword argument."""
        return "Any"

    @property
    def bounds(self) -> str:
        """The bounds of the values, such as "1 or more"; empty if there are none."""
        return ""

    def read(self, name: str, value: Any) -> Any:
        """Convert and validate a value.

        Raises
        ------
        BadArgument
            The value is not valid.
        """
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the values, as they are written in a configuration file."""
        raise NotImplementedError


@dataclass(frozen=True)
class Anything(Kind):
    """A Python object."""

    check: Check | None = None
    json: Mapping[str, Any] = field(default_factory=dict)

    def read(self, name: str, value: Any) -> Any:
        if self.check is not None:
            self.check(name, value)
        return value

    def schema(self) -> dict[str, Any]:
        return dict(self.json)


@dataclass(frozen=True)
class Text(Kind):
    """A string."""

    check: Check | None = None
    words = "a string"
    annotation = "str"

    def read(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise refusal(name, value, self)
        if self.check is not None:
            self.check(name, value)
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


@dataclass(frozen=True)
class Parsed(Kind):
    """A string that `parse` converts and validates."""

    parse: Callable[[str, Any], str]
    words = "a string"
    annotation = "str"

    def read(self, name: str, value: Any) -> str:
        return self.parse(name, value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


@dataclass(frozen=True)
class OneOf(Kind):
    """One of some words."""

    choices: tuple[str, ...]

    @property
    def words(self) -> str:
        return f"one of {', '.join(map(repr, self.choices))}"

    @property
    def annotation(self) -> str:
        return f"Literal[{', '.join(map(_quoted, self.choices))}]"

    def read(self, name: str, value: Any) -> str:
        if isinstance(value, str) and value in self.choices:
            return value
        near = get_close_matches(str(value), self.choices, 1, 0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BadArgument(f"{name}={value!r:.200} is not valid; give {self.words}.{hint}")

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.choices)}


@dataclass(frozen=True)
class Flag(Kind):
    """True or false."""

    words = "true or false"
    annotation = "bool"

    def read(self, name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise refusal(name, value, self)
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True)
class Names(Kind):
    """A list of names, or one name.

    Parameters
    ----------
    example : str
        A list, in messages.
    empty : bool
        Whether there may be none.
    check : callable, optional
        Validates the names.
    """

    example: str
    empty: bool = True
    check: Check | None = None
    annotation = "Iterable[str]"

    @property
    def words(self) -> str:
        return f"a list such as {self.example}"

    def read(self, name: str, value: Any) -> tuple[str, ...]:
        none = self.empty and not value and value not in ("", 0, False)
        names: tuple[str, ...] = () if none else converted(name, value, self.words, _names)
        if self.check is not None:
            self.check(name, names)
        return names

    def schema(self) -> dict[str, Any]:
        return {"type": ["array", "string"], "items": {"type": "string"}}


@dataclass(frozen=True)
class Labels(Kind):
    """A mapping of the user's own names to text."""

    example: str
    check: Check | None = None
    annotation = "Mapping[str, str]"

    @property
    def words(self) -> str:
        return f"a mapping such as {self.example}"

    def read(self, name: str, value: Any) -> dict[str, str]:
        labels: dict[str, str] = converted(name, value, self.words, _labels)
        if self.check is not None:
            self.check(name, labels)
        return labels

    def schema(self) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}


def refusal(name: str, value: Any, kind: Kind, more: str = "") -> BadArgument:
    """Return the error about a value of another type."""
    return BadArgument(f"{name}={value!r:.200} is not {kind.words}{more}.")


def _quoted(word: str) -> str:
    return f'"{word}"'


def converted(name: str, value: Any, example: str, parse: Callable[[Any], Any]) -> Any:
    """Return what `parse` makes of a value; if it fails, raise an error with an example."""
    try:
        return parse(value)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        raise BadArgument(f"{name}={value!r:.200} is not valid; give {example}.") from None


def _names(value: Any) -> tuple[str, ...]:
    value = (value,) if isinstance(value, str) else value
    if not value or isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise ValueError
    return tuple(value)


def _labels(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or None in value.values():
        raise TypeError
    return {str(k): str(v) for k, v in value.items()}
