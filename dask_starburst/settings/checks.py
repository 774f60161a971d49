"""Validate what several settings say together; each by itself is validated by its kind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from dask_starburst.errors import BadArgument
from dask_starburst.settings.declare import Group, GroupsByName, declared
from dask_starburst.settings.groups import (
    AdaptiveSettings,
    BuildSettings,
    GroupSettings,
    KeepSettings,
    NetworkSettings,
    SchedulerSettings,
)
from dask_starburst.settings.kinds import Kind, Labels, Text


class _Settings(Protocol):
    """What is checked of the settings of a cluster."""

    @property
    def n_workers(self) -> int | None: ...
    @property
    def max_workers(self) -> int: ...
    @property
    def image(self) -> str | None: ...
    @property
    def environment(self) -> str | None: ...
    @property
    def worker_groups(self) -> Mapping[str, GroupSettings]: ...
    @property
    def groups(self) -> dict[str, GroupSettings]: ...
    @property
    def keep(self) -> KeepSettings: ...
    @property
    def build(self) -> BuildSettings: ...
    @property
    def scheduler(self) -> SchedulerSettings: ...
    @property
    def adaptive(self) -> AdaptiveSettings: ...
    @property
    def network(self) -> NetworkSettings: ...


#: The part of a worker group's name in the names of AWS resources and workers.
GROUP_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,18}[a-z0-9])?")
RESERVED_GROUPS = {
    "default": "the arguments of StarburstCluster describe it",
    "head": "the scheduler runs in it",
    "scheduler": "the scheduler's log has this name",
}


def check(settings: _Settings) -> None:
    """Validate how the settings fit together."""
    _check_image(settings)
    _check_docker(settings)
    _check_counts(settings)
    _check_groups(settings)
    _check_ports(settings)
    _check_network(settings)


def check_names(settings: _Settings) -> None:
    """Validate names, image names, IDs, tags and URLs once more, which a hook may have changed."""
    for name, kind, value in _values(settings):
        if isinstance(kind, Text | Labels) and value is not None:
            kind.read(name, value)


def _values(settings: Any, prefix: str = "") -> Iterator[tuple[str, Kind, Any]]:
    for name, each in declared(type(settings)).items():
        value = getattr(settings, name)
        if isinstance(each.kind, Group):
            yield from _values(value, f"{prefix}{name}.")
        elif isinstance(each.kind, GroupsByName):
            for key, below in value.items():
                yield from _values(below, f"{prefix}{name}.{key}.")
        else:
            yield prefix + name, each.kind, value


def _check_image(settings: _Settings) -> None:
    if settings.image is not None and settings.environment is not None:
        raise BadArgument(
            f"image={settings.image!r} and environment={settings.environment!r}: the workers run either an existing"
            " image or one that is built for them; give one of the two."
        )


def _check_docker(settings: _Settings) -> None:
    build = settings.build
    for name, value in {"dockerfile": build.dockerfile, "apt": list(build.apt)}.items():
        if value and build.builder != "buildx":
            raise BadArgument(
                f"build.{name}={value!r} needs Docker, which build.builder={build.builder!r} does not use;"
                f" give build={{'builder': 'buildx', {name!r}: {value!r}}}, or --builder buildx on the command line."
            )


def _check_counts(settings: _Settings) -> None:
    adaptive = settings.adaptive
    counts = {
        "n_workers": settings.n_workers,
        "keep.warm": settings.keep.warm,
        "adaptive.minimum": adaptive.minimum,
        "adaptive.maximum": adaptive.maximum,
    }
    for name, count in counts.items():
        check_count(name, count, settings.max_workers)
    if adaptive.minimum > adaptive.maximum:
        raise BadArgument(
            f"adaptive.minimum={adaptive.minimum} is above adaptive.maximum={adaptive.maximum}; swap them."
        )


def _check_groups(settings: _Settings) -> None:
    most = settings.max_workers
    for name, group in settings.worker_groups.items():
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
        where = f"worker_groups.{name}"
        for what in ("n_workers", "minimum", "maximum"):
            check_count(f"{where}.{what}", getattr(group, what), most)
        if group.maximum is not None and group.minimum > group.maximum:
            raise BadArgument(f"{where}.minimum={group.minimum} is above {where}.maximum={group.maximum}; swap them.")
    total = sum(group.n_workers or 0 for group in settings.groups.values())
    if total > most:
        raise BadArgument(
            f"the groups have {total} workers together, which is above max_workers={most}, which limits your bill;"
            f" raise it with max_workers={total} if this is intended."
        )


def _check_ports(settings: _Settings) -> None:
    scheduler = settings.scheduler
    if scheduler.port == scheduler.dashboard_port:
        raise BadArgument(
            f"scheduler.port={scheduler.port} and scheduler.dashboard_port={scheduler.dashboard_port} are the same;"
            " give different ports, such as 8786 and 8787."
        )


def _check_network(settings: _Settings) -> None:
    network = settings.network
    if network.subnet is not None and network.subnets:
        raise BadArgument(
            f"network.subnet={network.subnet!r} and network.subnets={list(network.subnets)!r}: give one of the two."
        )
    if network.security_groups and network.caller is not None:
        raise BadArgument(
            f"network.caller={network.caller!r} and network.security_groups={list(network.security_groups)!r}: rules of"
            " your own groups are not changed; admit the caller there, and leave caller out."
        )


def check_security(setting: str, security: Any) -> None:
    """Refuse to run without TLS."""
    if security is False:
        raise BadArgument(
            f"{setting}=False is refused: an open Dask scheduler lets anyone run code in your"
            " account. Leave security out to create a certificate authority for the cluster."
        )


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
