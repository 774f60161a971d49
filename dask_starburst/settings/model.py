"""The settings of a cluster as values, with their defaults."""

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
    # libyaml's loader, where PyYAML has it, takes a tenth of the time: every import of a cluster pays for this.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loaded: dict[str, Any] = yaml.load(text, loader)
    return loaded


def _declare(defaults: dict[str, Any]) -> None:
    """Let Dask know the defaults. What is no mapping where one belongs stays, to be refused when it is used.

    Dask would put the defaults in its place, as if the user had written nothing.
    """
    written = dask.config.get("starburst", None)
    groups = {name for name, value in defaults["starburst"].items() if isinstance(value, dict)}
    wrong: dict[str, Any] = {}
    if isinstance(written, Mapping):  # looked at now: it is changed in its place
        wrong = {k: v for k, v in written.items() if k in groups and v is not None and not isinstance(v, Mapping)}
    dask.config.update_defaults(defaults)
    if written is not None and not isinstance(written, Mapping):
        dask.config.config["starburst"] = written
    elif wrong:
        dask.config.config["starburst"].update(wrong)


_declare(_defaults())


@dataclass(frozen=True)
class WorkerShape:
    """The size of one worker: ``nthreads`` (count) and ``memory_limit`` (bytes)."""

    nthreads: int | None = None
    memory_limit: int | None = None


@dataclass(frozen=True)
class SchedulerSettings:
    """Where the scheduler runs, on which TCP ports it listens, and whether it has Dask's dashboard."""

    instance_type: str | None = None
    port: int = 8786
    dashboard_port: int = 8787
    dashboard: bool = True


@dataclass(frozen=True)
class AdaptiveSettings:
    """Bounds (workers) and pace (seconds) of adaptive scaling."""

    minimum: int = 0
    maximum: int = 10
    interval: float = 5.0
    scale_down_after: float | None = None
    target_duration: float = 5.0


@dataclass(frozen=True)
class NetworkSettings:
    """Which subnet to launch in and which addresses may reach the scheduler."""

    subnet: str | None = None
    caller: str | None = None
    checkip_url: str = "https://checkip.amazonaws.com"


@dataclass(frozen=True)
class Timeouts:
    """How long we wait for what, in seconds."""

    capacity: float = 120.0
    fallback: float = 60.0
    connect: float = 180.0
    retire: float = 120.0
    poll: float = 1.5
    close: float = 90.0


@dataclass(frozen=True)
class StorageSettings:
    """Size of each instance's volume (GiB) and retention of the logs (days)."""

    volume_size: int = 30
    log_retention: int = 14


@dataclass(frozen=True)
class BuildSettings:
    """How the workers' image is built of the environment.

    ``add`` and ``exclude`` are packages beyond those of the environment and without those that workers do not need.
    ``dockerfile`` (path) and ``apt`` (Debian packages) are what Docker puts below them.
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
    """All settings of one cluster, checked. Durations are seconds, sizes bytes."""

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
    build: BuildSettings = field(default_factory=BuildSettings)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    adaptive: AdaptiveSettings = field(default_factory=AdaptiveSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    timeouts: Timeouts = field(default_factory=Timeouts)
    storage: StorageSettings = field(default_factory=StorageSettings)

    @classmethod
    def load(cls, **arguments: Any) -> Settings:
        """Merge keyword arguments over `dask.config`'s ``starburst`` section and check them.

        None is a value, null in a configuration file. What is `UNSET` was not given.

        Raises
        ------
        BadArgument
            Some value is wrong; the message says which and what to type instead.
        """
        configured = as_mapping(
            "starburst", dask.config.get("starburst", {})
        )  # {}: it was cleared, and the defaults hold
        settings = build(cls, merge(configured, given(arguments)), _GROUPS)
        check(settings)
        return settings

    @classmethod
    def of_arguments(cls, variables: Mapping[str, Any]) -> Settings:
        """Load what a function was called with: `variables` are its ``locals()``, ``unknown`` its other arguments."""
        return cls.load(**{k: v for k, v in variables.items() if k in cls.__dataclass_fields__}, **variables["unknown"])


_GROUPS: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        WorkerShape,
        BuildSettings,
        SchedulerSettings,
        AdaptiveSettings,
        NetworkSettings,
        Timeouts,
        StorageSettings,
    )
}
