"""The embedded AWS: moto as control plane, real Dask processes as data plane."""

from __future__ import annotations

from dask_starburst.local import faults
from dask_starburst.local.client import LocalAWS
from dask_starburst.local.control_client import LocalStatus

__all__ = ["LocalAWS", "LocalStatus", "faults"]
