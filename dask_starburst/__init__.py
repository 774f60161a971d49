"""Dask clusters in your own AWS account that leave nothing running."""

from dask_starburst.cluster import StarburstCluster
from dask_starburst.settings import Settings, WorkerShape

__all__ = ["Settings", "StarburstCluster", "WorkerShape"]
