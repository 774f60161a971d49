"""The settings of a cluster: what they are called, what values they take and what they mean.

`starburst.yaml`, its schema, the page of the documentation, the types of the keyword arguments and their description at
`StarburstCluster` are made of this by ``tools/settings_files.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import dask.config

from dask_starburst.settings.arguments import Arguments
from dask_starburst.settings.checks import check, check_security
from dask_starburst.settings.declare import group, groups_by_name, setting
from dask_starburst.settings.defaults import add_defaults, defaults
from dask_starburst.settings.given import as_mapping, given
from dask_starburst.settings.groups import (
    ARCHITECTURES,
    WORKERS,
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
from dask_starburst.settings.kinds import Anything, Flag, Labels, Names, OneOf, Text
from dask_starburst.settings.moved import in_groups
from dask_starburst.settings.names import check_environment, check_image_name, check_name, check_tags, check_url
from dask_starburst.settings.quantities import Whole
from dask_starburst.settings.reading import build, merge

CLOUDS = ("local",)
#: The name of the worker group that the other settings describe.
DEFAULT_GROUP = "default"

add_defaults()


@dataclass(frozen=True)
class Settings:
    """All settings of one cluster, validated. Durations are in seconds, sizes in bytes."""

    n_workers: int | None = setting(
        None,
        WORKERS,
        "The number of workers to start.",
        null="as many as the work needs, between `adaptive.minimum` and `adaptive.maximum` workers",
    )
    arch: str = setting(
        "arm64", OneOf(ARCHITECTURES), 'The processor architecture. "arm64" is Graviton, "x86_64" is Intel and AMD.'
    )
    instance_types: tuple[str, ...] | None = setting(
        None,
        Names("['c7g.xlarge', 'm7g.xlarge']", empty=False),
        "The EC2 types of workers. The default gives Spot a choice of often more than ten types.",
        null="all types with as many vCPUs as the smallest one that fits the worker",
    )
    worker: WorkerShape = group(WorkerShape, "{'nthreads': 4}")
    worker_groups: Mapping[str, GroupSettings] = groups_by_name(
        GroupSettings,
        "{'worker': {'memory_limit': '64 GiB'}, 'maximum': 4}",
        "Further groups of workers by name. A task runs on a group if it is submitted with its resource, such as"
        ' `resources={"group-big": 1}`.',
    )
    spot: SpotSettings = group(SpotSettings, "{'policy': 'on-demand'}")
    image: str | None = setting(
        None,
        Text(check_image_name),
        "An existing container image. It must contain dask_starburst. The embedded AWS runs this Python environment,"
        " and builds an image only if `environment` is given.",
        null="an image that is built from the environment",
    )
    environment: str | None = setting(
        None,
        Text(),
        "The packages of the workers. Give a requirements.txt, pyproject.toml, uv.lock, pylock.toml or environment.yml,"
        ' or a folder with one of them; "current" is the packages of this Python.',
        null="the packages of this Python",
    )
    hooks: Any = setting(
        None,
        Anything(json={"type": ["array", "string"], "items": {"type": "string"}}),
        'Your lifecycle hooks, as objects or "package.module:Name". They have some of `on_before_launch`, `on_ready`'
        " and `on_close`.",
        null="no hooks",
    )
    env: Mapping[str, str] = setting(
        {},
        Labels("{'OMP_NUM_THREADS': '1'}", check_environment),
        "Environment variables of the scheduler and the workers. They can be read in the task definition, so names that"
        " look like those of secrets are refused.",
    )
    send_dask_config: bool = setting(
        True,
        Flag(),
        "Whether your Dask configuration holds on the scheduler and the workers, as in a LocalCluster: what differs"
        " from Dask's defaults, except secrets and what is your computer's or the cluster's own.",
    )
    region: str | None = setting(
        None, Text(), 'The AWS region, such as "us-east-1".', null="the region of your AWS configuration"
    )
    profile: str | None = setting(None, Text(), "The profile of your AWS configuration.", null="the default profile")
    cloud: str | None = setting(
        None, OneOf(CLOUDS), 'Where to launch. "local" is the embedded AWS on this computer.', null="your AWS account"
    )
    endpoint_url: str | None = setting(
        None,
        Text(check_url),
        'Another endpoint than AWS\'s. With `cloud` "local" it is that of a running embedded AWS, as'
        " `starburst local up` prints it.",
        null="AWS's own endpoints, or a new embedded AWS",
    )
    name: str | None = setting(None, Text(check_name), "A name to recognize the cluster by.", null="a generated name")
    quiet: bool = setting(
        False, Flag(), "Whether to print no progress. Events still go to the log and to `cluster.events`."
    )
    max_workers: int = setting(
        500,
        Whole(1, refusal=" allows no worker"),
        "The most workers that may be requested. It limits the bill: a larger number is refused.",
    )
    money: MoneySettings = group(MoneySettings, "{'max_hourly_cost': 2.5}")
    keep: KeepSettings = group(KeepSettings, "{'idle_timeout': '1 hour'}")
    security: Any = setting(
        None,
        Anything(check_security),
        "A `distributed.Security` with your own TLS certificates. False is refused.",
        null="a new certificate authority for every cluster",
    )
    tags: Mapping[str, str] = setting(
        {}, Labels("{'team': 'research'}", check_tags), "Tags on every AWS resource, for cost allocation."
    )
    build: BuildSettings = group(BuildSettings, "{'builder': 'direct'}")
    scheduler: SchedulerSettings = group(SchedulerSettings, "{'port': 8786}")
    adaptive: AdaptiveSettings = group(AdaptiveSettings, "{'maximum': 20}")
    network: NetworkSettings = group(NetworkSettings, "{'caller': '203.0.113.7/32'}")
    timeouts: Timeouts = group(Timeouts, "{'connect': '3 minutes'}")
    storage: StorageSettings = group(StorageSettings, "{'volume_size': 50}")

    @classmethod
    def load(cls, **arguments: Unpack[Arguments]) -> Settings:
        """Merge keyword arguments over `dask.config`'s ``starburst`` section, and validate the result.

        None is a value, like null in a configuration file. `UNSET` means that an argument was not given.

        Raises
        ------
        BadArgument
            A value is not valid. The message says which, and gives a valid one.
        """
        # The default: the configuration was cleared, so the defaults of the fields apply.
        configured = as_mapping("starburst", dask.config.get("starburst", {}), "{'n-workers': 4}")
        settings = build(cls, merge(cls, in_groups(configured, defaults()), in_groups(given(arguments))))
        check(settings)
        return settings

    @property
    def groups(self) -> dict[str, GroupSettings]:
        """The settings of all worker groups, the default one first."""
        own = GroupSettings(
            self.worker,
            self.instance_types,
            self.arch,
            self.spot.policy,
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
