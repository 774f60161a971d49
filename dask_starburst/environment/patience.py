"""Trying again what may work the next time, and not for ever."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import httpx

from dask_starburst.errors import ImageError, RegistryUnavailable

T = TypeVar("T")

ATTEMPTS = 4
#: Seconds before the second attempt; twice as many before each further one.
_FIRST_PAUSE = 0.5


def patiently(attempt: Callable[[], T], what: str) -> T:
    """Return what an attempt gives; after a lost connection, a timeout or a server's error try again.

    Parameters
    ----------
    attempt : callable
        May be called several times.
    what : str
        What it does, for the error.

    Raises
    ------
    RegistryUnavailable
        None of the attempts came through.
    ImageError
        The disk is full, or whatever else the attempt raises that waiting does not mend.
    """
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except (httpx.TransportError, RegistryUnavailable) as error:
            if number == ATTEMPTS:
                raise RegistryUnavailable(f"{what} failed {ATTEMPTS} times: {_words(error)}") from error
            time.sleep(_FIRST_PAUSE * 2 ** (number - 1) * random.uniform(0.5, 1.0))
        except OSError as error:
            raise ImageError(f"{what} failed on this computer: {error}") from error
    raise AssertionError("unreachable")


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
