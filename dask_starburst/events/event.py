"""The base of all events, and of those about one thing."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, TypeAlias

#: The name of a process: a worker's, which is Dask's, or the scheduler's.
Name: TypeAlias = int | str

#: The name of the scheduler among the processes, and of the placement of its instance.
SCHEDULER = "scheduler"
HEAD = "head"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(ABC):
    """Something that happened. Each kind is a class of its own, whose fields hold the values.

    Parameters
    ----------
    time : float
        Seconds since the epoch, by AWS's clock. `EventLog` sets it when the event is emitted.
    """

    time: float = 0.0

    @property
    @abstractmethod
    def kind(self) -> str:
        """What happened, as ``noun-verb``: ``"instance-launched"``. The same for all events of a class."""

    @property
    def level(self) -> int:
        """A :mod:`logging` level."""
        return logging.INFO

    @property
    @abstractmethod
    def subject(self) -> Name:
        """A worker's name, an instance ID, a pool, or what else the event is about."""

    @property
    @abstractmethod
    def message(self) -> str:
        """What happened, as one sentence."""

    @property
    def facts(self) -> dict[str, Any]:
        """The fields without the time, for JSON and logs."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "time"}

    def __str__(self) -> str:
        return f"{datetime.fromtimestamp(self.time, UTC):%H:%M:%S} {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEvent(Event):
    """The base of events about a worker or the scheduler."""

    name: Name

    @property
    def subject(self) -> Name:
        """The name of the worker, or ``"scheduler"``."""
        return self.name

    @property
    def label(self) -> str:
        """The process in a sentence."""
        return "the scheduler" if self.name == SCHEDULER else f"worker {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceEvent(Event):
    """The base of events about an instance."""

    instance: str

    @property
    def subject(self) -> str:
        """The ID of the instance."""
        return self.instance


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementEvent(Event):
    """The base of events about an Auto Scaling group: ``head``, ``spot``, ``on-demand``."""

    placement: str

    @property
    def subject(self) -> str:
        """The placement."""
        return self.placement


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolEvent(Event):
    """The base of events about a pool."""

    pool: str

    @property
    def subject(self) -> str:
        """The name of the pool."""
        return self.pool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvent(Event):
    """The base of events about a Dask cluster."""

    cluster: str

    @property
    def subject(self) -> str:
        """The name of the cluster."""
        return self.cluster


def clock(at: float) -> str:
    """Format a time of day."""
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S} UTC"
