"""The types of the keyword arguments that are settings.

Made of the declarations in dask_starburst/settings by `python -m tools.settings_files`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

from dask_starburst.settings.groups import (
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


class WorkerShapeDict(TypedDict, total=False):
    """Keys of `WorkerShape`."""

    nthreads: int | None
    memory_limit: int | str | None


class GroupDict(TypedDict, total=False):
    """Keys of `GroupSettings`."""

    worker: WorkerShape | WorkerShapeDict
    instance_types: Iterable[str] | None
    arch: Literal["arm64", "x86_64"] | None
    policy: Literal["spot", "spot_with_fallback", "on-demand"] | None
    n_workers: int | None
    minimum: int
    maximum: int | None
    env: Mapping[str, str]


class SpotDict(TypedDict, total=False):
    """Keys of `SpotSettings`."""

    policy: Literal["spot", "spot_with_fallback", "on-demand"]
    notices: bool
    on_rebalance: Literal["replace", "ignore"]


class MoneyDict(TypedDict, total=False):
    """Keys of `MoneySettings`."""

    max_hourly_cost: float | None
    max_total_cost: float | None
    cost_alert_threshold: float | None


class KeepDict(TypedDict, total=False):
    """Keys of `KeepSettings`."""

    idle_timeout: float | str | None
    no_client_timeout: float | str | None
    warm: int
    warm_timeout: float | str
    lease: float | str


class BuildDict(TypedDict, total=False):
    """Keys of `BuildSettings`."""

    builder: Literal["direct", "buildx"]
    base: str
    repository: str
    add: Iterable[str]
    exclude: Iterable[str]
    image_ttl_days: int | None
    modules: Literal["by-value", "package", "none"]
    compression: Literal["zstd", "gzip"]
    dockerfile: str | None
    apt: Iterable[str]


class SchedulerDict(TypedDict, total=False):
    """Keys of `SchedulerSettings`."""

    instance_type: str | None
    port: int
    dashboard_port: int
    dashboard: bool


class AdaptiveDict(TypedDict, total=False):
    """Keys of `AdaptiveSettings`."""

    minimum: int
    maximum: int
    interval: float | str
    scale_down_after: float | str | None
    target_duration: float | str


class NetworkDict(TypedDict, total=False):
    """Keys of `NetworkSettings`."""

    access: Literal["public", "private"]
    vpc: str | None
    subnet: str | None
    subnets: Iterable[str]
    security_groups: Iterable[str]
    caller: str | None
    checkip_url: str


class TimeoutsDict(TypedDict, total=False):
    """Keys of `Timeouts`."""

    capacity: float | str
    fallback: float | str
    connect: float | str
    retire: float | str
    poll: float | str
    consistency: float | str
    close: float | str


class StorageDict(TypedDict, total=False):
    """Keys of `StorageSettings`."""

    volume_size: int
    log_retention: int
    container_insights: Literal["disabled", "enabled", "enhanced"]


class Arguments(TypedDict, total=False):
    """Keyword arguments of `StarburstCluster`."""

    n_workers: int | None
    arch: Literal["arm64", "x86_64"]
    instance_types: Iterable[str] | None
    worker: WorkerShape | WorkerShapeDict
    worker_groups: Mapping[str, GroupSettings | GroupDict]
    spot: SpotSettings | SpotDict
    image: str | None
    environment: str | None
    hooks: Any
    env: Mapping[str, str]
    send_dask_config: bool
    region: str | None
    profile: str | None
    cloud: Literal["local"] | None
    endpoint_url: str | None
    name: str | None
    quiet: bool
    max_workers: int
    money: MoneySettings | MoneyDict
    keep: KeepSettings | KeepDict
    security: Any
    tags: Mapping[str, str]
    build: BuildSettings | BuildDict
    scheduler: SchedulerSettings | SchedulerDict
    adaptive: AdaptiveSettings | AdaptiveDict
    network: NetworkSettings | NetworkDict
    timeouts: Timeouts | TimeoutsDict
    storage: StorageSettings | StorageDict
