"""Events of failed calls to AWS."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dask_starburst.events.event import Event, PoolEvent, clock


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFailed(PoolEvent):
    """A call to AWS failed. `outage`: the fault is AWS's or the network's, and passes; the call is retried."""

    kind = "aws-error"
    level = logging.WARNING
    error: str
    outage: bool

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.error} Retrying; nothing is lost." if self.outage else self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class OutageEnded(PoolEvent):
    """AWS is available again, `seconds` after the first call that failed."""

    kind = "aws-answers"
    seconds: float

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"AWS is available again after {self.seconds:.0f} s; the cluster continues"


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsRefused(PoolEvent):
    """AWS refuses the credentials. The cluster can continue until its `lease` ends (seconds since the epoch)."""

    kind = "credentials-refused"
    level = logging.WARNING
    error: str
    lease: float

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.error} The cluster continues and reloads its credentials; its lease ends at {clock(self.lease)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialsAccepted(PoolEvent):
    """AWS accepts the credentials again."""

    kind = "credentials-accepted"

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return "AWS accepts the credentials again"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartDelayed(Event):
    """AWS does not show yet what the start has just created; a call is repeated for up to `limit` seconds.

    `operation`: the AWS action; `what`: what AWS does not show; `error`: its answer.
    """

    kind = "start-delayed"
    operation: str
    what: str
    error: str
    limit: float

    @property
    def subject(self) -> str:
        """The AWS action."""
        return self.operation

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"waiting up to {self.limit:g} s for AWS to show {self.what} everywhere: {self.error}"
