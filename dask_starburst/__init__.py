"""Dask clusters in your own AWS account that leave nothing running."""

from typing import TYPE_CHECKING, Any

from dask_starburst.settings import Settings, WorkerShape

if TYPE_CHECKING:
    from dask_starburst.cluster import StarburstCluster

__all__ = ["Settings", "StarburstCluster", "WorkerShape"]


def __getattr__(name: str) -> Any:
    """Import the cluster when it is asked for: containers and the embedded AWS start a second sooner without it."""
    if name != "StarburstCluster":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dask_starburst.cluster import StarburstCluster

    return StarburstCluster


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
