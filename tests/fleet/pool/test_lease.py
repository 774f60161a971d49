"""The lease of a pool: when it is renewed, and when it has ended."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from dask_starburst.errors import LeaseExpired, Throttled
from dask_starburst.fleet.pool.lease import Lease

LENGTH = 1800.0
NOW = 1000.0


class Pool:
    """A pool that AWS has emptied or not, and the ends of the leases that were put on it."""

    def __init__(self, *, open: bool = True, error: Exception | None = None) -> None:
        self.open, self.error, self.until = open, error, list[float]()

    async def is_claimed_and_open(self) -> bool:
        return self.open

    async def renew(self, until: float) -> None:
        if self.error is not None:
            raise self.error
        self.until.append(until)


def renewed(lease: Lease, pool: Pool, now: float) -> bool:
    return asyncio.run(lease.renew(cast(Any, pool), now))


def test_it_is_renewed_when_a_third_has_passed_so_that_two_failures_do_not_end_the_cluster() -> None:
    lease, pool = Lease(LENGTH, NOW), Pool()
    assert [renewed(lease, pool, NOW + passed) for passed in (0, 599, 600, 601, 1199, 1200)] == [
        False,
        False,
        True,
        False,
        False,
        True,
    ]
    assert pool.until == [NOW + 600 + LENGTH, NOW + 1200 + LENGTH]


def test_a_renewal_that_aws_refuses_is_due_again_at_once() -> None:
    lease, pool = Lease(LENGTH, NOW), Pool(error=Throttled("AWS throttles", code="Throttling"))
    with pytest.raises(Throttled):
        renewed(lease, pool, NOW + 900)
    assert lease.until == NOW + LENGTH
    pool.error = None
    assert renewed(lease, pool, NOW + 901)


def test_while_the_cluster_closes_it_is_never_renewed() -> None:
    lease, pool = Lease(LENGTH, NOW), Pool()
    lease.closing = True
    assert not renewed(lease, pool, NOW + 5 * LENGTH)
    assert pool.until == []


def test_after_its_end_the_cluster_goes_on_if_the_scheduler_has_renewed_it() -> None:
    lease, pool = Lease(LENGTH, NOW), Pool()
    assert renewed(lease, pool, NOW + LENGTH + 3600)
    assert lease.until == NOW + 2 * LENGTH + 3600


def test_after_its_end_an_emptied_pool_is_not_opened_again_and_the_error_says_what_to_do() -> None:
    lease, pool = Lease(LENGTH, NOW), Pool(open=False)
    with pytest.raises(LeaseExpired, match=r"longer than 1800 s.*A longer keep.lease survives longer sleep"):
        renewed(lease, pool, NOW + LENGTH)
    assert pool.until == []


def test_before_its_end_aws_is_not_asked_whether_the_pool_is_open() -> None:
    assert renewed(Lease(LENGTH, NOW), Pool(open=False), NOW + LENGTH - 1)
