"""The settings, from `starburst.yaml`, the environment and keyword arguments."""

from dask_starburst.settings.arguments import Arguments
from dask_starburst.settings.checks import check_count, check_names
from dask_starburst.settings.given import UNSET, Unset, given
from dask_starburst.settings.groups import (
    ARCHITECTURES,
    BUILDERS,
    LOG_RETENTIONS,
    SPOT_POLICIES,
    AdaptiveSettings,
    BuildSettings,
    GroupSettings,
    KeepSettings,
    MoneySettings,
    NetworkSettings,
    SchedulerSettings,
    SpotSettings,
    StorageSettings,
    Timeouts,
    WorkerShape,
)
from dask_starburst.settings.model import Settings
from dask_starburst.settings.quantities import parse_duration
from dask_starburst.settings.signature import shows_settings

__all__ = [
    "ARCHITECTURES",
    "BUILDERS",
    "LOG_RETENTIONS",
    "SPOT_POLICIES",
    "UNSET",
    "AdaptiveSettings",
    "Arguments",
    "BuildSettings",
    "GroupSettings",
    "KeepSettings",
    "MoneySettings",
    "NetworkSettings",
    "SchedulerSettings",
    "Settings",
    "SpotSettings",
    "StorageSettings",
    "Timeouts",
    "Unset",
    "WorkerShape",
    "check_count",
    "check_names",
    "given",
    "parse_duration",
    "shows_settings",
]
