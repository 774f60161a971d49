"""When a scheduler shuts down its own pool, and how it logs the reason."""

from __future__ import annotations

from dataclasses import dataclass

from dask_starburst.errors import BadArgument, CredentialsExpired, NoCredentials, PermissionDenied

#: Seconds before a failed shutdown is retried, by the number of failures.
_PAUSES = (0.5, 0.5, 1.0, 2.0, 3.0)
#: Retries with expired credentials. They may have been renewed, but an expired login needs the user.
_TRIES_WITH_CREDENTIALS = 3

#: Prefix of the log line with the reason of a shutdown. The client searches the log for it: the log outlives the
#: instance, and the connection to the scheduler may be gone.
SHUTDOWN_PREFIX = "starburst is shutting down its pool: "

#: The reason of futures that are cancelled because their cluster ends, for programs; the message is for users.
CANCEL_REASON = "cluster-ended"


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Limits on a pool's lifetime, in seconds: ``lease``; without work; without a client. None: no limit.

    ``usd``: the highest total cost. ``rate``: the highest hourly cost (USD) at the start.
    """

    lease: float
    idle: float | None
    no_client: float | None
    usd: float | None = None
    rate: float = 0.0


def why_end(lifetimes: Lifetimes, idle: float, unattended: float, spent: float = 0.0) -> str | None:
    """Return the reason to shut the pool down now, or None.

    Parameters
    ----------
    lifetimes : Lifetimes
        The limits.
    idle : float
        Seconds without work.
    unattended : float
        Seconds without a client and without a running task.
    spent : float
        USD spent; 0 while the client enforces the cap.
    """
    if lifetimes.usd is not None and spent >= lifetimes.usd:
        return f"it has cost ${spent:.4f}, and max_total_cost={lifetimes.usd:g}"
    if lifetimes.idle is not None and idle >= lifetimes.idle:
        return f"there was no work for {lifetimes.idle:g} s (idle_timeout)"
    if lifetimes.no_client is not None and unattended >= lifetimes.no_client:
        return f"no client was connected for {lifetimes.no_client:g} s (no_client_timeout)"
    return None


def shutdown_reason(lines: list[str]) -> str | None:
    """Return the reason for the shutdown of a pool from its scheduler's log, or None."""
    found = [line.partition(SHUTDOWN_PREFIX)[2].strip() for line in lines if SHUTDOWN_PREFIX in line]
    return found[-1] if found else None


def repeat_after(error: Exception, tries: int) -> float | None:
    """Return the seconds before a shutdown that failed `tries` times is retried; None: do not retry."""
    if isinstance(error, PermissionDenied | NoCredentials | BadArgument):
        return None
    if isinstance(error, CredentialsExpired) and tries >= _TRIES_WITH_CREDENTIALS:
        return None
    return _PAUSES[min(tries, len(_PAUSES)) - 1]
