"""A pool: an ECS cluster with its Auto Scaling groups, checked out by one Dask cluster at a time."""
