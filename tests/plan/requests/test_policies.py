"""The IAM roles: valid documents, and least privilege."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from dask_starburst.plan.requests.policies import (
    QUOTA_READ,
    QUOTA_REQUEST,
    Role,
    execution_role,
    instance_role,
    scheduler_role,
    worker_role,
)

ROLES = [instance_role("123456789012"), execution_role("123456789012"), scheduler_role("123456789012"), worker_role()]
each_role = pytest.mark.parametrize("role", ROLES, ids=lambda r: r.name)
#: Actions that cannot be restricted to a resource (Service Authorization Reference).
ONLY_ON_EVERYTHING = {"ecr:GetAuthorizationToken", "ecs:DiscoverPollEndpoint"}


@each_role
def test_a_role_has_the_name_prefix_and_is_assumed_by_one_service(role: Role):
    assert re.fullmatch(r"starburst-[a-z]{1,50}", role.name)
    (statement,) = role.trust["Statement"]
    assert statement["Principal"] == {"Service": f"{role.service}.amazonaws.com"}
    assert statement["Action"] == "sts:AssumeRole"
    assert role.service in {"ec2", "ecs-tasks"}


@each_role
def test_a_policy_is_a_valid_document(role: Role):
    policy = json.loads(json.dumps(role.policy))
    assert policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        assert statement["Resource"]
    assert len(json.dumps(policy, separators=(",", ":"))) <= 10_240  # all inline policies of a role


@each_role
def test_every_action_is_listed_without_wildcards(role: Role):
    for statement in role.statements:
        assert statement["Action"]
        for action in statement["Action"]:
            assert re.fullmatch(r"[a-z0-9-]+:[A-Z][A-Za-z]+", action)


def test_user_code_has_no_permissions():
    assert worker_role().statements == ()


@pytest.mark.parametrize(
    ("role", "actions"),
    [
        (
            scheduler_role,
            ["autoscaling:PutScheduledUpdateGroupAction", "autoscaling:UpdateAutoScalingGroup"],
        ),
        (instance_role, ["autoscaling:TerminateInstanceInAutoScalingGroup"]),
    ],
)
def test_roles_that_end_capacity_are_limited_to_tagged_groups_and_cannot_launch(
    role: Callable[[str], Role], actions: list[str]
):
    every = role("111122223333").statements
    changes = re.compile(r"autoscaling:(?!Describe)")
    (statement,) = [s for s in every if any(changes.match(a) for a in s["Action"])]
    assert statement["Action"] == actions
    assert statement["Resource"] == (
        "arn:aws:autoscaling:*:111122223333:autoScalingGroup:*:autoScalingGroupName/starburst-*"
    )
    assert statement["Condition"] == {"Null": {"aws:ResourceTag/starburst:pool": "false"}}


def test_the_scheduler_has_no_other_permissions():
    assert len(scheduler_role("111122223333").statements) == 1


def test_secrets_and_logs_are_limited_to_starburst_in_this_account():
    role = execution_role("111122223333")
    resources = {a: s["Resource"] for s in role.statements for a in s["Action"]}
    assert resources["ssm:GetParameters"] == "arn:aws:ssm:*:111122223333:parameter/starburst/*"
    assert resources["logs:PutLogEvents"] == "arn:aws:logs:*:111122223333:log-group:/starburst:*"


def test_the_instance_role_cannot_read_secrets_or_run_tasks():
    actions = {a for s in instance_role("111122223333").statements for a in s["Action"]}
    assert not any(a.startswith(("ssm:", "secretsmanager:", "iam:", "ec2:")) for a in actions)
    assert not actions & {"ecs:RunTask", "ecs:StartTask"}
    assert actions >= ONLY_ON_EVERYTHING


@pytest.mark.parametrize("statement", [QUOTA_READ, QUOTA_REQUEST])
def test_the_quota_statements_list_actions_without_wildcards(statement: dict[str, Any]):
    assert statement["Effect"] == "Allow"
    for action in statement["Action"]:
        assert re.fullmatch(r"[a-z0-9-]+:[A-Z][A-Za-z]+", action)


def test_the_quota_read_statement_is_read_only():
    assert all(re.match(r"\w+:(Get|List|Describe)", action) for action in QUOTA_READ["Action"])
