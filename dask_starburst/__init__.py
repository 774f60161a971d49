"""Dask clusters in your own AWS account that leave nothing running."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dask_starburst.settings import Settings, WorkerShape

if TYPE_CHECKING:
    from dask_starburst.cluster import StarburstCluster
    from dask_starburst.preview import quote
    from dask_starburst.sampling import estimate

__all__ = ["Settings", "StarburstCluster", "WorkerShape", "estimate", "quote"]

#: In which module each of those is that are imported when they are asked for.
_LATER = {"StarburstCluster": "cluster", "estimate": "sampling", "quote": "preview"}


def __getattr__(name: str) -> Any:
    """Import what is asked for: containers and the embedded AWS start a second sooner without a cluster."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
