from __future__ import annotations

from typing import Any

import pytest

from dask_starburst.local.iam.evaluate import decide
from dask_starburst.local.iam.model import Check, Principal
from dask_starburst.local.iam.patterns import arn_like

CLUSTER = "arn:aws:ecs:us-east-1:123456789012:cluster/starburst-0a"
GROUP = "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:uuid:autoScalingGroupName/starburst-0a-head"
USER = "arn:aws:iam::123456789012:user/ada"


def allowed(check: Check, *statements: dict[str, Any], bounds: tuple[dict[str, Any], ...] = ()) -> bool:
    principal = Principal(USER, "AIDA1", {"p": {"Statement": list(statements)}}, bounds, name="ada")
    return decide(principal, check).allowed


def allow(action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def with_condition(operator: str, key: str, value: Any, **context: tuple[str, ...]) -> bool:
    keys = {name.replace("__", ":"): values for name, values in context.items()}
    return allowed(Check("ecs:RunTask", CLUSTER, keys), allow(Condition={operator: {key: value}}))


def test_what_no_statement_allows_is_denied():
    assert not allowed(Check("ecs:DeleteCluster", CLUSTER), allow("ecs:CreateCluster"))


def test_a_deny_wins_over_an_allow_and_is_told_apart_from_a_missing_one():
    check = Check("ecs:DeleteCluster", CLUSTER)
    policies = {"p": {"Statement": [allow(), {**allow("ecs:Delete*", Sid="Keep"), "Effect": "Deny"}]}}
    decision = decide(Principal(USER, "AIDA1", policies), check)
    assert (decision.allowed, decision.explicit, decision.by) == (False, True, ("p/Keep",))


def test_a_statement_may_stand_without_a_list():
    assert decide(Principal(USER, "AIDA1", {"p": {"Statement": allow()}}), Check("ecs:RunTask", CLUSTER)).allowed


@pytest.mark.parametrize("action", ["ecs:RunTask", "ecs:run*", "ECS:Run?ask", "*", ["ec2:*", "ecs:RunTask"]])
def test_actions_match_by_wildcard_and_in_any_case(action):
    assert allowed(Check("ecs:RunTask", CLUSTER), allow(action))


def test_not_action_and_not_resource_exclude():
    check = Check("ecs:RunTask", CLUSTER)
    assert not allowed(check, {"Effect": "Allow", "NotAction": "ecs:*", "Resource": "*"})
    assert not allowed(check, {"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:ecs:*:*:cluster/starburst-*"})
    assert allowed(check, {"Effect": "Allow", "NotAction": "ec2:*", "NotResource": "arn:aws:s3:::*"})


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("*", True),
        ("arn:aws:ecs:*:*:cluster/starburst-*", True),
        ("arn:aws:ecs:*", True),
        ("arn:aws:ecs:*:123456789012:cluster/star", False),
        ("arn:aws:ecs:*:cluster/starburst-*", False),  # a wildcard does not reach over a colon
        ("arn:aws:ecs:us-east-?:*:cluster/*", True),
        ("arn:aws:ecs:eu-*:*:cluster/*", False),
    ],
)
def test_resources_match_segment_by_segment(pattern, matches):
    assert arn_like(pattern, CLUSTER) is matches


def test_a_group_matches_by_its_name_behind_its_id():
    assert arn_like("arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/starburst-*", GROUP)
    assert not arn_like("arn:aws:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/other-*", GROUP)


def test_a_variable_stands_for_the_caller_and_is_taken_literally():
    own = allow(resource="arn:aws:ssm:*:*:parameter/starburst/${aws:userid}/*")
    mine = "arn:aws:ssm:us-east-1:123456789012:parameter/starburst/AIDA1/key"
    assert allowed(Check("ssm:GetParameter", mine), own)
    assert not allowed(Check("ssm:GetParameter", mine.replace("AIDA1", "AIDA2")), own)
    star = Principal(USER, "*", {"p": {"Statement": own}})
    assert not decide(star, Check("ssm:GetParameter", mine)).allowed


def test_a_variable_without_a_value_matches_nothing():
    assert not allowed(Check("ecs:RunTask", CLUSTER), allow(resource="arn:aws:ecs:*:*:cluster/${aws:PrincipalTag/x}"))
    assert with_condition("StringEquals", "aws:x", "${aws:PrincipalTag/x, 'none'}", aws__x=("none",))


@pytest.mark.parametrize(
    ("operator", "wanted", "given", "holds"),
    [
        ("StringEquals", "a", "a", True),
        ("StringEquals", "a*", "ab", False),
        ("StringEquals", ["a", "b"], "b", True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringEqualsIgnoreCase", "A", "a", True),
        ("StringLike", "a*", "ab", True),
        ("StringNotLike", "a*", "ab", False),
        ("ArnLike", "arn:aws:ecs:*:*:cluster/*", CLUSTER, True),
        ("ArnNotEquals", "arn:aws:ecs:*:*:cluster/*", CLUSTER, False),
        ("NumericLessThanEquals", 0, "0", True),
        ("NumericLessThanEquals", "0", "1", False),
        ("NumericNotEquals", "0", "1", True),
        ("NumericEquals", "0", "none", False),
        ("Bool", True, "true", True),
        ("Bool", "false", "true", False),
        ("IpAddress", "10.0.0.0/8", "10.1.2.3", True),
        ("NotIpAddress", "10.0.0.0/8", "10.1.2.3", False),
        ("DateLessThan", "2030-01-01T00:00:00Z", "2026-12-01T00:00:00Z", True),
        ("Null", "false", "a", True),
        ("Null", "true", "a", False),
    ],
)
def test_operators_compare(operator, wanted, given, holds):
    assert with_condition(operator, "aws:X", wanted, aws__x=(given,)) is holds


@pytest.mark.parametrize(
    ("operator", "holds"),
    [
        ("StringEquals", False),
        ("StringEqualsIfExists", True),
        ("StringNotEquals", True),
        ("NumericLessThanEquals", False),
        ("ForAllValues:StringEquals", True),
        ("ForAnyValue:StringEquals", False),
        ("ForAnyValue:StringNotEquals", False),
    ],
)
def test_a_missing_key_holds_only_where_aws_says_so(operator, holds):
    assert with_condition(operator, "aws:absent", "1") is holds


def test_several_values_need_a_set_operator():
    keys = {"aws__tagkeys": ("a", "b")}
    assert with_condition("ForAllValues:StringEquals", "aws:TagKeys", ["a", "b", "c"], **keys)
    assert not with_condition("ForAllValues:StringEquals", "aws:TagKeys", ["a"], **keys)
    assert with_condition("ForAnyValue:StringEquals", "aws:TagKeys", ["a"], **keys)
    assert not with_condition("StringEquals", "aws:TagKeys", ["a", "b"], **keys)


def test_an_unknown_operator_never_widens_a_policy():
    assert not with_condition("StringIsh", "aws:x", "a", aws__x=("a",))
    deny = {**allow(Condition={"StringIsh": {"aws:x": "a"}}), "Effect": "Deny"}
    assert not allowed(Check("ecs:RunTask", CLUSTER), allow(), deny)


def test_a_boundary_has_to_allow_too():
    only_ecs = {"Statement": [allow("ecs:*")]}
    assert allowed(Check("ecs:RunTask", CLUSTER), allow(), bounds=(only_ecs,))
    assert not allowed(Check("ec2:RunInstances", "*"), allow(), bounds=(only_ecs,))
