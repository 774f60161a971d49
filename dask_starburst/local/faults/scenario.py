"""A scenario: timed faults, reproducible from a seed.

>>> from dask_starburst.local import LocalAWS, faults
>>> with LocalAWS() as aws:
...     aws.play([faults.Interrupt(at=60, count=2), faults.Capacity(at=60, room=0, market="spot", seconds=300)])
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dask_starburst.local.faults.event import Event
from dask_starburst.local.faults.events import Clear
from dask_starburst.local.faults.random import random_events


@dataclass(frozen=True)
class Scenario:
    """A list of timed faults.

    Attributes
    ----------
    events : tuple of Event
        Sorted by time.
    seed : int
        Chooses open targets. The same scenario with the same seed, played at the same time on the same
        backend, hits the same targets.
    """

    events: tuple[Event, ...]
    seed: int = 0

    def __init__(self, events: Iterable[Event], seed: int = 0) -> None:
        object.__setattr__(self, "events", tuple(sorted(events, key=lambda event: event.at)))
        object.__setattr__(self, "seed", seed)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"seed": self.seed, "events": [event.to_json() for event in self.events]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Scenario:
        """Parse the output of `to_json`; raise ``ValueError`` if it is not valid."""
        events = document.get("events")
        if not isinstance(events, list) or not all(isinstance(one, dict) for one in events):
            raise ValueError("a scenario needs a list of events")
        try:
            return cls([Event.from_json(one) for one in events], int(document.get("seed", 0)))
        except TypeError as error:
            raise ValueError(str(error)) from error

    @classmethod
    def random(
        cls,
        seed: int,
        minutes: float,
        *,
        events_per_minute: float = 2.0,
        quiet_minutes: float = 5.0,
        group: str = "*-spot",
        family: str = "*-worker",
    ) -> Scenario:
        """Make a random scenario of mixed faults that ends with a quiet period.

        Parameters
        ----------
        seed : int
            The same seed makes the same scenario.
        minutes : float
            Its length in virtual minutes, the quiet period included.
        events_per_minute : float
            Average number of events a minute.
        quiet_minutes : float
            Length of the quiet period at the end, in minutes. All faults have ended then, except agents that are
            lost for good.
        group, family : str
            Patterns of the Auto Scaling groups and task families to hit. Without them the scheduler
            could be hit too, and a Dask cluster does not survive that.

        Returns
        -------
        Scenario
        """
        end = max(minutes - quiet_minutes, 0.0) * 60
        made = random_events(random.Random(seed), end, events_per_minute, group, family)
        return cls([*made, Clear(at=end)], seed)
