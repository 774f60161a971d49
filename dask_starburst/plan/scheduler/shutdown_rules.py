"""When a scheduler ends its own pool, and the words in which it says so."""

from __future__ import annotations

from dataclasses import dataclass

from dask_starburst.errors import BadArgument, CredentialsExpired, NoCredentials, PermissionDenied

#: Seconds before a clean-up that failed is repeated: more each time, up to the last.
_PAUSES = (0.5, 0.5, 1.0, 2.0, 3.0)
#: New credentials may be there by now; a login that is over comes back only by hand.
_TRIES_WITH_CREDENTIALS = 3

#: The line in the scheduler's log that says why it ended its pool begins so. The client looks for it there:
#: a log outlives the instance, and the connection may be gone when the client asks.
SHUTDOWN_PREFIX = "starburst ends its own pool: "


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a pool lives, in seconds: ``lease``; without work; without anybody connected. None: for ever.

    ``usd``: what it may cost in all. ``rate``: USD an hour that it costs at the most when it starts.
    """

    lease: float
    idle: float | None
    no_client: float | None
    usd: float | None = None
    rate: float = 0.0


def why_end(lifetimes: Lifetimes, idle: float, unattended: float, spent: float = 0.0) -> str | None:
    """Return why the pool is to end now, or None.

    Parameters
    ----------
    lifetimes : Lifetimes
        What the user chose.
    idle : float
        Seconds without any work.
    unattended : float
        Seconds without a client and without a task that runs.
    spent : float
        USD that were spent, as far as nobody else looks after that.
    """
    if lifetimes.usd is not None and spent >= lifetimes.usd:
        return f"it has cost ${spent:.4f}, and max_total_cost={lifetimes.usd:g}"
    if lifetimes.idle is not None and idle >= lifetimes.idle:
        return f"there was no work for {lifetimes.idle:g} s (idle_timeout)"
    if lifetimes.no_client is not None and unattended >= lifetimes.no_client:
        return f"no client was connected for {lifetimes.no_client:g} s (no_client_timeout)"
    return None


def shutdown_reason(lines: list[str]) -> str | None:
    """Return the reason that a scheduler's log gives for the end of its pool, if it gives one."""
    found = [line.partition(SHUTDOWN_PREFIX)[2].strip() for line in lines if SHUTDOWN_PREFIX in line]
    return found[-1] if found else None


def repeat_after(error: Exception, tries: int) -> float | None:
    """Return after how many seconds a clean-up is repeated that has failed `tries` times; None: it is hopeless."""
    if isinstance(error, PermissionDenied | NoCredentials | BadArgument):
        return None
    if isinstance(error, CredentialsExpired) and tries >= _TRIES_WITH_CREDENTIALS:
        return None
    return _PAUSES[min(tries, len(_PAUSES)) - 1]
