"""The placements of a cluster with one worker group."""

from __future__ import annotations

from dask_starburst.catalog.markets import Market
from dask_starburst.plan.groups import DEFAULT, HEAD_PLACEMENT, Placement

SPOT = Placement(DEFAULT, Market.SPOT)
ON_DEMAND = Placement(DEFAULT, Market.ON_DEMAND)
HEAD = HEAD_PLACEMENT
#: The placements by group with ``spot_policy="spot"``, and with a fallback.
ONLY_SPOT = {DEFAULT: (SPOT,)}
WITH_FALLBACK = {DEFAULT: (SPOT, ON_DEMAND)}
