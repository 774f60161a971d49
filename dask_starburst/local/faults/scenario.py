"""A scenario: faults with their times, which a seed repeats.

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
    """A script.

    Attributes
    ----------
    events : tuple of Event
        In order of time.
    seed : int
        Chooses the targets that are left open. The same script with the same seed at the same moments of the same
        world does the same.
    """

    events: tuple[Event, ...]
    seed: int = 0

    def __init__(self, events: Iterable[Event], seed: int = 0) -> None:
        object.__setattr__(self, "events", tuple(sorted(events, key=lambda event: event.at)))
        object.__setattr__(self, "seed", seed)

    def to_json(self) -> dict[str, Any]:
        """Write it down."""
        return {"seed": self.seed, "events": [event.to_json() for event in self.events]}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Scenario:
        """Read what `to_json` writes; ``ValueError`` if it is no weather."""
        events = document.get("events")
        if not isinstance(events, list) or not all(isinstance(one, dict) for one in events):
            raise ValueError("weather needs a list of events")
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
        a_minute: float = 2.0,
        calm: float = 5.0,
        group: str = "*-spot",
        family: str = "*-worker",
    ) -> Scenario:
        """Make a mixed script of bad luck that ends with a calm.

        Parameters
        ----------
        seed : int
            The same seed makes the same script.
        minutes : float
            How long it is in virtual minutes, the calm included.
        a_minute : float
            How many events there are in a minute, on average.
        calm : float
            How many minutes at the end nothing happens; nothing of the script goes on then, but for agents that are
            lost for good.
        group, family : str
            Patterns of the Auto Scaling groups and of the task families that may be hit. Without them the scheduler
            could be hit too, which no Dask cluster survives.

        Returns
        -------
        Scenario
        """
        end = max(minutes - calm, 0.0) * 60
        made = random_events(random.Random(seed), end, a_minute, group, family)
        return cls([*made, Clear(at=end)], seed)
