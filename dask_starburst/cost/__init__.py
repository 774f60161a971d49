"""What a cluster costs."""

from dask_starburst.cost.ledger import Cost, Ledger, Market, Usage
from dask_starburst.cost.price_book import PriceBook

__all__ = ["Cost", "Ledger", "Market", "PriceBook", "Usage"]
