"""The groups of settings: what they are called, what values they take and what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dask_starburst.settings.caller import parse_caller
from dask_starburst.settings.declare import group, setting
from dask_starburst.settings.kinds import Flag, Labels, Names, OneOf, Parsed, Text
from dask_starburst.settings.names import (
    check_base_name,
    check_debian_packages,
    check_environment,
    check_repository_name,
    check_security_groups,
    check_subnet,
    check_subnets,
    check_url,
    check_vpc,
)
from dask_starburst.settings.quantities import Duration, Size, Usd, Whole

ARCHITECTURES = ("arm64", "x86_64")
SPOT_POLICIES = ("spot", "spot_with_fallback", "on-demand")
ON_REBALANCE = ("replace", "ignore")
#: Seconds. Auto Scaling may execute a scheduled action two minutes late (aws-facts, finding 8), so a shorter lease only
#: adds renewals.
SHORTEST_LEASE = 60.0
#: Days. ECR deletes within 24 hours of the day (aws-facts §7), and a running cluster still needs its image.
SHORTEST_TTL = 3
ACCESSES = ("public", "private")
BUILDERS = ("direct", "buildx")
#: Values of the ECS cluster setting containerInsights (ECS API reference, ClusterSetting).
CONTAINER_INSIGHTS = ("disabled", "enabled", "enhanced")
COMPRESSIONS = ("zstd", "gzip")
#: How the user's own modules, which are in no package, reach the workers.
MODULES = ("by-value", "package", "none")
#: Bytes. A worker's process needs more to start; a number without its unit is far below.
SMALLEST_MEMORY = 64 << 20
#: GiB of the snapshot of the ECS-optimized AL2023 image (aws-facts §2.2, variables.pkr.hcl).
SMALLEST_VOLUME = 30
#: Days that PutRetentionPolicy of CloudWatch Logs accepts.
LOG_RETENTIONS = (
    *(1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731),
    *(1096, 1827, 2192, 2557, 2922, 3288, 3653),
)
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
_PORT = Whole(1, 65535, refusal=" is not a TCP port", taken=TAKEN_PORTS)
_OR_NEVER = Duration(hint="; null means never")
WORKERS = Whole(unit="workers")


@dataclass(frozen=True)
class WorkerShape:
    """The size of one worker."""

    nthreads: int | None = setting(None, Whole(1), "Threads.", null="the vCPUs of the instance type")
    memory_limit: int | None = setting(
        None,
        Size(SMALLEST_MEMORY, "less than a worker needs to start"),
        'Memory in bytes, or as text such as "16 GiB".',
        null="what the instance type leaves for one worker",
    )


@dataclass(frozen=True)
class GroupSettings:
    """A worker group: its workers, their instances, and how many there are."""

    worker: WorkerShape = group(WorkerShape, "{'memory_limit': '64 GiB'}")
    instance_types: tuple[str, ...] | None = setting(
        None,
        Names("['c7g.xlarge', 'm7g.xlarge']", empty=False),
        "The EC2 types of its workers.",
        null="all types with as many vCPUs as the smallest one that fits the worker",
    )
    arch: str | None = setting(
        None, OneOf(ARCHITECTURES), "The processor architecture of its instances.", null="that of the cluster"
    )
    policy: str | None = setting(
        None, OneOf(SPOT_POLICIES), "The purchase option of its instances.", null="`spot.policy` of the cluster"
    )
    n_workers: int | None = setting(
        None, WORKERS, "A fixed number of workers.", null="as many as its tasks need, between `minimum` and `maximum`"
    )
    minimum: int = setting(0, WORKERS, "The fewest workers, if their number is not fixed.")
    maximum: int | None = setting(
        None, WORKERS, "The most workers, if their number is not fixed.", null="`adaptive.maximum`"
    )
    env: Mapping[str, str] = setting(
        {},
        Labels("{'OMP_NUM_THREADS': '4'}", check_environment),
        "Environment variables of its workers, in addition to `env` of the cluster.",
    )


@dataclass(frozen=True)
class SpotSettings:
    """Whether workers run on Spot instances, and what they do when AWS takes one back."""

    policy: str = setting(
        "spot",
        OneOf(SPOT_POLICIES),
        'The purchase option of workers. With "spot_with_fallback" a worker runs on demand if Spot has had no capacity'
        " for `timeouts.fallback`. The scheduler always runs on demand.",
    )
    notices: bool = setting(
        True,
        Flag(),
        "Whether workers listen for Spot notices. They transfer their data before AWS interrupts their instance.",
    )
    on_rebalance: str = setting(
        "replace",
        OneOf(ON_REBALANCE),
        'What follows a rebalance recommendation. With "replace" a new worker starts before the old one retires, if the'
        " old one holds at least 4 GiB, and at most once in 10 minutes: AWS interrupts few of these instances.",
    )


@dataclass(frozen=True)
class MoneySettings:
    """Caps on the cost, and warnings."""

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


@dataclass(frozen=True)
class KeepSettings:
    """How long the cluster and its instances are kept without work."""

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


@dataclass(frozen=True)
class BuildSettings:
    """How the workers' image is built from the environment."""

    builder: str = setting(
        "direct", OneOf(BUILDERS), 'What builds it. "direct" works without Docker, "buildx" uses it.'
    )
    base: str = setting(
        "public.ecr.aws/docker/library/python:{python}-slim-bookworm",
        Text(check_base_name),
        "The base image. {python} is the minor version of Python, such as 3.12, which the image must contain.",
    )
    repository: str = setting(
        "starburst/worker",
        Text(check_repository_name),
        "The repository in your account's ECR. It is created if it is missing.",
    )
    add: tuple[str, ...] = setting(
        (),
        Names("['s3fs', 'scikit-learn>=1.7']"),
        "Packages to add to those of the environment, as pip requirements.",
    )
    exclude: tuple[str, ...] = setting((), Names("['jupyterlab', 'mypy']"), "Names of packages to leave out.")
    image_ttl_days: int | None = setting(
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
    modules: str = setting(
        "by-value",
        OneOf(MODULES),
        'How your modules outside of packages reach the workers. "by-value" sends them with each function that uses'
        ' them, "package" puts them into the image, "none" leaves them out.',
    )
    compression: str = setting(
        "zstd",
        OneOf(COMPRESSIONS),
        "Compression of the layers. Docker reads zstd from version 23, and Fargate from platform version 1.4.",
    )
    dockerfile: str | None = setting(
        None,
        Text(),
        "With buildx: a Dockerfile to which the packages are added. Its last stage replaces the base image, which it"
        " gets as the argument BASE. Its build context is its folder.",
        null="the base image",
    )
    apt: tuple[str, ...] = setting(
        (),
        Names("['libgeos-c1v5']", check=check_debian_packages),
        "With buildx: Debian packages to install before the Python packages.",
    )


@dataclass(frozen=True)
class SchedulerSettings:
    """The scheduler's instance type and TCP ports."""

    instance_type: str | None = setting(None, Text(), "The EC2 instance type.", null="m7g.medium or m7i.large")
    port: int = setting(8786, _PORT, "The port for clients and workers.")
    dashboard_port: int = setting(8787, _PORT, "The port of the dashboard, and of the metrics.")
    dashboard: bool = setting(
        True,
        Flag(),
        "Whether it serves Dask's dashboard. Without it the scheduler starts faster, as it does not import bokeh.",
    )


@dataclass(frozen=True)
class AdaptiveSettings:
    """Bounds and timing of adaptive scaling."""

    minimum: int = setting(0, WORKERS, "The least number of workers.")
    maximum: int = setting(10, WORKERS, "The largest number of workers. It is at most `max_workers`.")
    interval: float = setting(
        5.0,
        Duration(zero=True),
        "Time between two decisions; 1 s on the embedded AWS unless changed. In between, the scheduler is polled five"
        " times, but at most every second.",
    )
    scale_down_after: float | None = setting(
        None,
        Duration(zero=True),
        "Time for which fewer workers must suffice before one is retired or its request is cancelled. A value is used"
        " as it is. The time of a boot is the median of the last fifty boots of this cluster, 90 s before the first; it"
        " counts as at least 60 s and at most 5 minutes, on the embedded AWS 2 s and 10 s.",
        null="the time of a boot, at least 60 s",
    )
    target_duration: float = setting(
        5.0,
        Duration(zero=True),
        "Time in which the waiting work should be done. It determines the number of workers.",
    )


@dataclass(frozen=True)
class NetworkSettings:
    """Where to launch, and who may reach the scheduler."""

    access: str = setting(
        "public",
        OneOf(ACCESSES),
        'How clients reach the scheduler. With "private" instances have no public addresses: for clients in the VPC,'
        " and subnets with NAT or VPC endpoints.",
    )
    vpc: str | None = setting(
        None, Text(check_vpc), "The ID of the VPC to launch in, in its best subnet.", null="the default VPC"
    )
    subnet: str | None = setting(
        None, Text(check_subnet), "The ID of the subnet to launch in.", null="the best one of `subnets`, or of the VPC"
    )
    subnets: tuple[str, ...] = setting(
        (),
        Names("['subnet-0123456789abcdef0', 'subnet-0fedcba9876543210']", check=check_subnets),
        "The IDs of subnets of one VPC. The cluster runs in the best one.",
    )
    security_groups: tuple[str, ...] = setting(
        (),
        Names("['sg-0123456789abcdef0']", check=check_security_groups),
        "The IDs of the security groups of the instances, in place of new ones. They must let instances reach each"
        " other on all TCP ports, and clients the ports of the scheduler.",
    )
    caller: str | None = setting(
        None,
        Parsed(parse_caller),
        'The CIDR that may reach the scheduler, such as "203.0.113.7/32". It is a range of /8 or narrower.',
        null='your public address, which `checkip_url` returns; with `access` "private" your address in the VPC',
    )
    checkip_url: str = setting(
        "https://checkip.amazonaws.com", Text(check_url), "A URL that returns the public address of the caller."
    )

    @property
    def requested(self) -> tuple[str, ...]:
        """The subnets that the user names."""
        return (self.subnet,) if self.subnet else self.subnets


@dataclass(frozen=True)
class Timeouts:
    """Timeouts and the polling interval."""

    capacity: float = setting(120.0, Duration(), "Time for AWS to launch an instance.")
    fallback: float = setting(
        60.0, Duration(), 'With "spot_with_fallback": wait for Spot capacity, then use on-demand instances.'
    )
    connect: float = setting(180.0, Duration(), "Time for a placed task to join the scheduler.")
    retire: float = setting(120.0, Duration(), "Time for a retiring worker to transfer its data.")
    poll: float = setting(1.5, Duration(), "Interval of polling AWS while something changes.")
    consistency: float = setting(
        60.0, Duration(), "Time for AWS to show everywhere what a start has just created, such as a new role."
    )
    close: float = setting(
        90.0, Duration(), "How long `close()` waits until nothing is billed. The lease ends what is left."
    )


@dataclass(frozen=True)
class StorageSettings:
    """Disks, logs and metrics."""

    volume_size: int = setting(
        30,
        Whole(SMALLEST_VOLUME, 16384, refusal=" GiB: the volume must hold the image of the instance"),
        "GiB of the encrypted gp3 volume of every instance.",
    )
    log_retention: int = setting(
        14,
        Whole(among=LOG_RETENTIONS, refusal=" days: CloudWatch accepts only certain numbers of days"),
        "Days that CloudWatch keeps logs. It accepts only certain numbers of days.",
    )
    container_insights: str = setting(
        "disabled",
        OneOf(CONTAINER_INSIGHTS),
        "CloudWatch Container Insights of the ECS cluster, which CloudWatch charges for. The account's default does not"
        " apply.",
    )
