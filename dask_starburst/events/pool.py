"""Events of pools and of their lease."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dask_starburst.events.event import Event, PoolEvent, clock


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountSetup(Event):
    """The roles and networks of the account are being set up in a region."""

    kind = "account-setup"
    region: str

    @property
    def subject(self) -> str:
        """The region."""
        return self.region

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"setting up the account in {self.region}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolesUnseen(Event):
    """AWS denies looking at `roles` and creating them; the start assumes that an administrator has created them."""

    kind = "roles-unseen"
    roles: str
    error: str

    @property
    def subject(self) -> str:
        """The roles."""
        return self.roles

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"assuming that an administrator has created {self.roles}, which AWS does not show: {self.error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolClaimed(PoolEvent):
    """The cluster has claimed a pool with a number of warm `instances`."""

    kind = "pool-claimed"
    instances: int = 0

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        running = f" with {self.instances} warm instances" if self.instances else ""
        return f"claimed pool {self.pool}{running}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolKeptWarm(PoolEvent):
    """Instances stay for the next cluster `until` a time (seconds since the epoch). `kept`: their types and price."""

    kind = "pool-kept-warm"
    instances: int
    until: float
    kept: str

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return (
            f"pool {self.pool} is kept warm for the next cluster: {self.kept}. AWS terminates its instances then;"
            f" `starburst pool stop {self.pool}` terminates them now"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLeft(PoolEvent):
    """A pool could not be released. AWS terminates its instances by the `lease` (seconds since the epoch), if any."""

    kind = "pool-left"
    level = logging.ERROR
    why: str
    lease: float | None = None

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        text = f"pool {self.pool} was not released: {self.why}"
        if self.lease is None:
            return text
        return f"{text.rstrip('.')}; its lease terminates its instances at {clock(self.lease)} at the latest"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRenewed(PoolEvent):
    """The lease of the pool was renewed `until` a time (seconds since the epoch)."""

    kind = "lease-renewed"
    level = logging.DEBUG
    until: float

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"lease renewed until {clock(self.until)}"
