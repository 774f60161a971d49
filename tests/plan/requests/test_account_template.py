"""The CloudFormation template creates what ``starburst setup`` creates."""

from __future__ import annotations

from typing import Any

import yaml
from cfnlint.api import lint_all

from dask_starburst.plan.requests import policies
from dask_starburst.plan.requests.account_template import account_template

ACCOUNT = "123456789012"
PSEUDO = {"${AWS::AccountId}": ACCOUNT, "${AWS::Partition}": "aws", "${AWS::URLSuffix}": "amazonaws.com"}


def template() -> Any:
    return yaml.safe_load(account_template(30))


def test_cfn_lint_finds_neither_an_error_nor_a_warning():
    found = [str(each) for each in lint_all(account_template(30)) if not each.rule.id.startswith("I")]
    assert found == []


def filled(value: Any) -> Any:
    """What CloudFormation makes of a value in this account."""
    if isinstance(value, dict):
        if value.keys() == {"Fn::Sub"}:
            text = value["Fn::Sub"]
            for name, known in PSEUDO.items():
                text = text.replace(name, known)
            return text
        return {key: filled(each) for key, each in value.items()}
    return [filled(each) for each in value] if isinstance(value, list) else value


def test_the_roles_are_those_of_a_launch():
    resources = template()["Resources"]
    made = {
        each["Properties"]["RoleName"]: each["Properties"]
        for each in resources.values()
        if each["Type"] == "AWS::IAM::Role"
    }
    roles = policies.roles(ACCOUNT)
    assert made.keys() == {role.name for role in roles}
    for role in roles:
        assert filled(made[role.name]["AssumeRolePolicyDocument"]) == role.trust
        inline = made[role.name].get("Policies", [])
        assert [filled(each["PolicyDocument"]) for each in inline] == ([role.policy] if role.statements else [])
        assert [each["PolicyName"] for each in inline] == ([role.name] if role.statements else [])


def test_what_an_account_may_have_already_can_be_left_out_and_awss_own_roles_stay():
    found = template()
    optional = {name: each["Condition"] for name, each in found["Resources"].items() if "Condition" in each}
    assert set(optional.values()) == set(found["Conditions"])
    linked = [each for each in found["Resources"].values() if each["Type"] == "AWS::IAM::ServiceLinkedRole"]
    assert len(linked) == len(policies.SERVICE_LINKED_ROLES)
    assert {each["DeletionPolicy"] for each in linked} == {"Retain"}
