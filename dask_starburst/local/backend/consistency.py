"""Eventual consistency: what was made a moment ago and cannot be seen yet."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Spell:
    what: str
    delay: float
    since: float
    until: float


class Veil:
    """Says of everything whether it can be seen.

    Parameters
    ----------
    now : callable
        The virtual time.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._spells: list[_Spell] = []
        self._ages: list[_Spell] = []
        self._made: dict[tuple[str, str], float] = {}  # when, of what is moto's

    def hide(self, what: str, delay: float, seconds: float | None) -> None:
        """Hide what is made from now on."""
        self._spells.append(self._spell(what, delay, seconds))

    def refuse_profiles(self, age: float, seconds: float | None) -> None:
        """Refuse instance profiles that are younger than this."""
        self._ages.append(self._spell("instance-profiles", age, seconds))

    def clear(self) -> None:
        """Let everything be seen and used."""
        self._spells.clear()
        self._ages.clear()

    def made(self, what: str, name: str) -> None:
        """Remember when something of moto's was made."""
        self._made[what, name] = self._now()

    def hides(self, what: str, made: float) -> bool:
        """Whether something that was made at a time cannot be seen."""
        now = self._now()
        return any(
            one.what in ("*", what) and one.since <= made <= one.until and now < made + one.delay
            for one in self._spells
        )

    def hides_named(self, what: str, name: str) -> bool:
        """Whether something of moto's cannot be seen."""
        return self.hides(what, self._made.get((what, name), -math.inf))

    def profile_is_usable(self, name: str) -> bool:
        """Whether EC2 knows an instance profile already."""
        now, made = self._now(), self._made.get(("instance-profiles", name), -math.inf)
        if any(now < made + one.delay and now <= one.until for one in self._ages):
            return False
        return not self.hides("instance-profiles", made)

    def _spell(self, what: str, delay: float, seconds: float | None) -> _Spell:
        now = self._now()
        return _Spell(what, delay, now, math.inf if seconds is None else now + seconds)
