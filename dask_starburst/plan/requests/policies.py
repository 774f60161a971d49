"""The IAM roles of an account: their trust policies and their permissions (aws-facts §6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

#: Prefix of the name of every resource in an account.
NAMESPACE = "starburst"
#: The tag of every resource created by this package; its value is the pool or the namespace.
MANAGED_TAG = "starburst:pool"
PARAMETER_ROOT = f"/{NAMESPACE}/"


#: Services with a service-linked role, and the names of these roles.
SERVICE_LINKED_ROLES = (
    ("ecs.amazonaws.com", "AWSServiceRoleForECS"),
    ("autoscaling.amazonaws.com", "AWSServiceRoleForAutoScaling"),
    ("spot.amazonaws.com", "AWSServiceRoleForEC2Spot"),
)


@dataclass(frozen=True, slots=True)
class Role:
    """One IAM role: its name, the service that assumes it, its inline policy."""

    name: str
    service: str
    statements: tuple[dict[str, Any], ...]

    @property
    def trust(self) -> dict[str, Any]:
        """The trust policy."""
        principal = {"Service": f"{self.service}.amazonaws.com"}
        return _document(({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"},))

    @property
    def policy(self) -> dict[str, Any]:
        """The inline policy."""
        return _document(self.statements)


def _document(statements: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _allow(actions: list[str], resource: str | list[str] = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resource, **more}


#: For users: the quota check before a launch, and ``starburst quota status``. Without it, launches skip the check.
QUOTA_READ = _allow(
    [
        "servicequotas:GetServiceQuota",
        "servicequotas:GetAWSDefaultServiceQuota",
        "ec2:DescribeInstances",
        "ecs:ListClusters",
        "ecs:ListTasks",
        "ecs:DescribeTasks",
    ]
)
#: For an administrator: ``starburst quota request``, and the open requests in ``starburst quota status``.
QUOTA_REQUEST = _allow(
    [
        "servicequotas:RequestServiceQuotaIncrease",
        "servicequotas:ListRequestedServiceQuotaChangeHistory",
        "servicequotas:ListRequestedServiceQuotaChangeHistoryByQuota",
    ]
)

_PULL = _allow(
    [
        "ecr:GetAuthorizationToken",
        "ecr:BatchCheckLayerAvailability",
        "ecr:GetDownloadUrlForLayer",
        "ecr:BatchGetImage",
    ]
)


def instance_role(account: str) -> Role:
    """Return the role of every instance: what the ECS agent calls, and the reaper (runtime/host/reaper.py).

    The reaper terminates the instance that it runs on, unless a tag of the group keeps it. IAM
    cannot restrict this to the instance itself, so the role may terminate any instance of groups with the
    pool tag. It cannot launch instances.
    """
    agent = [
        "ecs:RegisterContainerInstance",
        "ecs:DeregisterContainerInstance",
        "ecs:DiscoverPollEndpoint",
        "ecs:Poll",
        "ecs:StartTelemetrySession",
        "ecs:UpdateContainerInstancesState",
        "ecs:SubmitTaskStateChange",
        "ecs:SubmitContainerStateChange",
        "ecs:SubmitAttachmentStateChanges",
    ]
    reaper = _on_groups(account, ["autoscaling:TerminateInstanceInAutoScalingGroup"])
    return Role(f"{NAMESPACE}-instance", "ec2", (_allow([*agent, "autoscaling:DescribeTags"]), _PULL, reaper))


def execution_role(account: str) -> Role:
    """Return the role that ECS uses to pull the image, read secrets and write logs.

    It covers every region: roles are global in an account, so clusters in two regions share it.
    """
    logs = f"arn:aws:logs:*:{account}:log-group:/{NAMESPACE}:*"
    parameters = f"arn:aws:ssm:*:{account}:parameter{PARAMETER_ROOT}*"
    return Role(
        f"{NAMESPACE}-execution",
        "ecs-tasks",
        (
            _PULL,
            _allow(["logs:CreateLogStream", "logs:PutLogEvents"], logs),
            _allow(["ssm:GetParameters"], parameters),
        ),
    )


def scheduler_role(account: str) -> Role:
    """Return the role of the scheduler task, which renews the lease of a pool and scales it to zero.

    It cannot launch instances.
    """
    actions = ["autoscaling:PutScheduledUpdateGroupAction", "autoscaling:UpdateAutoScalingGroup"]
    return Role(f"{NAMESPACE}-scheduler", "ecs-tasks", (_on_groups(account, actions),))


def _on_groups(account: str, actions: list[str]) -> dict[str, Any]:
    """Allow actions on the groups of all pools, which share the role: matched by prefix and tag."""
    groups = f"arn:aws:autoscaling:*:{account}:autoScalingGroup:*:autoScalingGroupName/{NAMESPACE}-*"
    tagged = {"Null": {f"aws:ResourceTag/{MANAGED_TAG}": "false"}}  # the tag exists
    return _allow(actions, groups, Condition=tagged)


def worker_role() -> Role:
    """Return the role of the worker tasks: user code runs with it, so it has no permissions."""
    return Role(f"{NAMESPACE}-worker", "ecs-tasks", ())
