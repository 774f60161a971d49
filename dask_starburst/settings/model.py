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
from dask_starburst.settings.declare import group, setting
from dask_starburst.settings.defaults import add_defaults
from dask_starburst.settings.groups import (
    WORKERS,
    AdaptiveSettings,
    BuildSettings,
    NetworkSettings,
    SchedulerSettings,
    StorageSettings,
    Timeouts,
    WorkerShape,
)
from dask_starburst.settings.kinds import Anything, Flag, Labels, Names, OneOf, Text
from dask_starburst.settings.names import check_image_name, check_name, check_tags, check_url
from dask_starburst.settings.quantities import Duration, Usd, Whole
from dask_starburst.settings.reading import as_mapping, build, merge

CLOUDS = ("local",)
ARCHITECTURES = ("arm64", "x86_64")
SPOT_POLICIES = ("spot", "spot_with_fallback", "on-demand")
ON_REBALANCE = ("replace", "ignore")
#: Seconds. Auto Scaling may execute a scheduled action two minutes late (aws-facts, finding 8), so a shorter lease only
#: adds renewals.
SHORTEST_LEASE = 60.0
#: Days. ECR deletes within 24 hours of the day (aws-facts §7), and a running cluster still needs its image.
SHORTEST_TTL = 3
_OR_NEVER = Duration(hint="; null means never")

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
    spot_policy: str = setting(
        "spot",
        OneOf(SPOT_POLICIES),
        'The purchase option of workers. With "spot_with_fallback" a worker runs on demand if Spot has had no capacity'
        " for `timeouts.fallback`. The scheduler always runs on demand.",
    )
    spot_notices: bool = setting(
        True,
        Flag(),
        "Whether workers listen for Spot notices. They transfer their data before AWS interrupts their instance.",
    )
    on_rebalance: str = setting(
        "replace",
        OneOf(ON_REBALANCE),
        'What follows a rebalance recommendation. With "replace" a new worker starts before the old one retires.',
    )
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
    ecr_image_ttl_days: int | None = setting(
        30,
        Whole(
            SHORTEST_TTL,
            unit="days",
            refusal=" is too short: an image is renewed two days before ECR deletes it",
            hint=", or null to keep images forever",
        ),
        "Days after which ECR deletes a pushed image. An image in use is renewed before.",
        null="never",
    )
    hooks: Any = setting(
        None,
        Anything(json={"type": ["array", "string"], "items": {"type": "string"}}),
        'Your lifecycle hooks, as objects or "package.module:Name". They have some of `on_before_launch`, `on_ready`'
        " and `on_close`.",
        null="no hooks",
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
    max_hourly_cost: float | None = setting(
        None,
        Usd(),
        "The most that the cluster may cost an hour, in USD. This includes the scheduler. A launch above it is refused,"
        " and later workers wait until their instance fits under the cap.",
        null="no cap",
    )
    max_total_cost: float | None = setting(
        None,
        Usd(),
        "The most that the cluster may cost in all, in USD. It warns at 80 %. At 100 % it retires its workers and"
        " closes, even without a client.",
        null="no cap",
    )
    cost_alert_threshold: float | None = setting(
        None, Usd(), "The hourly cost above which it warns, in USD.", null="never"
    )
    idle_timeout: float | None = setting(
        1200.0, _OR_NEVER, "Time without work after which the scheduler ends the cluster.", null="never"
    )
    no_client_timeout: float | None = setting(
        300.0,
        _OR_NEVER,
        "Time without a connected Client or StarburstCluster and without a running task, after which it ends.",
        null="never",
    )
    warm: int = setting(
        0,
        WORKERS,
        "Idle instances that are kept ready in addition to those of the workers. A new worker starts on one of them,"
        " which is then replaced.",
    )
    warm_timeout: float = setting(
        0.0,
        Duration(zero=True),
        "How long an instance without a worker is kept; from 60 s also after `close()`. The next cluster with the same"
        " specification reuses it; if there is none, AWS terminates it.",
    )
    lease: float = setting(
        1800.0,
        Duration(SHORTEST_LEASE, "Auto Scaling may act up to two minutes late"),
        "AWS empties the pool if the lease is not renewed for this time.",
    )
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
        settings = build(cls, merge(cls, configured, arguments))
        check(settings)
        return settings
