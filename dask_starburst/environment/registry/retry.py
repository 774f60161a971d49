"""Retry requests to a registry, a limited number of times."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import httpx

from dask_starburst.environment.tools import cancellation
from dask_starburst.errors import RegistryUnavailable

T = TypeVar("T")

ATTEMPTS = 4
#: Seconds before the second attempt; doubled for each further one.
FIRST_PAUSE = 0.5
#: The longest ``Retry-After`` that is waited for, in seconds.
_MAX_PAUSE = 60.0


class TooManyRequests(Exception):
    """A registry answered 429, optionally with a delay.

    Parameters
    ----------
    message : str
        The registry's message.
    after : str, optional
        The ``Retry-After`` header: seconds, or a date, which is ignored.
    """

    def __init__(self, message: str, after: str | None) -> None:
        super().__init__(message)
        self.seconds = float(after) if after and after.isdecimal() else 0.0


def retry(
    attempt: Callable[[], T],
    what: str,
    progress: Callable[[], int] = lambda: 0,
    first: float = FIRST_PAUSE,
    attempts: int = ATTEMPTS,
) -> T:
    """Call a function; retry it after a lost connection, a timeout or a server error.

    Parameters
    ----------
    attempt : callable
        The function, called several times.
    what : str
        Description of the operation, for the error.
    progress : callable, optional
        Returns a measure of progress. An attempt that makes progress resets the count.
    first : float
        Seconds before the second attempt.
    attempts : int
        Number of consecutive attempts.

    Raises
    ------
    RegistryUnavailable
        All attempts failed.
    """
    number, had = 1, progress()
    while True:
        try:
            return attempt()
        except (httpx.TransportError, RegistryUnavailable, TooManyRequests) as error:
            if (have := progress()) > had:
                number, had = 1, have
            pause = _pause(error, number, first)
            if number >= attempts or pause > _MAX_PAUSE:
                raise _retries_exhausted(what, number, error) from error
        number += 1
        cancellation.pause(pause)


def _pause(error: Exception, number: int, first: float) -> float:
    own = first * 2.0 ** (number - 1) * random.uniform(0.5, 1.0)
    return max(own, error.seconds) if isinstance(error, TooManyRequests) else own


def _retries_exhausted(what: str, number: int, error: Exception) -> RegistryUnavailable:
    times = f" {number} times" if number > 1 else ""
    if isinstance(error, TooManyRequests):
        wait = f"in {error.seconds:.0f} s" if error.seconds else "later"
        hint = f"Try again {wait}; registries often allow more requests after a login."
    else:
        hint = "Check that the registry is up and reachable from here (HTTPS_PROXY=… behind a proxy), and try again."
    reason = (str(error) or type(error).__name__).rstrip(".")
    return RegistryUnavailable(f"{what} failed{times}: {reason}. {hint}")
