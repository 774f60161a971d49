"""The purchase options of EC2."""

from __future__ import annotations

from enum import StrEnum


class Market(StrEnum):
    """How an instance is bought: on demand, or as Spot capacity that AWS may interrupt."""

    SPOT = "spot"
    ON_DEMAND = "on-demand"

    # Enum's __hash__ is a Python function, and each step of the loop needs tens of thousands of hashes.
    __hash__ = str.__hash__

    @property
    def words(self) -> str:
        """The market in a sentence: ``"Spot"`` or ``"on demand"``."""
        return "Spot" if self is Market.SPOT else "on demand"
