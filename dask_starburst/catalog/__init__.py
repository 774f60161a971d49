"""What AWS sells: instance types and what they cost. Bundled, so that nothing is asked and nothing is guessed."""

from dask_starburst.catalog.instance_types import Arch, InstanceType, catalogue, find
from dask_starburst.catalog.prices import EBS_GP3_GB_MONTH, PUBLIC_IPV4_HOUR, Price, PriceTable, price_table

__all__ = [
    "EBS_GP3_GB_MONTH",
    "PUBLIC_IPV4_HOUR",
    "Arch",
    "InstanceType",
    "Price",
    "PriceTable",
    "catalogue",
    "find",
    "price_table",
]
