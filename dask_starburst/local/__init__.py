"""The embedded AWS: moto as control plane, real Dask processes as data plane."""

from __future__ import annotations

from dask_starburst.local.client import LocalAWS, LocalStatus
from dask_starburst.local.faults import events as weather

__all__ = ["LocalAWS", "LocalStatus", "weather"]
