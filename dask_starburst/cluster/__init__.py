"""The cluster for Dask users: a SpecCluster, its adaptive scaling, and its price before a launch."""
