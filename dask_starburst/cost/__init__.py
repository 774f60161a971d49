"""The cost of a cluster."""

from dask_starburst.cost.bill import Cost
from dask_starburst.cost.instance_cost import Market
from dask_starburst.cost.ledger import Ledger
from dask_starburst.cost.price_book import PriceBook

__all__ = ["Cost", "Ledger", "Market", "PriceBook"]
