"""The idle bill: what goes on costing when nothing runs, in full."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dask_starburst.plan.images.lifetime import USD_PER_GB_MONTH, monthly_cost

#: USD for a GB of logs that CloudWatch keeps for a month, us-east-1 (aws-facts §7, from memory).
LOGS_GB_MONTH = 0.03

#: What is kept in an account and costs nothing by itself (aws-facts §7).
FREE = (
    "ECS clusters, capacity providers and task definitions",
    "Auto Scaling groups of size zero, their launch templates and scheduled actions",
    "security groups, IAM roles and instance profiles",
    "SSM parameters of the standard tier, encrypted with the account's own key",
)


@dataclass(frozen=True, slots=True)
class Kept:
    """What there is in an account and region.

    Parameters
    ----------
    image_bytes : int or None
        What all images in ECR take together, compressed; None if AWS does not tell.
    images : int
        How many there are.
    log_bytes : int or None
        What CloudWatch keeps of our logs; None if AWS does not tell.
    trouble : tuple of str
        Why AWS does not tell, in sentences.
    """

    image_bytes: int | None = 0
    images: int = 0
    log_bytes: int | None = 0
    trouble: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IdleRow:
    """One row of the bill: what, how much of it, at USD a GB and month, USD a month, and how to be rid of it.

    What AWS does not tell costs None: never nothing.
    """

    what: str
    amount: str
    usd_per_gb: float
    usd_per_month: float | None
    less: str


def idle_bill(kept: Kept) -> tuple[IdleRow, ...]:
    """Return everything that costs when nothing runs, the dearest first. All else is `FREE`.

    Parameters
    ----------
    kept : Kept
        What there is.
    """
    images = f"{kept.images} image{'' if kept.images == 1 else 's'}, "
    rows = [
        IdleRow(
            "images in ECR",
            _size(kept.image_bytes, images),
            USD_PER_GB_MONTH,
            None if kept.image_bytes is None else monthly_cost(kept.image_bytes),
            "`starburst image prune`; ecr_image_ttl_days deletes what nobody uses",
        ),
        IdleRow(
            "logs in CloudWatch",
            _size(kept.log_bytes),
            LOGS_GB_MONTH,
            None if kept.log_bytes is None else kept.log_bytes / 1e9 * LOGS_GB_MONTH,
            "a shorter storage.log_retention",
        ),
    ]
    return tuple(sorted(rows, key=lambda row: -(row.usd_per_month or 0.0)))


def _size(count: int | None, before: str = "") -> str:
    if count is None:
        return "unknown"
    return before + (f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB")


def total(rows: Iterable[IdleRow]) -> float:
    """Return the USD a month of all rows that are known."""
    return sum(row.usd_per_month or 0.0 for row in rows)


def total_text(rows: Iterable[IdleRow]) -> str:
    """Write what all rows cost a month, and that it may be more where not all is known."""
    known = list(rows)
    more = any(row.usd_per_month is None for row in known)
    return f"{'at least ' if more else ''}{cents(total(known))}"


def cents(usd: float) -> str:
    """Write an amount in cents, as small ones are read best: ``"3.1 ¢"``; from a dollar on in dollars."""
    return f"${usd:.2f}" if usd >= 1 else f"{usd * 100:.1f} ¢"
