"""Wait for what was created a moment ago and AWS does not show everywhere yet.

IAM, EC2, Auto Scaling and ECS are eventually consistent: a resource that one call has created may be unknown to the
next one for some seconds. `TABLE` lists the errors that mean this and nothing else; `Patience` repeats a step that ends
with one of them. Every other error is raised at once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from dask_starburst.aws.faults import BUSY, MISSING, code_of
from dask_starburst.errors import AWSError, StarburstError
from dask_starburst.events.aws import StartDelayed
from dask_starburst.events.stream import Emit

T = TypeVar("T")

#: Our own code for a description that lacks what has been created: AWS answers without an error.
UNSEEN = "NotVisible"
#: Seconds between two attempts: first, and at most.
_FIRST, _LONGEST = 0.25, 2.0


@dataclass(frozen=True, slots=True)
class Lag:
    """A row of the table: calls, and the errors by which they say that a new resource is not visible yet.

    Parameters
    ----------
    what : str
        What AWS does not show yet; the subject of a sentence.
    operations : tuple of str
        As IAM writes them.
    codes, phrases : tuple of str
        The error has one of the codes and one of the phrases; empty: any. ``…`` stands for the name of a resource.
    """

    what: str
    operations: tuple[str, ...]
    codes: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()

    def fits(self, error: StarburstError) -> bool:
        """Return whether an error is one of this row."""
        return (
            error.operation in self.operations
            and (not self.codes or code_of(error) in self.codes)
            and (not self.phrases or any(_pattern(phrase).search(str(error)) for phrase in self.phrases))
        )


@cache
def _pattern(phrase: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, phrase.split("…"))), re.IGNORECASE)


#: Sources: real-account reports in terraform-provider-aws (PR 15457: service-linked role, up to 2 minutes;
#: ``aws_ecs_cluster_capacity_providers`` and ``aws_autoscaling_group`` retry the same errors), aws/containers-roadmap
#: issue 2614, "Amazon ECS API reference: PutClusterCapacityProviders", "IAM User Guide: changes that I make are not
#: always immediately visible", "Amazon EC2 API: eventual consistency", "AWS Systems Manager API: PutParameter".
TABLE: tuple[Lag, ...] = (
    Lag(
        "the service-linked role of ECS",
        ("ecs:CreateCluster", "ecs:CreateCapacityProvider", "ecs:PutClusterCapacityProviders"),
        ("InvalidParameterException", "ClientException"),
        ("Unable to assume the service linked role",),
    ),
    Lag(
        "the instance profile",
        ("autoscaling:CreateAutoScalingGroup", "autoscaling:UpdateAutoScalingGroup"),
        ("ValidationError",),
        ("Invalid IAM Instance Profile",),
    ),
    Lag(
        "the launch template",
        ("autoscaling:CreateAutoScalingGroup", "autoscaling:UpdateAutoScalingGroup"),
        ("ValidationError",),
        ("The specified launch template, … does not exist",),
    ),
    Lag(
        "the security group",
        ("autoscaling:CreateAutoScalingGroup", "autoscaling:UpdateAutoScalingGroup"),
        ("ValidationError",),
        ("The security group … does not exist",),
    ),
    Lag(
        "the Auto Scaling group",
        (
            "autoscaling:PutScheduledUpdateGroupAction",
            "autoscaling:UpdateAutoScalingGroup",
            "autoscaling:CreateOrUpdateTags",
        ),
        ("ValidationError",),
        ("AutoScalingGroup name not found",),
    ),
    Lag(
        "an earlier change of the Auto Scaling group",
        (
            "autoscaling:CreateAutoScalingGroup",
            "autoscaling:PutScheduledUpdateGroupAction",
            "autoscaling:UpdateAutoScalingGroup",
            "autoscaling:CreateOrUpdateTags",
        ),
        ("ResourceContention", "ScalingActivityInProgress"),
    ),
    Lag(
        "the Auto Scaling group",
        ("ecs:CreateCapacityProvider",),
        ("ClientException", "InvalidParameterException"),
        ("The specified Auto Scaling group does not exist",),
    ),
    Lag("the capacity provider", ("ecs:CreateCapacityProvider",), ("ClientException",), ("already exists",)),
    Lag(
        "an earlier change of the ECS cluster",
        ("ecs:CreateCluster", "ecs:CreateCapacityProvider", "ecs:PutClusterCapacityProviders"),
        ("UpdateInProgressException", "ResourceInUseException"),
    ),
    Lag("an earlier change of the ECS cluster", ("ecs:DeleteCapacityProvider",), ("UpdateInProgressException",)),
    Lag("the ECS cluster", ("ecs:PutClusterCapacityProviders",), ("ClusterNotFoundException",)),
    Lag(
        "the ECS cluster",
        ("ecs:PutClusterCapacityProviders",),
        ("ClientException", "InvalidParameterException"),
        ("Cluster was not ACTIVE", "The specified capacity provider … not found"),
    ),
    Lag(
        "the role or the instance profile",
        (
            "iam:AddRoleToInstanceProfile",
            "iam:GetInstanceProfile",
            "iam:GetRole",
            "iam:GetRolePolicy",
            "iam:PutRolePolicy",
        ),
        ("NoSuchEntity",),
    ),
    Lag(
        "an earlier change of the role",
        (
            "iam:AddRoleToInstanceProfile",
            "iam:CreateInstanceProfile",
            "iam:CreateRole",
            "iam:CreateServiceLinkedRole",
            "iam:PutRolePolicy",
        ),
        ("ConcurrentModification", "EntityTemporarilyUnmodifiable"),
    ),
    Lag(
        "the security group",
        ("ec2:AuthorizeSecurityGroupIngress", "ec2:DescribeSecurityGroups", "ec2:RevokeSecurityGroupIngress"),
        ("InvalidGroup.NotFound",),
    ),
    Lag(
        "the log group",
        ("logs:CreateLogGroup", "logs:PutRetentionPolicy"),
        ("OperationAbortedException", "ResourceNotFoundException"),
    ),
    Lag("an earlier change of the parameter", ("ssm:PutParameter",), ("TooManyUpdates",)),
    Lag("what was just created", ("ecs:RunTask",), tuple(sorted(MISSING | BUSY))),
    Lag(
        "the role or the task definition",
        ("ecs:RunTask",),
        phrases=(
            "unable to assume the role",
            "Unable to assume the service linked role",
            "Unable to describe task definition",
            "TaskDefinition not found",
            "The specified capacity provider",
        ),
    ),
    # ECS's limit of tasks that wait for a place: it passes as they are placed (aws-facts §1.2).
    Lag(
        "the place of earlier tasks", ("ecs:RunTask",), ("ClientException",), ("provisioning capacity limit exceeded",)
    ),
)


def lag(error: BaseException) -> Lag | None:
    """Return the row of an error; None if the error is not due to eventual consistency."""
    if not isinstance(error, StarburstError):
        return None
    if error.code == UNSEEN:
        return Lag("what was just created", (error.operation or "",))
    return next((row for row in TABLE if row.fits(error)), None)


def unseen(what: str, operation: str) -> AWSError:
    """Return the error for a description that lacks `what`, although it has been created."""
    return AWSError(f"{operation} does not show {what} yet.", code=UNSEEN, operation=operation)


class Patience:
    """Repeats steps of a start until AWS shows what earlier steps have created.

    Parameters
    ----------
    seconds : float
        How long each step is repeated after its first such error: ``timeouts.consistency``.
    emit : callable
        Receives one event for each call and reason to wait.
    """

    def __init__(self, seconds: float, emit: Emit) -> None:
        self.seconds = seconds
        self.emit = emit
        self._told: set[tuple[str | None, str]] = set()

    async def __call__(self, step: Callable[[], Awaitable[T]]) -> T:
        """Run a step, which must be safe to repeat, and return its result.

        Raises
        ------
        StarburstError
            The step failed for another reason, or AWS did not show the resource in time.
        """
        now = asyncio.get_running_loop().time
        deadline, pause = None, _FIRST
        while True:
            try:
                return await step()
            except StarburstError as error:
                row = lag(error)
                if row is None:
                    raise
                deadline = now() + self.seconds if deadline is None else deadline
                if now() > deadline:
                    raise
                self._tell(row, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST)

    def _tell(self, row: Lag, error: StarburstError) -> None:
        key = (error.operation, row.what)
        if key not in self._told:
            self._told.add(key)
            event = StartDelayed(operation=error.operation or "", what=row.what, error=str(error), limit=self.seconds)
            self.emit(event)
