"""The table of rights, held to AWS's service authorization reference."""

from __future__ import annotations

import json
import re

import parliament
import pytest

from dask_starburst.local.iam import reference
from dask_starburst.plan.requests.rights import Holder, Right, document
from dask_starburst.plan.requests.rights_table import TABLE, rights_of

HOLDERS: tuple[Holder, ...] = ("admin", "user", "builder", "instance", "execution", "scheduler")
each_right = pytest.mark.parametrize("right", TABLE, ids=lambda right: right.sid)
#: What parliament says of every policy that AWS's own guides recommend: its data wants all resource types of an action
#: in one statement, an account in every ARN, and knows no resources of capacity providers yet.
KNOWN_BETTER = {"ec2:RunInstances", "ec2:CreateSecurityGroup", "ssm:GetParameter", "ecs:CreateCapacityProvider"}


def resources(right: Right) -> list[str]:
    found = right.statement("123456789012")["Resource"]
    return [found] if isinstance(found, str) else found


def matched(right: Right) -> list[list[str]]:
    """Return ARNs that each resource of a right matches."""
    ends = ("x", "x/x", "log-stream:x")
    return [[re.sub(r"\*$", end, each).replace("*", "x") for end in ends] for each in resources(right)]


def test_every_statement_has_a_name_of_its_own():
    names = [right.sid for right in TABLE]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[A-Za-z0-9]+", name) for name in names)


@each_right
def test_actions_exist_and_are_written_out(right: Right):
    assert [action for action in right.actions if not reference.exists(action)] == []


@each_right
def test_only_actions_that_take_no_resource_are_allowed_on_everything(right: Right):
    for action in right.actions:
        narrow = reference.resource_types(action) - {"quota", "billingview"}  # optional, and there is none of ours
        assert bool(narrow) == (resources(right) != ["*"]), action


@each_right
def test_each_resource_is_one_that_an_action_takes_and_each_action_has_one(right: Right):
    if resources(right) == ["*"]:
        return
    for arns in matched(right):
        assert any(reference.type_of(action, arn) for action in right.actions for arn in arns), arns[0]
    for action in right.actions:
        assert any(reference.type_of(action, arn) for arns in matched(right) for arn in arns), action


@each_right
def test_each_condition_is_on_a_key_that_every_action_has_for_a_resource(right: Right):
    keys = [key.partition("/")[0].lower() for operands in right.conditions.values() for key in operands]
    every = [arn for arns in matched(right) for arn in arns]
    for action in right.actions:
        known = {key.removesuffix("/*") for arn in every for key in reference.condition_keys(action, arn)}
        assert set(keys) <= known, action


@pytest.mark.parametrize("holder", HOLDERS)
def test_parliament_finds_nothing(holder: Holder):
    found = parliament.analyze_policy_string(json.dumps(document(rights_of(holder), "123456789012"))).findings
    assert [
        finding
        for finding in found
        if finding.issue != "RESOURCE_MISMATCH" or {each["action"] for each in finding.detail} - KNOWN_BETTER
    ] == []


@pytest.mark.parametrize("holder", ["admin", "user", "builder"])
def test_a_policy_fits_into_a_managed_policy(holder: Holder):
    # docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html: white space does not count.
    assert len(json.dumps(document(rights_of(holder)), separators=(",", ":"))) <= 6144


def test_users_cannot_make_roles_or_read_certificates():
    for right in rights_of("user"):
        writes = [action for action in right.actions if re.match(r"iam:(?!Get|PassRole)", action)]
        reads = [action for action in right.actions if action.startswith("ssm:GetParameter")]
        assert not writes
        assert not (reads and any("/tls" in resource or resource == "*" for resource in resources(right)))


def test_roles_are_passed_only_to_the_services_that_run_them():
    for right in TABLE:
        if "iam:PassRole" in right.actions:
            assert right.conditions["StringEquals"]["iam:PassedToService"]
            assert all(":role/starburst/starburst-" in resource for resource in resources(right))
