"""The IAM roles: valid documents, and least privilege."""

from __future__ import annotations

import json
import re

import pytest

from dask_starburst.plan.requests.policies import (
    Role,
    execution_role,
    instance_role,
    scheduler_role,
    worker_role,
)

ROLES = [instance_role("123456789012"), execution_role("123456789012"), scheduler_role("123456789012"), worker_role()]
each_role = pytest.mark.parametrize("role", ROLES, ids=lambda r: r.name)
#: Actions that cannot be restricted to a resource (Service Authorization Reference).
ONLY_ON_EVERYTHING = {"ecs:DiscoverPollEndpoint", "autoscaling:DescribeTags"}


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


def test_the_reaper_ends_instances_of_tagged_groups_only():
    (statement,) = [s for s in instance_role("111122223333").statements if s["Sid"] == "Reap"]
    assert statement["Action"] == ["autoscaling:TerminateInstanceInAutoScalingGroup"]
    assert statement["Resource"] == (
        "arn:aws:autoscaling:*:111122223333:autoScalingGroup:*:autoScalingGroupName/starburst-*"
    )
    assert statement["Condition"] == {"StringLike": {"aws:ResourceTag/starburst:pool": "starburst-*"}}


def test_the_scheduler_can_only_empty_groups_of_pools():
    (statement,) = scheduler_role("111122223333").statements
    assert statement["Action"] == ["autoscaling:PutScheduledUpdateGroupAction", "autoscaling:UpdateAutoScalingGroup"]
    assert statement["Resource"].endswith(":111122223333:autoScalingGroup:*:autoScalingGroupName/starburst-*")
    assert statement["Condition"] == {
        "StringLike": {"aws:ResourceTag/starburst:pool": "starburst-*"},
        "NumericEquals": {"autoscaling:MinSize": "0", "autoscaling:MaxSize": "0"},
    }


def test_secrets_and_logs_are_limited_to_starburst_in_this_account():
    role = execution_role("111122223333")
    resources = {a: s["Resource"] for s in role.statements for a in s["Action"]}
    assert resources["ssm:GetParameters"] == "arn:aws:ssm:*:111122223333:parameter/starburst/tls/*"
    assert resources["logs:PutLogEvents"] == "arn:aws:logs:*:111122223333:log-group:/starburst:*"


def test_the_instance_role_reaches_no_other_cluster_and_pulls_no_images():
    every = instance_role("111122223333").statements
    actions = {a for s in every for a in s["Action"]}
    assert not any(a.startswith(("ssm:", "secretsmanager:", "iam:", "ec2:", "ecr:")) for a in actions)
    assert not actions & {"ecs:RunTask", "ecs:StartTask", "ecs:DeregisterContainerInstance"}
    assert {a for s in every for a in s["Action"] if s["Resource"] == "*"} == ONLY_ON_EVERYTHING
    ecs = {s["Resource"] for s in every for a in s["Action"] if a.startswith("ecs:") and s["Resource"] != "*"}
    assert ecs == {
        "arn:aws:ecs:*:111122223333:cluster/starburst-*",
        "arn:aws:ecs:*:111122223333:container-instance/starburst-*/*",
    }
