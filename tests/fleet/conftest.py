"""Fixtures of the fleet's tests: an embedded AWS on which tasks are only recorded, and nothing takes time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dask_starburst.local import LocalAWS
from tests.support.pools import Pools


@pytest.fixture(scope="session")
def embedded() -> Iterator[LocalAWS]:
    """Start one embedded AWS for all files of this folder."""
    with LocalAWS(timing="none", processes=False) as running:
        yield running


@pytest.fixture(scope="module")
def pools(aws: LocalAWS) -> Iterator[Pools]:
    """Set up the account that the tests of a file share."""
    shared = Pools(aws)
    yield shared
    shared.aws.close()
