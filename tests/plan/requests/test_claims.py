"""Claims of a pool, as AWS's parameters hold them."""

from __future__ import annotations

from dask_starburst.plan.requests.claims import Claim, Series, held, newest_of, series_of

ANN = Claim("a", "ann", "arn:ann", 1.0)
BOB = Claim("b", "bob", "arn:bob", 2.0, cleaning=True)


def test_the_newest_claim_counts_and_a_freed_one_holds_nothing() -> None:
    assert Series({}).holder is None
    claimed = Series({9: ANN, 10: BOB})
    assert (claimed.holder, claimed.number, claimed.outdated) == (BOB, 10, (9,))
    assert claimed.is_held_by("b")
    assert not claimed.is_held_by("a")
    freed = claimed.freed(5.0)
    assert freed is not None
    free = Series({9: ANN, 10: freed})
    assert (free.holder, free.newest, free.number) == (None, freed, 10)
    assert free.freed(6.0) is None


def test_a_claim_is_read_as_it_was_written() -> None:
    for claim in (ANN, BOB, Series({1: BOB}).freed(7.5)):
        assert claim is not None
        assert Claim.from_json(claim.to_json()) == claim


def test_parameters_are_claims_by_pool_and_number() -> None:
    freed = Series({1: BOB}).freed(3.0)
    assert freed is not None
    found = series_of(
        {
            "/starburst/claims/starburst-a-0/2": ANN.to_json(),
            "/starburst/claims/starburst-a-0/1": BOB.to_json(),
            "/starburst/claims/starburst-a-1/1": freed.to_json(),
            "/starburst/claims/starburst-a-2": "of another version",
        }
    )
    assert newest_of(found) == {"starburst-a-0": ANN, "starburst-a-1": freed}
    assert held(found) == {"starburst-a-0"}
