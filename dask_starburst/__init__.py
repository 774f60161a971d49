"""Dask clusters in your own AWS account that leave nothing running."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask_starburst.cluster.estimate import estimate
    from dask_starburst.cluster.quote import quote
    from dask_starburst.cluster.starburst import StarburstCluster
    from dask_starburst.settings import Settings, WorkerShape

__all__ = ["Settings", "StarburstCluster", "WorkerShape", "estimate", "quote"]

#: The module of each, which is imported when the name is first used: Dask's own command line imports this package to
#: register ours, and every scheduler and worker imports it too.
_LATER = {
    "Settings": "settings",
    "StarburstCluster": "cluster.starburst",
    "WorkerShape": "settings",
    "estimate": "cluster.estimate",
    "quote": "cluster.quote",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
