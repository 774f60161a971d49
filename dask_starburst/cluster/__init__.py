"""The cluster as a Dask user sees it: a SpecCluster, its adaptive scaling, its price before a launch."""
