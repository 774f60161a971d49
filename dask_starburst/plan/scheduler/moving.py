"""How much data a worker can transfer before its instance is interrupted."""

from __future__ import annotations

from dask_starburst.plan.scheduler.notices import MARGIN, NOTICE_SECONDS, POLL_INTERVAL

#: Sustained network bandwidth in bytes a second for each vCPU. The network baseline of the
#: sixth and seventh Graviton generation is 1.876 Gb/s for ``xlarge`` and grows with the size [from memory]; aws-facts
#: §4.2 makes 0.15 to 0.23 GB/s of it. This is the lower end, a quarter of it for each of the four vCPUs.
BANDWIDTH_PER_VCPU = 0.15e9 / 4
#: Factor on the transfer time, because other workers use the network too.
RESERVE = 1.5
#: Seconds until the first byte moves: the scheduler's poll, the request, the connection.
REACTION = 2.0


def bandwidth(vcpus: int) -> float:
    """Return the bandwidth of a worker in bytes a second."""
    return vcpus * BANDWIDTH_PER_VCPU


def most_bytes(rate: float, notice: float = NOTICE_SECONDS) -> float:
    """Return how many bytes can be moved from one worker within a notice.

    Parameters
    ----------
    rate : float
        Bandwidth in bytes a second.
    notice : float
        Seconds from the notice to the interruption.

    Examples
    --------
    >>> f"{most_bytes(bandwidth(4)) / 1e9:.1f} GB"
    '15.2 GB'
    """
    return max(notice - MARGIN - POLL_INTERVAL - REACTION, 0.0) * rate


def must_move(held: float, rate: float, left: float) -> bool:
    """Return whether a worker that still takes part in a shuffle has to stop now, so that its data can be moved.

    Parameters
    ----------
    held : float
        Bytes without another copy.
    rate : float
        Bandwidth in bytes a second.
    left : float
        Seconds until the worker is closed, even if it still holds data.

    Examples
    --------
    >>> must_move(1.5e9, bandwidth(4), left=100.0), must_move(12e9, bandwidth(4), left=100.0)
    (False, True)
    """
    return left <= REACTION + RESERVE * held / rate


def restrict_to_staying(
    requested: frozenset[str] | None, loose: bool, staying: frozenset[str]
) -> tuple[frozenset[str] | None, bool]:
    """Return the workers that a task is restricted to, and whether loosely, so that it avoids leaving workers.

    Parameters
    ----------
    requested : frozenset of str, optional
        Addresses that the user restricts it to; None is all.
    loose : bool
        Whether it may run elsewhere if none of them is available.
    staying : frozenset of str
        Addresses of the workers that stay.

    Examples
    --------
    >>> sorted(restrict_to_staying(None, False, frozenset({"b", "c"}))[0])
    ['b', 'c']
    >>> restrict_to_staying(frozenset({"a", "b"}), False, frozenset({"b", "c"}))
    (frozenset({'b'}), False)
    """
    if not staying:
        return requested, loose
    if requested is None:
        return staying, True
    if requested & staying:
        return requested & staying, loose
    return (staying, True) if loose else (requested, loose)


def too_much(held: float, rate: float, notice: float = NOTICE_SECONDS) -> str | None:
    """Return a warning about a worker with more data than can be moved, or None.

    Parameters
    ----------
    held : float
        Bytes without another copy.
    rate, notice : float
        As for `most_bytes`.
    """
    most = most_bytes(rate, notice)
    if held <= most:
        return None
    return (
        f"{held / 1e9:.2f} GB have no other copy, and about {most / 1e9:.2f} GB can be moved within {notice:.0f} s"
        f" at {rate / 1e9:.2f} GB/s; Dask recomputes the rest. Use more and smaller workers to move more."
    )
