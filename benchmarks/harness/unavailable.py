"""What a computer may lack: a benchmark ends and says so, a test is skipped."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import SkipTest

#: How the last line of stderr begins if nothing was measured.
NOTHING = "nothing is measured:"


class Unavailable(SkipTest):
    """A program or a permission that this computer lacks. Pytest skips a test that raises it."""


def require(*reasons: str) -> None:
    """Raise `Unavailable` with the first reason that is not empty."""
    for reason in filter(None, reasons):
        raise Unavailable(reason)


@contextmanager
def exits_if_unavailable() -> Iterator[None]:
    """Exit with one sentence if this computer lacks something."""
    try:
        yield
    except Unavailable as missing:
        sys.exit(f"{NOTHING} {missing}")
