"""The settings, from `starburst.yaml`, the environment and keyword arguments."""

from dask_starburst.settings.checks import ARCHITECTURES, LOG_RETENTIONS, SPOT_POLICIES, check_count, check_names
from dask_starburst.settings.given import UNSET, Unset, given
from dask_starburst.settings.model import (
    AdaptiveSettings,
    BuildSettings,
    GroupSettings,
    NetworkSettings,
    SchedulerSettings,
    Settings,
    StorageSettings,
    Timeouts,
    WorkerShape,
)
from dask_starburst.settings.reading import parse_duration

__all__ = [
    "ARCHITECTURES",
    "LOG_RETENTIONS",
    "SPOT_POLICIES",
    "UNSET",
    "AdaptiveSettings",
    "BuildSettings",
    "GroupSettings",
    "NetworkSettings",
    "SchedulerSettings",
    "Settings",
    "StorageSettings",
    "Timeouts",
    "Unset",
    "WorkerShape",
    "check_count",
    "check_names",
    "given",
    "parse_duration",
]
