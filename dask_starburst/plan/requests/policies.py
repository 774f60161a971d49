"""The IAM roles of an account: their trust policies and their permissions (aws-facts §6)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from dask_starburst.plan.requests.rights import MANAGED_TAG, NAMESPACE, PARAMETER_ROOT, Holder
from dask_starburst.plan.requests.rights_table import rights_of

__all__ = ["MANAGED_TAG", "NAMESPACE", "PARAMETER_ROOT"]

#: Services with a service-linked role, and the names of these roles.
SERVICE_LINKED_ROLES = (
    ("ecs.amazonaws.com", "AWSServiceRoleForECS"),
    ("autoscaling.amazonaws.com", "AWSServiceRoleForAutoScaling"),
    ("spot.amazonaws.com", "AWSServiceRoleForEC2Spot"),
)
#: The suffix of the endpoints in the partitions ``aws`` and ``aws-us-gov``.
_DNS_SUFFIX = "amazonaws.com"


@dataclass(frozen=True, slots=True)
class Role:
    """One IAM role: its name, the service that assumes it, its inline policy, and the suffix of the partition."""

    name: str
    service: str
    statements: tuple[dict[str, Any], ...]
    dns_suffix: str = _DNS_SUFFIX

    @property
    def trust(self) -> dict[str, Any]:
        """The trust policy."""
        # EC2's principal has the suffix of the partition, the others' are the same in all (``region-info`` of the CDK).
        suffix = self.dns_suffix if self.service == "ec2" else _DNS_SUFFIX
        principal = {"Service": f"{self.service}.{suffix}"}
        return _document(({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"},))

    @property
    def policy(self) -> dict[str, Any]:
        """The inline policy."""
        return _document(self.statements)


def _document(statements: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def instance_role(account: str, partition: str = "aws", dns_suffix: str = _DNS_SUFFIX) -> Role:
    """Return the role of every instance: what the ECS agent calls, and the reaper (runtime/host/reaper.py).

    The reaper terminates the instance that it runs on, unless a tag of the group keeps it. IAM
    cannot restrict this to the instance itself, so the role may terminate any instance of groups with the
    pool tag. It cannot launch instances, and reaches no cluster but ours.
    """
    return replace(_role("instance", "ec2", account, partition), dns_suffix=dns_suffix)


def execution_role(account: str, partition: str = "aws") -> Role:
    """Return the role that ECS uses to pull the image, read secrets and write logs.

    It covers every region: roles are global in an account, so clusters in two regions share it.
    """
    return _role("execution", "ecs-tasks", account, partition)


def scheduler_role(account: str, partition: str = "aws") -> Role:
    """Return the role of the scheduler task, which renews the lease of a pool and scales it to zero.

    It can only empty groups, now or later.
    """
    return _role("scheduler", "ecs-tasks", account, partition)


def worker_role() -> Role:
    """Return the role of the worker tasks: user code runs with it, so it has no permissions."""
    return Role(f"{NAMESPACE}-worker", "ecs-tasks", ())


def roles(account: str, partition: str = "aws") -> tuple[Role, ...]:
    """Return every role of an account, that of the instances first."""
    return (
        instance_role(account, partition, "amazonaws.com.cn" if partition == "aws-cn" else _DNS_SUFFIX),
        _role("execution", "ecs-tasks", account, partition),
        _role("scheduler", "ecs-tasks", account, partition),
        worker_role(),
    )


def _role(holder: Holder, service: str, account: str, partition: str = "aws") -> Role:
    statements = tuple(right.statement(account, partition) for right in rights_of(holder))
    return Role(f"{NAMESPACE}-{holder}", service, statements)
