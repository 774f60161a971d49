"""The kinds of settings that are quantities: counts, durations, sizes and amounts of money."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dask.utils import parse_bytes, parse_timedelta

from dask_starburst.errors import BadArgument
from dask_starburst.settings.kinds import Kind, converted, refusal


@dataclass(frozen=True)
class Whole(Kind):
    """A whole number.

    Parameters
    ----------
    least, most : int
        The bounds, inclusive.
    unit : str
        What is counted, such as "workers".
    refusal : str
        What is wrong with a number outside of the bounds; continues "name=number".
    hint : str
        What else may be given, at the end of the refusal.
    among : tuple of int
        The only numbers that are allowed.
    taken : mapping
        Numbers that are in use, each with what uses it.
    """

    least: int = 0
    most: int | None = None
    unit: str = ""
    refusal: str = ""
    hint: str = ""
    among: tuple[int, ...] = ()
    taken: Mapping[int, str] | None = None
    words = "a whole number"
    annotation = "int"

    def read(self, name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise refusal(name, value, self, f" of {self.unit}" if self.unit else "")
        if self.among and value not in self.among:
            near = min(self.among, key=lambda number: abs(number - value))
            raise BadArgument(f"{name}={value}{self.refusal}; give {near}, for example.")
        if value < self.least or (self.most is not None and value > self.most):
            raise BadArgument(f"{name}={value}{self.refusal or self._refusal}; give {self.bounds}{self.hint}.")
        if self.taken and value in self.taken:
            raise BadArgument(
                f"{name}={value} is in use by {self.taken[value]} on every instance; give one such as 8786."
            )
        return value

    @property
    def _refusal(self) -> str:
        return " is negative" if self.least == 0 else " must be above zero"

    @property
    def bounds(self) -> str:
        if self.among:
            return ", ".join(map(str, self.among))
        return f"{self.least} to {self.most}" if self.most is not None else f"{self.least} or more {self.unit}".strip()

    def schema(self) -> dict[str, Any]:
        if self.among:
            return {"enum": list(self.among)}
        return {"type": "integer", "minimum": self.least} | ({} if self.most is None else {"maximum": self.most})


@dataclass(frozen=True)
class Duration(Kind):
    """A time, in seconds or as text such as "20 minutes"; converted to seconds.

    Parameters
    ----------
    least : float
        The shortest, in seconds.
    why : str
        Why a shorter one is refused.
    zero : bool
        Whether zero is allowed.
    hint : str
        What else may be given, at the end of the refusal of zero.
    """

    least: float = 0.0
    why: str = ""
    zero: bool = False
    hint: str = ""
    words = "a duration such as '20 minutes'"
    annotation = "float | str"

    @property
    def bounds(self) -> str:
        return f"at least {self.least:g} s" if self.least else "" if self.zero else "above zero"

    def read(self, name: str, value: Any) -> float:
        seconds = float(converted(name, value, self.words, _seconds))
        if seconds == 0 and not self.zero:
            raise BadArgument(f"{name}={seconds:g} s must be above zero{self.hint}.")
        if seconds < self.least:
            raise BadArgument(f"{name}={seconds:g} s is too short: {self.why}; give {self.bounds}.")
        return seconds

    def schema(self) -> dict[str, Any]:
        bound = "minimum" if self.zero or self.least else "exclusiveMinimum"
        return {"type": ["number", "string"], bound: int(self.least)}


@dataclass(frozen=True)
class Usd(Kind):
    """An amount of US dollars above zero."""

    words = "an amount in US dollars such as 2.5"
    annotation = "float"

    @property
    def bounds(self) -> str:
        return "above zero"

    def read(self, name: str, value: Any) -> float:
        usd: float = converted(name, value, self.words, _usd)
        if not 0 < usd < math.inf:
            raise BadArgument(f"{name}={usd:g} is not an amount of US dollars above zero; leave it out for no cap.")
        return usd

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "exclusiveMinimum": 0}


@dataclass(frozen=True)
class Size(Kind):
    """A size, in bytes or as text such as "8 GiB"; converted to bytes.

    Parameters
    ----------
    least : int
        The smallest, in bytes.
    why : str
        Why a smaller one is refused.
    """

    least: int
    why: str
    words = "a size such as '8 GiB'"
    annotation = "int | str"

    @property
    def bounds(self) -> str:
        return f"{self.least >> 20} MiB or more"

    def read(self, name: str, value: Any) -> int:
        size: int = converted(name, value, self.words, _bytes)
        if size <= 0:
            raise BadArgument(f"{name}={size} must be above zero.")
        if size < self.least:
            raise BadArgument(f"{name}={size} bytes is {self.why}; give {self.bounds}, with a unit, such as '8 GiB'.")
        return size

    def schema(self) -> dict[str, Any]:
        return {"type": ["integer", "string"], "minimum": self.least}


def parse_duration(name: str, value: Any) -> float:
    """Return a duration in seconds, given as a number or as text."""
    return Duration(zero=True).read(name, value)


def _seconds(value: Any) -> float:
    seconds = float(parse_timedelta(value))
    if isinstance(value, bool) or not 0 <= seconds < math.inf:
        raise TypeError
    return seconds


def _usd(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _bytes(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return int(parse_bytes(value))
