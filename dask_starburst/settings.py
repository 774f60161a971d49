"""What a user can choose, from `starburst.yaml`, the environment and keyword arguments."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from importlib import resources
from typing import Any, TypeVar

import dask.config
import yaml
from dask.utils import parse_bytes, parse_timedelta

from dask_starburst.errors import BadArgument

T = TypeVar("T")

ARCHITECTURES = ("arm64", "x86_64")
SPOT_POLICIES = ("spot", "spot_with_fallback", "on-demand")
ON_REBALANCE = ("replace", "ignore")
#: Auto Scaling may execute a scheduled action two minutes late (aws-facts, finding 8): a shorter lease
#: would promise more than AWS does, and be renewed all the time.
SHORTEST_LEASE = 60.0
#: GiB of the snapshot that the ECS-optimized AL2023 image starts from (aws-facts §2.2, variables.pkr.hcl).
SMALLEST_VOLUME = 30
#: What PutRetentionPolicy of CloudWatch Logs takes.
LOG_RETENTIONS = (
    1,
    3,
    5,
    7,
    14,
    30,
    60,
    90,
    120,
    150,
    180,
    365,
    400,
    545,
    731,
    1096,
    1827,
    2192,
    2557,
    2922,
    3288,
    3653,
)


def _defaults() -> dict[str, Any]:
    text = resources.files("dask_starburst").joinpath("starburst.yaml").read_text()
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


dask.config.update_defaults(_defaults())


@dataclass(frozen=True)
class WorkerShape:
    """The size of one worker: ``nthreads`` (count) and ``memory_limit`` (bytes)."""

    nthreads: int | None = None
    memory_limit: int | None = None


@dataclass(frozen=True)
class SchedulerSettings:
    """Where the scheduler runs and on which TCP ports it listens."""

    instance_type: str | None = None
    port: int = 8786
    dashboard_port: int = 8787


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
class Settings:
    """All settings of one cluster, checked. Durations are seconds, sizes bytes."""

    cloud: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    name: str | None = None
    arch: str = "arm64"
    image: str | None = None
    instance_types: tuple[str, ...] | None = None
    spot_policy: str = "spot"
    spot_notices: bool = True
    on_rebalance: str = "replace"
    n_workers: int | None = None
    quiet: bool = False
    max_workers: int = 500
    idle_timeout: float | None = 1200.0
    no_client_timeout: float | None = 300.0
    warm: int = 0
    warm_timeout: float = 0.0
    stopped: int = 0
    lease: float = 1800.0
    security: Any = None
    tags: Mapping[str, str] = field(default_factory=dict)
    worker: WorkerShape = field(default_factory=WorkerShape)
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    adaptive: AdaptiveSettings = field(default_factory=AdaptiveSettings)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    timeouts: Timeouts = field(default_factory=Timeouts)
    storage: StorageSettings = field(default_factory=StorageSettings)

    @classmethod
    def load(cls, **arguments: Any) -> Settings:
        """Merge keyword arguments over `dask.config`'s ``starburst`` section and check them.

        Raises
        ------
        BadArgument
            Some value is wrong; the message says which and what to type instead.
        """
        configured = dask.config.get("starburst")
        given = {k: v for k, v in arguments.items() if v is not None}
        settings = _build(cls, _merge(configured, given), "")
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse what cannot work, before anything is launched."""
        _one_of("cloud", self.cloud, (None, "local"))
        _one_of("arch", self.arch, ARCHITECTURES)
        _one_of("spot_policy", self.spot_policy, SPOT_POLICIES)
        _one_of("on_rebalance", self.on_rebalance, ON_REBALANCE)
        self._check_sizes()
        if self.stopped and self.spot_policy != "on-demand":
            raise BadArgument(
                f"stopped={self.stopped} with spot_policy={self.spot_policy!r}: AWS keeps no Spot instances in a warm"
                f" pool of stopped ones. Give spot_policy='on-demand', or warm={self.stopped} for empty Spot instances"
                " that run."
            )
        self._check_times()
        _check_caller(self.network.caller)
        if self.security is False:
            raise BadArgument(
                "security=False is refused: an open Dask scheduler runs anybody's code on your"
                " account. Leave security out for a certificate authority of its own."
            )

    def _check_sizes(self) -> None:
        counts = {
            "n_workers": self.n_workers,
            "warm": self.warm,
            "stopped": self.stopped,
            "adaptive.minimum": self.adaptive.minimum,
            "adaptive.maximum": self.adaptive.maximum,
        }
        for name, count in counts.items():
            check_count(name, count, self.max_workers)
        if self.adaptive.minimum > self.adaptive.maximum:
            raise BadArgument(
                f"adaptive.minimum={self.adaptive.minimum} is above"
                f" adaptive.maximum={self.adaptive.maximum}; swap them."
            )
        positives = {
            "worker.nthreads": self.worker.nthreads,
            "worker.memory_limit": self.worker.memory_limit,
        }
        for name, size in positives.items():
            if size is not None and size <= 0:
                raise BadArgument(f"{name}={size} has to be above zero.")
        for name, port in (("port", self.scheduler.port), ("dashboard_port", self.scheduler.dashboard_port)):
            if not 0 < port < 65536:
                raise BadArgument(f"scheduler.{name}={port} is no TCP port; give one from 1 to 65535.")
        if self.storage.log_retention not in LOG_RETENTIONS:
            near = min(LOG_RETENTIONS, key=lambda days: abs(days - self.storage.log_retention))
            raise BadArgument(
                f"storage.log_retention={self.storage.log_retention} days: CloudWatch keeps logs for certain"
                f" numbers of days only; give {near}, for example."
            )
        if not SMALLEST_VOLUME <= self.storage.volume_size <= 16384:
            raise BadArgument(
                f"storage.volume_size={self.storage.volume_size} GiB: the volume has to hold the image of the"
                f" instance, so give {SMALLEST_VOLUME} to 16384."
            )

    def _check_times(self) -> None:
        if self.lease < SHORTEST_LEASE:
            raise BadArgument(
                f"lease={self.lease:g} s is too short: Auto Scaling may act up to two minutes"
                f" late, so give at least {SHORTEST_LEASE:g} s."
            )
        for name in ("capacity", "fallback", "connect", "retire", "poll", "close"):
            if (seconds := getattr(self.timeouts, name)) <= 0:
                raise BadArgument(f"timeouts.{name}={seconds:g} s has to be above zero.")
        if (after := self.adaptive.scale_down_after) is not None and after < 0:
            raise BadArgument(f"adaptive.scale_down_after={after:g} s is negative.")
        if self.warm_timeout < 0:
            raise BadArgument(f"warm_timeout={self.warm_timeout:g} s is negative.")
        for name in ("idle_timeout", "no_client_timeout"):
            if (limit := getattr(self, name)) is not None and limit <= 0:
                raise BadArgument(f"{name}={limit:g} s has to be above zero; null means never.")


def check_count(name: str, count: Any, maximum: int) -> None:
    """Refuse a number of workers that is no number, negative or absurd."""
    if count is None:
        return
    if isinstance(count, bool) or not isinstance(count, int):
        raise BadArgument(f"{name}={count!r} is not a whole number of workers.")
    if count < 0:
        raise BadArgument(f"{name}={count} is negative; give 0 or more workers.")
    if count > maximum:
        raise BadArgument(
            f"{name}={count} is above max_workers={maximum}, which protects your bill;"
            f" raise it with max_workers={count} if you mean it."
        )


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value in allowed:
        return
    words = [str(v) for v in allowed if v is not None]
    near = get_close_matches(str(value), words, 1, 0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    choices = ", ".join(repr(word) for word in words)
    raise BadArgument(f"{name}={value!r} is not known; give one of {choices}.{hint}")


def _check_caller(cidr: str | None) -> None:
    if cidr is None:
        return
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        raise BadArgument(f"network.caller={cidr!r} is no CIDR; give one such as '203.0.113.7/32'.") from None
    if network.prefixlen == 0:
        raise BadArgument(
            f"network.caller={cidr!r} opens the scheduler to the whole world; give your own"
            " address as '203.0.113.7/32' or your company's range."
        )


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = {str(k).replace("-", "_"): v for k, v in base.items()}
    for key, value in over.items():
        key = key.replace("-", "_")
        if is_dataclass(value) and not isinstance(value, type):
            value = {f.name: getattr(value, f.name) for f in fields(value)}
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping) and key != "tags":
            value = _merge(merged[key], value)
        merged[key] = value
    return merged


def _build(cls: type[T], values: Mapping[str, Any], prefix: str) -> T:
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]  # every cls here is one
    converted = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else f"; there are {', '.join(known)}."
            raise BadArgument(f"{prefix}{name} is not a setting{hint}")
        converted[name] = _convert(prefix + name, value, str(known[name].type))
    return cls(**converted)


_GROUPS: dict[str, type[Any]] = {
    cls.__name__: cls
    for cls in (
        WorkerShape,
        SchedulerSettings,
        AdaptiveSettings,
        NetworkSettings,
        Timeouts,
        StorageSettings,
    )
}


def _convert(name: str, value: Any, kind: str) -> Any:
    if kind in _GROUPS:
        if not isinstance(value, Mapping):
            raise BadArgument(f"{name}={value!r} has to be a mapping of its settings.")
        return _build(_GROUPS[kind], _merge(value, {}), f"{name}.")
    if value is None:
        if "None" not in kind and kind != "Any":
            raise BadArgument(f"{name}=None is not possible; give {_kind_in_words(kind)}, or leave it out.")
        return None
    if kind.startswith("float"):
        return parse_duration(name, value)
    if name == "worker.memory_limit":
        return _parse(name, value, "a size such as '8 GiB'", parse_bytes)
    if name == "instance_types":
        value = (value,) if isinstance(value, str) else value
        return _parse(name, value, "a list such as ['c7g.xlarge', 'm7g.xlarge']", _names)
    if name == "tags":
        return _parse(name, value, "a mapping such as {'team': 'research'}", _tags)
    expected = {"str": str, "int": int, "bool": bool}.get(kind.partition(" ")[0], object)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise BadArgument(f"{name}={value!r} is not {_kind_in_words(kind)}.")
    return value


def parse_duration(name: str, value: Any) -> float:
    """Return a duration in seconds, given as a number or as text."""
    return float(_parse(name, value, "a duration such as '20 minutes'", parse_timedelta))


def _kind_in_words(kind: str) -> str:
    words = {"str": "a text", "int": "a whole number", "bool": "true or false", "float": "a duration"}
    return words.get(kind.partition(" ")[0], "a value")


def _names(value: Any) -> tuple[str, ...]:
    if not value or not all(isinstance(name, str) for name in value):
        raise ValueError
    return tuple(value)


def _tags(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError
    return {str(k): str(v) for k, v in value.items()}


def _parse(name: str, value: Any, example: str, parse: Any) -> Any:
    try:
        return parse(value)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise BadArgument(f"{name}={value!r} is not understood; give {example}.") from None
