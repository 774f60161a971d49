"""Events of costs and of cost caps. Amounts are in US dollars."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dask_starburst.events.event import PoolEvent

#: The cost caps that are warned of.
BudgetSetting: TypeAlias = Literal["max_total_cost", "cost_alert_threshold"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSoFar(PoolEvent):
    """The cost of the cluster so far, and of an hour now."""

    kind = "cost-so-far"
    usd: float
    usd_per_hour: float

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"pool {self.pool} has cost ${self.usd:.4f} so far and costs ${self.usd_per_hour:.4f} an hour now"


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetWarning(PoolEvent):
    """The cluster is close to ``max_total_cost``, or exceeds ``cost_alert_threshold``; `limit` is its value."""

    kind = "budget-warning"
    level = logging.WARNING
    setting: BudgetSetting
    limit: float
    usd: float
    usd_per_hour: float

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        cap, rate = f"{self.setting}={self.limit:g}", f"${self.usd_per_hour:.4f} an hour"
        if self.setting == "cost_alert_threshold":
            return f"the cluster costs up to {rate}, more than {cap}"
        end = "once instances run again"
        if self.usd_per_hour > 0:
            end = f"in {(self.limit - self.usd) / self.usd_per_hour * 60:.0f} minutes"
        return f"the cluster has cost ${self.usd:.4f} of {cap}; at {rate} it closes {end}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersOverBudget(PoolEvent):
    """Some `workers` wait, because a cost cap does not allow them. `text` says which and what to do."""

    kind = "workers-over-budget"
    level = logging.WARNING
    workers: int
    usd_per_hour: float
    text: str

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersFreed(PoolEvent):
    """No worker is over budget any more."""

    kind = "workers-freed"

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return "no worker is over budget any more"
