"""Eventual consistency: new resources that cannot be described yet."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Rule:
    what: str
    delay: float
    since: float
    until: float

    def applies_to(self, what: str, created: float) -> bool:
        return self.what in ("*", what) and self.since <= created <= self.until


class Consistency:
    """Decides whether a resource is visible.

    Parameters
    ----------
    now : callable
        The virtual time.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._hidden: list[_Rule] = []
        self._ages: list[_Rule] = []
        self._created: dict[tuple[str, str], tuple[float, float]] = {}  # when, and the delay without faults

    def hide(self, what: str, delay: float, seconds: float | None) -> None:
        """Hide resources created from now on."""
        self._hidden.append(self._rule(what, delay, seconds))

    def refuse_profiles(self, age: float, seconds: float | None) -> None:
        """Refuse instance profiles younger than `age`."""
        self._ages.append(self._rule("instance-profiles", age, seconds))

    def clear(self) -> None:
        """Make every resource visible and usable."""
        self._hidden.clear()
        self._ages.clear()

    def created(self, what: str, name: str, delay: float = 0.0) -> None:
        """Record the creation of a resource in moto, and the seconds for which it is hidden without any fault."""
        self._created[what, name] = self._now(), delay

    def hides(self, what: str, created: float) -> bool:
        """Return whether a resource created at `created` is hidden."""
        now = self._now()
        return any(one.applies_to(what, created) and now < created + one.delay for one in self._hidden)

    def hides_named(self, what: str, name: str) -> bool:
        """Return whether a resource in moto is hidden."""
        return self._now() < self.shown_at(what, name)

    def shown_at(self, what: str, name: str) -> float:
        """Return the time from which a resource in moto is visible."""
        created, delay = self._created.get((what, name), (-math.inf, 0.0))
        rules = [one.delay for one in self._hidden if one.applies_to(what, created)]
        return created + max([delay, *rules])

    def profile_is_usable(self, name: str) -> bool:
        """Return whether EC2 accepts an instance profile."""
        now, (created, _) = self._now(), self._created.get(("instance-profiles", name), (-math.inf, 0.0))
        if any(now < created + one.delay and now <= one.until for one in self._ages):
            return False
        return not self.hides("instance-profiles", created)

    def _rule(self, what: str, delay: float, seconds: float | None) -> _Rule:
        now = self._now()
        return _Rule(what, delay, now, math.inf if seconds is None else now + seconds)
