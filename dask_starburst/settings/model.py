"""The settings of a cluster, with their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import dask.config
import yaml

from dask_starburst.settings.checks import check
from dask_starburst.settings.given import given
from dask_starburst.settings.reading import as_mapping, build, merge


def _defaults() -> dict[str, Any]:
    text = resources.files("dask_starburst").joinpath("starburst.yaml").read_text()
    # libyaml's loader, if PyYAML has it, is ten times faster; this runs on every import of the cluster class.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loaded: dict[str, Any] = yaml.load(text, loader)
    return loaded


def _declare(defaults: dict[str, Any]) -> None:
    """Add the defaults to Dask's configuration, but keep the user's values of a wrong type.

    Dask would replace a value that is not a mapping by the defaults. Keep it, so that it is refused when used.
    """
    written = dask.config.get("starburst", None)
    groups = {name for name, value in defaults["starburst"].items() if isinstance(value, dict)}
    wrong: dict[str, Any] = {}
    if isinstance(written, Mapping):  # checked now: the next call modifies it in place
        wrong = {k: v for k, v in written.items() if k in groups and v is not None and not isinstance(v, Mapping)}
    dask.config.update_defaults(defaults)
    if written is not None and not isinstance(written, Mapping):
        dask.config.config["starburst"] = written
    elif wrong:
        dask.config.config["starburst"].update(wrong)


_declare(_defaults())

#: The name of the group that the other settings describe.
DEFAULT_GROUP = "default"


@dataclass(frozen=True)
class WorkerShape:
    """The size of a worker: ``nthreads`` (count) and ``memory_limit`` (bytes)."""

    nthreads: int | None = None
    memory_limit: int | None = None


@dataclass(frozen=True)
class GroupSettings:
    """A worker group: its workers, their instances, and how many there are.

    ``arch`` and ``spot_policy`` are those of the cluster if they are None. ``n_workers`` is a fixed number; without it
    the group adapts to its work, between ``minimum`` and ``maximum`` workers (``adaptive.maximum`` if None).
    """

    worker: WorkerShape = field(default_factory=WorkerShape)
    instance_types: tuple[str, ...] | None = None
    arch: str | None = None
    spot_policy: str | None = None
    n_workers: int | None = None
    minimum: int = 0
    maximum: int | None = None


@dataclass(frozen=True)
class SchedulerSettings:
    """The scheduler's instance type and TCP ports, and whether it serves Dask's dashboard."""

    instance_type: str | None = None
    port: int = 8786
    dashboard_port: int = 8787
    dashboard: bool = True


@dataclass(frozen=True)
class AdaptiveSettings:
    """Bounds (workers) and timing (seconds) of adaptive scaling."""

    minimum: int = 0
    maximum: int = 10
    interval: float = 5.0
    scale_down_after: float | None = None
    target_duration: float = 5.0


@dataclass(frozen=True)
class NetworkSettings:
    """The subnet to launch in, and the addresses that may reach the scheduler."""

    subnet: str | None = None
    caller: str | None = None
    checkip_url: str = "https://checkip.amazonaws.com"


@dataclass(frozen=True)
class Timeouts:
    """Timeouts and the polling interval, in seconds."""

    capacity: float = 120.0
    fallback: float = 60.0
    connect: float = 180.0
    retire: float = 120.0
    poll: float = 1.5
    close: float = 90.0


@dataclass(frozen=True)
class StorageSettings:
    """Volume size of each instance (GiB) and log retention (days)."""

    volume_size: int = 30
    log_retention: int = 14


@dataclass(frozen=True)
class BuildSettings:
    """How the workers' image is built from the environment.

    ``add`` and ``exclude`` add packages to those of the environment and remove some of them. ``dockerfile`` (path) and
    ``apt`` (Debian packages) apply to the base image and need Docker.
    """

    builder: str = "direct"
    base: str = "public.ecr.aws/docker/library/python:{python}-slim-bookworm"
    repository: str = "starburst/worker"
    add: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    modules: str = "by-value"
    compression: str = "zstd"
    dockerfile: str | None = None
    apt: tuple[str, ...] = ()


@dataclass(frozen=True)
class Settings:
    """All settings of one cluster, validated. Durations are in seconds, sizes in bytes."""

    cloud: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    name: str | None = None
    arch: str = "arm64"
    image: str | None = None
    environment: str | None = None
    ecr_image_ttl_days: int | None = 30
    hooks: Any = None
    instance_types: tuple[str, ...] | None = None
    spot_policy: str = "spot"
    spot_notices: bool = True
    on_rebalance: str = "replace"
    n_workers: int | None = None
    quiet: bool = False
    max_workers: int = 500
    max_hourly_cost: float | None = None
    max_total_cost: float | None = None
    cost_alert_threshold: float | None = None
    idle_timeout: float | None = 1200.0
    no_client_timeout: float | None = 300.0
    warm: int = 0
    warm_timeout: float = 0.0
    lease: float = 1800.0
    security: Any = None
    tags: Mapping[str, str] = field(default_factory=dict)
    worker: WorkerShape = field(default_factory=WorkerShape)
    worker_groups: Mapping[str, GroupSettings] = field(default_factory=dict)
    build: BuildSettings = field(default_factory=BuildSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    adaptive: AdaptiveSettings = field(default_factory=AdaptiveSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    timeouts: Timeouts = field(default_factory=Timeouts)
    storage: StorageSettings = field(default_factory=StorageSettings)

    @classmethod
    def load(cls, **arguments: Any) -> Settings:
        """Merge keyword arguments over `dask.config`'s ``starburst`` section, and validate the result.

        None is a value, like null in a configuration file. `UNSET` means that an argument was not given.

        Raises
        ------
        BadArgument
            A value is not valid. The message says which, and gives a valid one.
        """
        configured = as_mapping(
            "starburst", dask.config.get("starburst", {})
        )  # {}: the configuration was cleared, so the defaults apply
        settings = build(cls, merge(configured, given(arguments)), _GROUPS)
        check(settings)
        return settings

    @property
    def groups(self) -> dict[str, GroupSettings]:
        """The settings of all worker groups, the default one first."""
        own = GroupSettings(
            self.worker,
            self.instance_types,
            self.arch,
            self.spot_policy,
            self.n_workers,
            self.adaptive.minimum,
            self.adaptive.maximum,
        )
        return {DEFAULT_GROUP: own, **self.worker_groups}

    def most_workers(self, group: str) -> int:
        """Return the most workers that a group may have by its settings."""
        own = self.groups[group]
        if own.n_workers is not None:
            return own.n_workers
        return self.adaptive.maximum if own.maximum is None else own.maximum

    @property
    def archs(self) -> tuple[str, ...]:
        """The architectures of its instances, each once, the scheduler's first."""
        return tuple(dict.fromkeys(group.arch or self.arch for group in self.groups.values()))

    @classmethod
    def of_arguments(cls, variables: Mapping[str, Any]) -> Settings:
        """Load from the arguments of a function: `variables` is its ``locals()``, ``unknown`` its other arguments."""
        return cls.load(**{k: v for k, v in variables.items() if k in cls.__dataclass_fields__}, **variables["unknown"])


_GROUPS: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        WorkerShape,
        GroupSettings,
        BuildSettings,
        SchedulerSettings,
        AdaptiveSettings,
        NetworkSettings,
        Timeouts,
        StorageSettings,
    )
}
