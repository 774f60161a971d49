"""How much data a worker can hand over before its instance is taken."""

from __future__ import annotations

from dask_starburst.plan.scheduler.notices import MARGIN, NOTICE_SECONDS, POLL_INTERVAL

#: Bytes a second that an instance may send for as long as it likes, for each vCPU. The network baseline of the
#: sixth and seventh Graviton generation is 1.876 Gb/s for ``xlarge`` and grows with the size [from memory]; aws-facts
#: §4.2 makes 0.15 to 0.23 GB/s of it. This is the lower end, a quarter of it for each of the four vCPUs.
BANDWIDTH_PER_VCPU = 0.15e9 / 4
#: What is moved while others work takes longer than alone: so many times the time is kept for it.
RESERVE = 1.5
#: Seconds until the first byte moves: the scheduler's look, the request, the connection.
REACTION = 2.0


def bandwidth(vcpus: int) -> float:
    """Return the bytes a second that a worker on so many vCPUs can count on."""
    return vcpus * BANDWIDTH_PER_VCPU


def most_bytes(rate: float, notice: float = NOTICE_SECONDS) -> float:
    """Return how many bytes can be moved from one worker in a notice.

    Parameters
    ----------
    rate : float
        Bandwidth in bytes a second.
    notice : float
        Seconds from when AWS says it to when it takes the instance.

    Examples
    --------
    >>> f"{most_bytes(bandwidth(4)) / 1e9:.1f} GB"
    '15.2 GB'
    """
    return max(notice - MARGIN - POLL_INTERVAL - REACTION, 0.0) * rate


def must_move(held: float, rate: float, left: float) -> bool:
    """Whether a worker that still works for others has to stop now, if what it holds is to be moved in time.

    Parameters
    ----------
    held : float
        Bytes of what only this worker holds.
    rate : float
        Bandwidth in bytes a second.
    left : float
        Seconds until it is closed with what it still has.

    Examples
    --------
    >>> must_move(1.5e9, bandwidth(4), left=100.0), must_move(12e9, bandwidth(4), left=100.0)
    (False, True)
    """
    return left <= REACTION + RESERVE * held / rate


def restrict_to_staying(
    requested: frozenset[str] | None, loose: bool, staying: frozenset[str]
) -> tuple[frozenset[str] | None, bool]:
    """Return to which workers a task is restricted, and whether loosely, so that workers that leave are avoided.

    Parameters
    ----------
    requested : frozenset of str, optional
        Addresses that the user restricts it to; None is all.
    loose : bool
        Whether the user lets it run elsewhere when none of them is there.
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
    """Return the sentence that warns of a worker with more than can be moved, or None.

    Parameters
    ----------
    held : float
        Bytes of what only this worker holds.
    rate, notice : float
        As for `most_bytes`.
    """
    most = most_bytes(rate, notice)
    if held <= most:
        return None
    return (
        f"it alone holds {held / 1e9:.2f} GB, and about {most / 1e9:.2f} GB can be moved in a notice of {notice:.0f} s"
        f" at {rate / 1e9:.2f} GB/s; Dask computes the rest again. More and smaller workers can move more."
    )
