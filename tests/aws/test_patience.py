"""What was created a moment ago is waited for; every other error ends a start at once."""

from __future__ import annotations

import asyncio

import pytest

from dask_starburst.aws.patience import TABLE, Patience, lag, unseen
from dask_starburst.errors import AWSError, StarburstError
from dask_starburst.events import Event, StartDelayed

ROLE = AWSError(
    "ecs:CreateCluster failed: Unable to assume the service linked role. Please verify that the ECS service linked role"
    " exists. (InvalidParameterException).",
    code="InvalidParameterException",
    operation="ecs:CreateCluster",
)


def error(operation: str, code: str, text: str = "It failed.") -> AWSError:
    return AWSError(f"{operation} failed: {text} ({code}).", code=code, operation=operation)


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (ROLE, "the service-linked role of ECS"),
        (
            error(
                "autoscaling:CreateAutoScalingGroup",
                "ValidationError",
                "You must use a valid fully-formed launch template. Value (starburst-instance) for parameter"
                " iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name",
            ),
            "the instance profile",
        ),
        (
            error(
                "autoscaling:CreateAutoScalingGroup",
                "ValidationError",
                "You must use a valid fully-formed launch template. The specified launch template, with template name"
                " starburst-1, does not exist.",
            ),
            "the launch template",
        ),
        (
            error(
                "autoscaling:CreateAutoScalingGroup",
                "ValidationError",
                "You must use a valid fully-formed launch template. The security group 'sg-1' does not exist",
            ),
            "the security group",
        ),
        (error("iam:AddRoleToInstanceProfile", "NoSuchEntity"), "the role or the instance profile"),
        (error("ec2:AuthorizeSecurityGroupIngress", "InvalidGroup.NotFound"), "the security group"),
        (error("ecs:PutClusterCapacityProviders", "UpdateInProgressException"), "an earlier change of the ECS cluster"),
        (error("ecs:PutClusterCapacityProviders", "ResourceInUseException"), "an earlier change of the ECS cluster"),
        (
            error("ecs:PutClusterCapacityProviders", "ClientException", "Cluster was not ACTIVE. Try again."),
            "the ECS cluster",
        ),
        (
            error(
                "ecs:CreateCapacityProvider", "ClientException", "The specified capacity provider already exists. To …"
            ),
            "the capacity provider",
        ),
        (error("logs:CreateLogGroup", "OperationAbortedException"), "the log group"),
        (error("ssm:PutParameter", "TooManyUpdates"), "an earlier change of the parameter"),
        (
            error("ecs:RunTask", "ClientException", "ECS was unable to assume the role 'arn:…' that was provided"),
            "the role or the task definition",
        ),
    ],
)
def test_an_error_about_something_new_has_a_row(found: AWSError, what: str) -> None:
    row = lag(found)
    assert row is not None
    assert row.what == what


@pytest.mark.parametrize(
    "other",
    [
        error("ecs:CreateCluster", "InvalidParameterException", "Cluster name is not valid."),
        error("ecs:DeleteCapacityProvider", "ResourceInUseException"),
        error("autoscaling:CreateAutoScalingGroup", "ValidationError", "You must use a valid launch template."),
        error("ecs:CreateCapacityProvider", "LimitExceededException", "The limit already exists."),
        error("iam:CreateRole", "LimitExceeded"),
    ],
)
def test_another_error_has_none_and_ends_the_step_at_once(other: AWSError) -> None:
    calls, told = [], list[Event]()

    async def step() -> None:
        calls.append(1)
        raise other

    assert lag(other) is None
    with pytest.raises(StarburstError) as raised:
        asyncio.run(Patience(60.0, told.append)(step))
    assert (raised.value, len(calls), told) == (other, 1, [])


def test_a_step_is_repeated_until_aws_shows_it_and_the_user_is_told_once() -> None:
    failures, told = [ROLE, ROLE, unseen("the group a", "autoscaling:DescribeAutoScalingGroups")], list[Event]()

    async def step() -> str:
        if failures:
            raise failures.pop(0)
        return "made"

    assert asyncio.run(Patience(60.0, told.append)(step)) == "made"
    first, second = told
    assert isinstance(first, StartDelayed)
    assert str(ROLE) in first.message
    assert "does not show the group a yet" in second.message


def test_after_the_limit_aws_s_own_error_is_raised() -> None:
    async def step() -> None:
        raise ROLE

    with pytest.raises(AWSError) as raised:
        asyncio.run(Patience(0.1, lambda event: None)(step))
    assert raised.value is ROLE


def test_each_row_names_actions_and_what_is_waited_for() -> None:
    for row in TABLE:
        assert row.what.startswith(("the ", "an ", "what "))
        assert all(":" in operation for operation in row.operations)
        assert row.codes or row.phrases
