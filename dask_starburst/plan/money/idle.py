"""The idle bill: all costs while nothing runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dask_starburst.plan.images.lifetime import USD_PER_GB_MONTH, monthly_cost

#: USD per GB and month of logs in CloudWatch, us-east-1 (aws-facts §7, from memory).
LOGS_GB_MONTH = 0.03

#: Resources that are kept in an account and are free (aws-facts §7).
FREE = (
    "ECS clusters, capacity providers and task definitions",
    "Auto Scaling groups of size zero, their launch templates and scheduled actions",
    "security groups, IAM roles and instance profiles",
    "SSM parameters of the standard tier, encrypted with the account's own key",
)


@dataclass(frozen=True, slots=True)
class Kept:
    """The resources kept in an account and region.

    Parameters
    ----------
    image_bytes : int or None
        Total compressed size of all images in ECR; None if unknown.
    images : int
        Number of images.
    log_bytes : int or None
        Size of the logs in CloudWatch; None if unknown.
    trouble : tuple of str
        Why a size is unknown, in sentences.
    """

    image_bytes: int | None = 0
    images: int = 0
    log_bytes: int | None = 0
    trouble: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IdleRow:
    """One row of the bill: what, its amount, USD per GB and month, USD a month, and how to reduce it.

    The cost of an unknown amount is None, not zero.
    """

    what: str
    amount: str
    usd_per_gb: float
    usd_per_month: float | None
    less: str


def idle_bill(kept: Kept) -> tuple[IdleRow, ...]:
    """Return everything that costs money while nothing runs, the most expensive first. Everything else is `FREE`.

    Parameters
    ----------
    kept : Kept
        The kept resources.
    """
    images = f"{kept.images} image{'' if kept.images == 1 else 's'}, "
    rows = [
        IdleRow(
            "images in ECR",
            _size(kept.image_bytes, images),
            USD_PER_GB_MONTH,
            None if kept.image_bytes is None else monthly_cost(kept.image_bytes),
            "`starburst image prune`; build.image_ttl_days deletes unused ones",
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
    """Return the USD a month of all rows with a known cost."""
    return sum(row.usd_per_month or 0.0 for row in rows)


def total_text(rows: Iterable[IdleRow]) -> str:
    """Format the monthly cost of all rows, as a lower bound if some are unknown."""
    known = list(rows)
    more = any(row.usd_per_month is None for row in known)
    return f"{'at least ' if more else ''}{cents(total(known))}"


def cents(usd: float) -> str:
    """Format an amount: in cents, ``"3.1 ¢"``; from one dollar on in dollars."""
    return f"${usd:.2f}" if usd >= 1 else f"{usd * 100:.1f} ¢"
