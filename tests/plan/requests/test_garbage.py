"""Which pools are free, in use or expired, and which may be deleted."""

from __future__ import annotations

import pytest

from dask_starburst.plan.requests.claims import Claim
from dask_starburst.plan.requests.garbage import CLAIM_GRACE, GroupFound, PoolFound, assemble, find_garbage

NOW = 1_000_000.0
ARN = "arn:aws:iam::123456789012:user/ann"


def claim(age: float, cleaning: bool = False) -> Claim:
    return Claim("session", "ann", ARN, NOW - age, cleaning)


def pool(claimed: Claim | None = None, lease: float | None = None, types: tuple[str, ...] = ()) -> PoolFound:
    group = GroupFound("starburst-a-0-spot", len(types), True, types, lease)
    return PoolFound("starburst-a-0", (group,), claimed, NOW)


@pytest.mark.parametrize(
    ("found", "state", "garbage"),
    [
        pytest.param(pool(), "free", True, id="not-claimed"),
        pytest.param(pool(lease=NOW + 60), "free", False, id="kept-with-a-lease"),
        pytest.param(pool(types=("c7g.xlarge",)), "free", False, id="kept-with-an-instance"),
        pytest.param(pool(claim(age=9999), lease=NOW + 1), "in use", False, id="lease-renewed"),
        pytest.param(pool(claim(age=CLAIM_GRACE / 2)), "in use", False, id="being-created"),
        pytest.param(pool(claim(age=CLAIM_GRACE + 1)), "expired", True, id="never-started"),
        pytest.param(pool(claim(9999), NOW - 1, ("c7g.xlarge",)), "expired", True, id="lease-expired"),
        pytest.param(pool(claim(age=1, cleaning=True)), "expired", True, id="deletion-interrupted"),
        pytest.param(pool(claim(1, cleaning=True), NOW + 60), "expired", False, id="deletion-but-lease-runs"),
    ],
)
def test_the_state_of_a_pool_follows_from_claim_lease_and_time(found: PoolFound, state: str, garbage: bool) -> None:
    assert found.state == state
    assert [r.name for r in find_garbage([found], [])] == ([found.name] if garbage else [])


def test_only_a_secret_without_a_pool_is_an_orphan() -> None:
    found = pool(claim(1), NOW + 60)
    secrets = ["/starburst/tls/starburst-a-0", "/starburst/tls/starburst-b-0", "/another/application"]
    assert [r.name for r in find_garbage([found], secrets)] == ["/starburst/tls/starburst-b-0"]


def test_a_claim_alone_is_a_pool_and_a_foreign_name_is_not() -> None:
    found = assemble({"foreign": []}, {"starburst-a-0": claim(1)}, NOW)
    assert [p.name for p in found] == ["starburst-a-0"]


def test_a_claim_belongs_to_a_caller_only_if_user_and_arn_match() -> None:
    own = Claim.from_json(claim(1).to_json())
    assert own == claim(1)
    assert own.is_of("ann", ARN)
    assert not own.is_of("bob", ARN)
    assert not own.is_of("ann", ARN + "2")
    old = Claim.from_json('{"session": "s", "owner": "ann", "since": 1}')
    assert not old.is_of("ann", "")


def test_running_instances_are_priced_with_their_addresses() -> None:
    one, two = pool(types=("c7g.xlarge",)).usd_per_hour, pool(types=("c7g.xlarge",) * 2).usd_per_hour
    assert one is not None
    assert two == pytest.approx(2 * one)
    assert pool().usd_per_hour == 0
    assert pool(types=("unknown.large",)).usd_per_hour is None
