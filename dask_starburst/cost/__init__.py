"""What a cluster costs."""

from dask_starburst.cost.ledger import Cost, Ledger, Market, Usage

__all__ = ["Cost", "Ledger", "Market", "Usage"]
