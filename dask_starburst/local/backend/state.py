"""The resources of the embedded AWS as plain records. Times are virtual seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Tags = dict[str, str]

InstanceState = Literal["pending", "running", "shutting-down", "terminated"]


@dataclass
class Ec2Instance:
    """The backend's record of an EC2 instance. moto keeps the other attributes."""

    id: str
    instance_type: str
    zone: str
    private_ip: str
    lifecycle: str  # "spot" or "on-demand"
    launched_at: float
    vcpus: int
    memory: int  # nominal, MiB
    architecture: str  # ECS's spelling: "x86_64" or "arm64"
    group: str | None
    cluster: str | None  # the ECS cluster that the user data names
    host_attributes: Tags = field(default_factory=dict)
    prefers_cached: bool = False  # ECS_IMAGE_PULL_BEHAVIOR: use cached images
    images: set[str] = field(default_factory=set)
    drains: bool = False  # ECS_ENABLE_SPOT_INSTANCE_DRAINING
    state: InstanceState = "pending"
    ended_at: float | None = None  # start of shutting-down; billing ends here
    interrupted: bool = False  # by Spot
    end_reason: str = ""  # EC2's state reason
    interfaces: int = 1  # the most network interfaces its type supports
    instance_action: Tags | None = None  # the Spot notice in its metadata
    rebalance: Tags | None = None


@dataclass
class Membership:
    """An instance in its Auto Scaling group."""

    ec2_instance: Ec2Instance
    template: dict[str, Any]
    state: str = "Pending"
    healthy: bool = True
    protected: bool = False

    @property
    def leaving(self) -> bool:
        """Whether it is terminating."""
        return self.state == "Terminating"


@dataclass
class ScheduledAction:
    """A one-time change of a group's sizes."""

    name: str
    start: float
    min_size: int | None
    max_size: int | None
    desired: int | None


@dataclass
class Group:
    """An Auto Scaling group."""

    name: str
    arn: str
    created_at: float
    min_size: int
    max_size: int
    desired: int
    subnets: list[str]
    template: dict[str, Any] | None  # LaunchTemplateSpecification
    mixed: dict[str, Any] | None  # MixedInstancesPolicy
    settings: dict[str, Any]  # stored and described only
    tags: dict[str, dict[str, Any]] = field(default_factory=dict)
    members: dict[str, Membership] = field(default_factory=dict)
    activities: list[dict[str, Any]] = field(default_factory=list)  # newest first
    scheduled: dict[str, ScheduledAction] = field(default_factory=dict)
    suspended: dict[str, str] = field(default_factory=dict)
    failures: int = 0
    retry_at: float = 0.0
    deleting: bool = False

    def staying(self) -> list[Membership]:
        """Return the members that are not terminating."""
        return [member for member in self.members.values() if not member.leaving]


@dataclass
class Cluster:
    """An ECS cluster, with the indexes that placement needs."""

    name: str
    arn: str
    settings: list[dict[str, Any]]
    tags: Tags
    status: str = "ACTIVE"
    providers: list[str] = field(default_factory=list)
    default_strategy: list[dict[str, Any]] = field(default_factory=list)
    configuration: dict[str, Any] | None = None
    instances: dict[str, ContainerInstance] = field(default_factory=dict)  # by ARN
    tasks: dict[str, Task] = field(default_factory=dict)  # by id, STOPPED ones too
    tokens: dict[str, tuple[str, float, dict[str, Any]]] = field(default_factory=dict)


@dataclass
class CapacityProvider:
    """An ECS capacity provider over an Auto Scaling group."""

    name: str
    arn: str
    group: str
    settings: dict[str, Any]
    tags: Tags
    status: str = "ACTIVE"


@dataclass
class ContainerInstance:
    """An instance that has registered with an ECS cluster."""

    arn: str
    cluster: str
    ec2_instance: Ec2Instance
    provider: str | None
    registered_at: float
    cpu: int
    memory: int
    attributes: Tags
    free_cpu: int = 0
    free_memory: int = 0
    ports: dict[int, int] = field(default_factory=dict)  # host port -> number of tasks
    status: str = "ACTIVE"
    connected: bool = False
    connected_at: float | None = None  # first time
    tasks: dict[str, Task] = field(default_factory=dict)  # not STOPPED, by id
    groups: dict[str, int] = field(default_factory=dict)  # task group -> number of tasks
    tags: Tags = field(default_factory=dict)
    version: int = 1


@dataclass
class TaskDefinition:
    """One revision of an ECS task definition; ``document`` is what DescribeTaskDefinition returns."""

    family: str
    revision: int
    arn: str
    document: dict[str, Any]
    tags: Tags

    @property
    def active(self) -> bool:
        """Whether new tasks can run from it."""
        return bool(self.document["status"] == "ACTIVE")


@dataclass
class Container:
    """One container of a task."""

    name: str
    arn: str
    definition: dict[str, Any]  # with the overrides merged in
    status: str = "PENDING"
    exit_code: int | None = None
    reason: str | None = None
    started: bool = False

    @property
    def essential(self) -> bool:
        """Whether the task ends with it."""
        return bool(self.definition.get("essential", True))


@dataclass
class Interface:
    """The network interface of a task in network mode ``awsvpc``."""

    id: str
    attachment: str
    subnet: str
    zone: str
    private_ip: str
    mac: str
    status: str = "PRECREATED"


@dataclass
class Task:
    """An ECS task. ``placed_on`` is None until ECS has placed it; on Fargate it is a hidden instance without an ARN."""

    id: str
    arn: str
    cluster: str
    definition: TaskDefinition
    placed_on: ContainerInstance | None
    containers: list[Container]
    cpu: int
    memory: int
    shown_cpu: str
    shown_memory: str
    ports: list[int]
    created_at: float
    group: str
    started_by: str | None
    provider: str | None
    launch_type: str | None
    overrides: dict[str, Any]
    tags: Tags
    status: str = "PENDING"
    desired: str = "RUNNING"
    version: int = 1
    times: dict[str, float] = field(default_factory=dict)  # startedAt, stoppedAt, ...
    stop_code: str | None = None
    stopped_reason: str | None = None
    interface: Interface | None = None

    @property
    def instance(self) -> ContainerInstance:
        """The instance of a placed task."""
        if self.placed_on is None:
            raise RuntimeError(f"task {self.id} is not placed")
        return self.placed_on

    @property
    def fargate(self) -> bool:
        """Whether it runs on Fargate."""
        return self.launch_type == "FARGATE"

    @property
    def address(self) -> str:
        """The IP address of its containers."""
        return self.interface.private_ip if self.interface else self.instance.ec2_instance.private_ip

    def container_key(self, container: Container) -> str:
        """Return the key of a container's process."""
        return f"{self.id}/{container.name}"
