"""The claim of a pool: the newest of a series of SSM parameters. Pure decisions.

A parameter must not be created again within 30 seconds of its deletion ("AWS Systems Manager API reference:
DeleteParameter"), and closing one cluster and starting the next one takes less. So each claim has a number, and its
parameter a name that is used once: ``…/claims/<pool>/<number>``. A pool is freed by marking the newest claim as freed,
which also tells the next number. Creating a parameter is atomic: of two clients that see the same newest claim, only
one can create the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from dask_starburst.plan.requests.policies import PARAMETER_ROOT

CLAIMS = f"{PARAMETER_ROOT}claims"


@dataclass(frozen=True, slots=True)
class Claim:
    """The owner of a pool.

    ``cleaning``: whether the pool is being deleted rather than used; ``freed``: when the owner has freed it (seconds
    since the epoch), None as long as the claim holds.
    """

    session: str
    owner: str
    arn: str
    since: float
    cleaning: bool = False
    freed: float | None = None

    @classmethod
    def from_json(cls, text: str) -> Claim:
        """Parse the value of the claim's parameter."""
        value = json.loads(text)
        return cls(
            session=value["session"],
            owner=value["owner"],
            arn=value.get("arn", ""),
            since=value["since"],
            cleaning=value.get("cleaning", False),
            freed=value.get("freed"),
        )

    def to_json(self) -> str:
        """Return the value of the claim's parameter."""
        value = {"session": self.session, "owner": self.owner, "arn": self.arn, "since": self.since}
        marks = {"cleaning": True} if self.cleaning else {}
        return json.dumps(value | marks | ({} if self.freed is None else {"freed": self.freed}))

    def is_of(self, owner: str, arn: str) -> bool:
        """Whether this caller made the claim. Both must match: several users may share a role or a user name."""
        return bool(arn) and (self.owner, self.arn) == (owner, arn)


@dataclass(frozen=True, slots=True)
class Series:
    """All claims of one pool that AWS shows, by number."""

    claims: Mapping[int, Claim]

    @property
    def newest(self) -> Claim | None:
        """The newest claim, which counts; also if it is freed."""
        return self.claims[max(self.claims)] if self.claims else None

    @property
    def holder(self) -> Claim | None:
        """The newest claim if it holds; None if the pool is free."""
        newest = self.newest
        return newest if newest is not None and newest.freed is None else None

    @property
    def number(self) -> int:
        """The number of the newest claim; 0 if there is none."""
        return max(self.claims, default=0)

    @property
    def outdated(self) -> tuple[int, ...]:
        """The numbers of the claims that do not count any more."""
        return tuple(sorted(set(self.claims) - {self.number}))

    def is_held_by(self, session: str) -> bool:
        """Return whether a session holds the pool."""
        return self.holder is not None and self.holder.session == session

    def freed(self, now: float) -> Claim | None:
        """Return the newest claim as freed; None if it is free already."""
        return None if self.holder is None else replace(self.holder, freed=now)


def series_of(parameters: Mapping[str, str]) -> dict[str, Series]:
    """Return the claims by pool, from the names and values of the parameters below `CLAIMS`."""
    found: dict[str, dict[int, Claim]] = {}
    for name, value in parameters.items():
        pool, _, number = name.removeprefix(f"{CLAIMS}/").partition("/")
        if number.isdecimal():
            found.setdefault(pool, {})[int(number)] = Claim.from_json(value)
    return {pool: Series(claims) for pool, claims in found.items()}


def newest_of(series: Mapping[str, Series]) -> dict[str, Claim]:
    """Return the newest claim of each pool, also freed ones."""
    return {pool: newest for pool, one in series.items() if (newest := one.newest) is not None}


def held(series: Mapping[str, Series]) -> set[str]:
    """Return the pools that are claimed."""
    return {pool for pool, one in series.items() if one.holder is not None}


def names_of(base: str, numbers: Iterable[int]) -> tuple[str, ...]:
    """Return the names of parameters of one pool."""
    return tuple(f"{base}/{number}" for number in numbers)
