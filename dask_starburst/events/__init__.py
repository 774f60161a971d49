"""The events of a cluster: one class for each kind, and the stream that they are emitted to."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dask_starburst.events.aws import (
        CallFailed,
        CredentialsAccepted,
        CredentialsRefused,
        OutageEnded,
        StartDelayed,
    )
    from dask_starburst.events.capacity import (
        CapacityRequested,
        LaunchFailed,
        QuotaShort,
        QuotaUnknown,
        SparesRequested,
        TypesChosen,
    )
    from dask_starburst.events.cluster import (
        AdaptiveStopped,
        ClusterClosed,
        ClusterFailed,
        ConfigurationLeftOut,
        DaskError,
        HookFailed,
        HookMessage,
        WaitExceedsMaximum,
    )
    from dask_starburst.events.event import Event
    from dask_starburst.events.image import (
        ImageBuilding,
        ImageBuilt,
        ImageFound,
        ImageNote,
        ImageProgress,
        ImageUnchecked,
    )
    from dask_starburst.events.instances import (
        InstanceConnected,
        InstanceGivenUp,
        InstanceLaunched,
        InstanceTerminated,
        InstanceTimestamps,
    )
    from dask_starburst.events.money import BudgetWarning, CostSoFar, WorkersFreed, WorkersOverBudget
    from dask_starburst.events.pool import AccountSetup, LeaseRenewed, PoolClaimed, PoolKeptWarm, PoolLeft, RolesUnseen
    from dask_starburst.events.spot import SpotInterruption, SpotRebalance, WorkerLeaving, WorkerMovesBack
    from dask_starburst.events.stream import Emit, EventLog
    from dask_starburst.events.workers import (
        TaskRefused,
        TaskUnrunnable,
        WorkerDelayed,
        WorkerFallback,
        WorkerLost,
        WorkerReady,
        WorkerRetired,
        WorkerRetiring,
        WorkerRetried,
        WorkerStartFailed,
        WorkerStopped,
    )

__all__ = [
    "AccountSetup",
    "AdaptiveStopped",
    "BudgetWarning",
    "CallFailed",
    "CapacityRequested",
    "ClusterClosed",
    "ClusterFailed",
    "ConfigurationLeftOut",
    "CostSoFar",
    "CredentialsAccepted",
    "CredentialsRefused",
    "DaskError",
    "Emit",
    "Event",
    "EventLog",
    "HookFailed",
    "HookMessage",
    "ImageBuilding",
    "ImageBuilt",
    "ImageFound",
    "ImageNote",
    "ImageProgress",
    "ImageUnchecked",
    "InstanceConnected",
    "InstanceGivenUp",
    "InstanceLaunched",
    "InstanceTerminated",
    "InstanceTimestamps",
    "LaunchFailed",
    "LeaseRenewed",
    "OutageEnded",
    "PoolClaimed",
    "PoolKeptWarm",
    "PoolLeft",
    "QuotaShort",
    "QuotaUnknown",
    "RolesUnseen",
    "SparesRequested",
    "SpotInterruption",
    "SpotRebalance",
    "StartDelayed",
    "TaskRefused",
    "TaskUnrunnable",
    "TypesChosen",
    "WaitExceedsMaximum",
    "WorkerDelayed",
    "WorkerFallback",
    "WorkerLeaving",
    "WorkerLost",
    "WorkerMovesBack",
    "WorkerReady",
    "WorkerRetired",
    "WorkerRetiring",
    "WorkerRetried",
    "WorkerStartFailed",
    "WorkerStopped",
    "WorkersFreed",
    "WorkersOverBudget",
]

#: The modules of all names. They are imported when a name is first used: most belong to a running cluster only.
_MODULES = ("event", "stream", "aws", "capacity", "cluster", "image", "instances", "money", "pool", "spot", "workers")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in _MODULES:
            if (found := vars(import_module(f"{__name__}.{module}")).get(name)) is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
