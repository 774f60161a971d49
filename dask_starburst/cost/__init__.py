"""The cost of a cluster."""

from dask_starburst.catalog.markets import Market
from dask_starburst.cost.bill import Cost
from dask_starburst.cost.ledger import Ledger
from dask_starburst.cost.price_book import PriceBook

__all__ = ["Cost", "Ledger", "Market", "PriceBook"]
