"""The bundled catalogue of instance types, prices and quotas."""

from dask_starburst.catalog.fargate import FargateRates, fargate_rates
from dask_starburst.catalog.instance_types import Arch, InstanceType, catalogue, find
from dask_starburst.catalog.prices import (
    EBS_GP3_GB_MONTH,
    PUBLIC_IPV4_HOUR,
    Price,
    PriceTable,
    price_table,
    regions,
    sources,
)

__all__ = [
    "EBS_GP3_GB_MONTH",
    "PUBLIC_IPV4_HOUR",
    "Arch",
    "FargateRates",
    "InstanceType",
    "Price",
    "PriceTable",
    "catalogue",
    "fargate_rates",
    "find",
    "price_table",
    "regions",
    "sources",
]
