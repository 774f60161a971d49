"""Validate settings before anything is launched."""

from __future__ import annotations

import math
import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from dask_starburst.errors import BadArgument
from dask_starburst.settings.names import (
    check_image_name,
    check_name,
    check_repository_name,
    check_subnet,
    check_tags,
    check_url,
)

if TYPE_CHECKING:
    from dask_starburst.settings.model import Settings, WorkerShape

ARCHITECTURES = ("arm64", "x86_64")
SPOT_POLICIES = ("spot", "spot_with_fallback", "on-demand")
ON_REBALANCE = ("replace", "ignore")
BUILDERS = ("direct", "buildx")
COMPRESSIONS = ("zstd", "gzip")
#: How the user's own modules, which are in no package, reach the workers.
MODULES = ("by-value", "package", "none")
#: Name of a Debian package (Debian policy §5.6.1), with an optional architecture and version. apt removes a package
#: whose name ends in a hyphen.
DEBIAN_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](?::[a-z0-9]+)?(?:=[A-Za-z0-9.+:~-]+)?")
#: The part of a worker group's name in the names of AWS resources and workers.
GROUP_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,18}[a-z0-9])?")
RESERVED_GROUPS = {
    "default": "the arguments of StarburstCluster describe it",
    "head": "the scheduler runs in it",
    "scheduler": "the scheduler's log has this name",
}
#: Ports in use on an ECS instance, whose address a task in host mode shares (AmazonECS developer guide,
#: "Amazon ECS container agent introspection", "network modes": the agent's reserved ports).
TAKEN_PORTS = {
    22: "SSH",
    2375: "Docker",
    2376: "Docker",
    51678: "the ECS agent",
    51679: "the ECS agent",
    51680: "the ECS agent",
}
#: Bytes. A worker's process needs more to start; a number without its unit is far below.
SMALLEST_MEMORY = 64 << 20
#: Seconds. Auto Scaling may execute a scheduled action two minutes late (aws-facts, finding 8), so a shorter lease only
#: adds renewals.
SHORTEST_LEASE = 60.0
#: GiB of the snapshot of the ECS-optimized AL2023 image (aws-facts §2.2, variables.pkr.hcl).
SMALLEST_VOLUME = 30
#: Days. ECR deletes within 24 hours of the day (aws-facts §7), and a running cluster still needs its image.
SHORTEST_TTL = 3
#: Days that PutRetentionPolicy of CloudWatch Logs accepts.
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


def check(settings: Settings) -> None:
    """Validate all settings."""
    _one_of("cloud", settings.cloud, (None, "local"))
    _one_of("arch", settings.arch, ARCHITECTURES)
    _one_of("spot_policy", settings.spot_policy, SPOT_POLICIES)
    _one_of("on_rebalance", settings.on_rebalance, ON_REBALANCE)
    check_names(settings)
    _check_image(settings)
    _check_sizes(settings)
    _check_times(settings)
    _check_money(settings)
    if settings.security is False:
        raise BadArgument(
            "security=False is refused: an open Dask scheduler lets anyone run code in your"
            " account. Leave security out to create a certificate authority for the cluster."
        )


def check_names(settings: Settings) -> None:
    """Validate names, image names, IDs, tags and URLs."""
    check_name(settings.name)
    check_tags(settings.tags)
    check_image_name("image", settings.image)
    # The Python version is filled in later.
    check_image_name("build.base", settings.build.base.replace("{python}", "3.12"))
    check_repository_name("build.repository", settings.build.repository)
    check_subnet("network.subnet", settings.network.subnet)
    check_url("network.checkip_url", settings.network.checkip_url)
    check_url("endpoint_url", settings.endpoint_url)


def _check_image(settings: Settings) -> None:
    build = settings.build
    _one_of("build.builder", build.builder, BUILDERS)
    _one_of("build.compression", build.compression, COMPRESSIONS)
    _one_of("build.modules", build.modules, MODULES)
    _check_docker(settings)
    if settings.image is not None and settings.environment is not None:
        raise BadArgument(
            f"image={settings.image!r} and environment={settings.environment!r}: the workers run either an existing"
            " image or one that is built for them; give one of the two."
        )
    days = settings.ecr_image_ttl_days
    if days is not None and days < SHORTEST_TTL:
        raise BadArgument(
            f"ecr_image_ttl_days={days} is too short: an image is renewed two days before ECR deletes it; give"
            f" {SHORTEST_TTL} or more days, or null to keep images forever."
        )


def _check_docker(settings: Settings) -> None:
    build = settings.build
    wrong = next((name for name in build.apt if not DEBIAN_PACKAGE.fullmatch(name)), None)
    if wrong is not None:
        raise BadArgument(
            f"build.apt={wrong!r} is not the name of a Debian package; give names such as 'libgeos-c1v5'"
            " or 'gdal-bin=3.6.2+dfsg-1'."
        )
    given = {"dockerfile": build.dockerfile, "apt": list(build.apt)}
    for name, value in given.items():
        if value and build.builder != "buildx":
            raise BadArgument(
                f"build.{name}={value!r} needs Docker, which build.builder={build.builder!r} does not use;"
                f" give build={{'builder': 'buildx', {name!r}: {value!r}}}, or --builder buildx on the command line."
            )


def _check_sizes(settings: Settings) -> None:
    counts = {
        "n_workers": settings.n_workers,
        "warm": settings.warm,
        "adaptive.minimum": settings.adaptive.minimum,
        "adaptive.maximum": settings.adaptive.maximum,
    }
    if settings.max_workers < 1:
        raise BadArgument(f"max_workers={settings.max_workers} allows no worker; give 1 or more.")
    for name, count in counts.items():
        check_count(name, count, settings.max_workers)
    if settings.adaptive.minimum > settings.adaptive.maximum:
        raise BadArgument(
            f"adaptive.minimum={settings.adaptive.minimum} is above"
            f" adaptive.maximum={settings.adaptive.maximum}; swap them."
        )
    _check_shape("worker", settings.worker)
    _check_groups(settings)
    _check_ports(settings)
    if settings.storage.log_retention not in LOG_RETENTIONS:
        near = min(LOG_RETENTIONS, key=lambda days: abs(days - settings.storage.log_retention))
        raise BadArgument(
            f"storage.log_retention={settings.storage.log_retention} days: CloudWatch accepts only certain"
            f" numbers of days; give {near}, for example."
        )
    if not SMALLEST_VOLUME <= settings.storage.volume_size <= 16384:
        raise BadArgument(
            f"storage.volume_size={settings.storage.volume_size} GiB: the volume must hold the image of the"
            f" instance; give {SMALLEST_VOLUME} to 16384."
        )


def _check_groups(settings: Settings) -> None:
    """Validate the worker groups."""
    most = settings.max_workers
    for name, group in settings.worker_groups.items():
        where = f"worker_groups.{name}"
        if name in RESERVED_GROUPS:
            raise BadArgument(
                f"worker_groups has a group {name!r}, which exists in every cluster: {RESERVED_GROUPS[name]}; give"
                " another name."
            )
        if not GROUP_NAME.fullmatch(name):
            raise BadArgument(
                f"worker_groups has a group {name!r:.200}; give a name of 1 to 20 lower-case letters, digits and"
                " hyphens that begins with a letter, such as 'big'."
            )
        _one_of(f"{where}.arch", group.arch, (None, *ARCHITECTURES))
        _one_of(f"{where}.spot_policy", group.spot_policy, (None, *SPOT_POLICIES))
        for what in ("n_workers", "minimum", "maximum"):
            check_count(f"{where}.{what}", getattr(group, what), most)
        if group.maximum is not None and group.minimum > group.maximum:
            raise BadArgument(f"{where}.minimum={group.minimum} is above {where}.maximum={group.maximum}; swap them.")
        _check_shape(f"{where}.worker", group.worker)
    total = sum(group.n_workers or 0 for group in settings.groups.values())
    if total > most:
        raise BadArgument(
            f"the groups have {total} workers together, which is above max_workers={most}, which limits your bill;"
            f" raise it with max_workers={total} if this is intended."
        )


def _check_shape(name: str, shape: WorkerShape) -> None:
    sizes = {"nthreads": shape.nthreads, "memory_limit": shape.memory_limit}
    for what, size in sizes.items():
        if size is not None and size <= 0:
            raise BadArgument(f"{name}.{what}={size} must be above zero.")
    memory = shape.memory_limit
    if memory is not None and memory < SMALLEST_MEMORY:
        raise BadArgument(
            f"{name}.memory_limit={memory} bytes is less than a worker needs to start; give {SMALLEST_MEMORY >> 20} MiB"
            " or more, with a unit, such as '8 GiB'."
        )


def _check_ports(settings: Settings) -> None:
    scheduler = settings.scheduler
    for name, port in (("port", scheduler.port), ("dashboard_port", scheduler.dashboard_port)):
        if not 0 < port < 65536:
            raise BadArgument(f"scheduler.{name}={port} is not a TCP port; give one from 1 to 65535.")
        if port in TAKEN_PORTS:
            raise BadArgument(
                f"scheduler.{name}={port} is in use by {TAKEN_PORTS[port]} on every instance; give one such as 8786."
            )
    if scheduler.port == scheduler.dashboard_port:
        raise BadArgument(
            f"scheduler.port={scheduler.port} and scheduler.dashboard_port={scheduler.dashboard_port} are the same;"
            " give different ports, such as 8786 and 8787."
        )


def _check_times(settings: Settings) -> None:
    if settings.lease < SHORTEST_LEASE:
        raise BadArgument(
            f"lease={settings.lease:g} s is too short: Auto Scaling may act up to two minutes"
            f" late; give at least {SHORTEST_LEASE:g} s."
        )
    for name in ("capacity", "fallback", "connect", "retire", "poll", "close"):
        if (seconds := getattr(settings.timeouts, name)) <= 0:
            raise BadArgument(f"timeouts.{name}={seconds:g} s must be above zero.")
    if (after := settings.adaptive.scale_down_after) is not None and after < 0:
        raise BadArgument(f"adaptive.scale_down_after={after:g} s is negative.")
    if settings.warm_timeout < 0:
        raise BadArgument(f"warm_timeout={settings.warm_timeout:g} s is negative.")
    for name in ("idle_timeout", "no_client_timeout"):
        if (limit := getattr(settings, name)) is not None and limit <= 0:
            raise BadArgument(f"{name}={limit:g} s must be above zero; null means never.")


def _check_money(settings: Settings) -> None:
    for name in ("max_hourly_cost", "max_total_cost", "cost_alert_threshold"):
        usd = getattr(settings, name)
        if usd is not None and not 0 < usd < math.inf:
            raise BadArgument(f"{name}={usd:g} is not an amount of US dollars above zero; leave it out for no cap.")


def check_count(name: str, count: Any, maximum: int) -> None:
    """Validate a number of workers."""
    if count is None:
        return
    if isinstance(count, bool) or not isinstance(count, int):
        raise BadArgument(f"{name}={count!r} is not a whole number of workers.")
    if count < 0:
        raise BadArgument(f"{name}={count} is negative; give 0 or more workers.")
    if count > maximum:
        raise BadArgument(
            f"{name}={count} is above max_workers={maximum}, which limits your bill;"
            f" raise it with max_workers={count} if this is intended."
        )


def _one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value in allowed:
        return
    words = [str(v) for v in allowed if v is not None]
    near = get_close_matches(str(value), words, 1, 0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    choices = ", ".join(repr(word) for word in words)
    raise BadArgument(f"{name}={value!r} is not valid; give one of {choices}.{hint}")
