"""Trying again what may work the next time, and not for ever."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

import httpx

from dask_starburst.environment.tools import cancellation
from dask_starburst.errors import RegistryUnavailable

T = TypeVar("T")

ATTEMPTS = 4
#: Seconds before the second attempt; twice as many before each further one.
FIRST_PAUSE = 0.5
#: So long we wait when a registry says how long; one that wants more, wants us to go.
_LONGEST_PAUSE = 60.0


class Busy(Exception):
    """A registry has had too many requests, and may say when to come again.

    Parameters
    ----------
    message : str
        What it said.
    after : str, optional
        Its header ``Retry-After``: seconds, or a date, which we do not heed.
    """

    def __init__(self, message: str, after: str | None) -> None:
        super().__init__(message)
        self.seconds = float(after) if after and after.isdecimal() else 0.0


def patiently(
    attempt: Callable[[], T],
    what: str,
    progress: Callable[[], int] = lambda: 0,
    first: float = FIRST_PAUSE,
    attempts: int = ATTEMPTS,
) -> T:
    """Return what an attempt gives; after a lost connection, a timeout or a server's error try again.

    Parameters
    ----------
    attempt : callable
        May be called several times.
    what : str
        What it does, for the error.
    progress : callable, optional
        How far it is. Attempts are counted from the last one that came further.
    first : float
        Seconds before the second attempt.
    attempts : int
        How many attempts in a row may fail.

    Raises
    ------
    RegistryUnavailable
        None of the attempts came through.
    """
    number, had = 1, progress()
    while True:
        try:
            return attempt()
        except (httpx.TransportError, RegistryUnavailable, Busy) as error:
            if (have := progress()) > had:
                number, had = 1, have
            pause = _pause(error, number, first)
            if number >= attempts or pause > _LONGEST_PAUSE:
                raise _given_up(what, number, error) from error
        number += 1
        cancellation.pause(pause)


def _pause(error: Exception, number: int, first: float) -> float:
    own = first * 2.0 ** (number - 1) * random.uniform(0.5, 1.0)
    return max(own, error.seconds) if isinstance(error, Busy) else own


def _given_up(what: str, number: int, error: Exception) -> RegistryUnavailable:
    times = f" {number} times" if number > 1 else ""
    if isinstance(error, Busy):
        wait = f"in {error.seconds:.0f} s" if error.seconds else "later"
        way = f"Try again {wait}; who has logged in is often allowed more."
    else:
        way = "Look whether it is up and can be reached from here (HTTPS_PROXY=… if there is a proxy), and start again."
    said = (str(error) or type(error).__name__).rstrip(".")
    return RegistryUnavailable(f"{what} failed{times}: {said}. {way}")
