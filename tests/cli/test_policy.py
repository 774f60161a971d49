"""``starburst policy``: documents that IAM, CloudFormation and Terraform accept."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from dask_starburst.cli import main
from dask_starburst.plan.requests.policies import roles

PEOPLE = ["admin", "user", "images"]


def policy(*words: str) -> Any:
    result = CliRunner().invoke(main, ["policy", *words])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


@pytest.mark.parametrize("whose", PEOPLE)
def test_a_policy_is_printed_as_iam_takes_it(whose: str) -> None:
    found = policy(whose)
    assert found["Version"] == "2012-10-17"
    assert all(one["Effect"] == "Allow" and one["Sid"] for one in found["Statement"])


@pytest.mark.parametrize("whose", PEOPLE)
def test_templates_hold_the_same_policy(whose: str) -> None:
    (stack,) = policy(whose, "--format", "cloudformation")["Resources"].values()
    assert stack["Type"] == "AWS::IAM::ManagedPolicy"
    assert stack["Properties"]["PolicyDocument"] == policy(whose)
    (managed,) = policy(whose, "--format", "terraform")["resource"]["aws_iam_policy"].values()
    assert json.loads(managed["policy"]) == policy(whose)


def test_a_template_of_the_roles_makes_what_a_start_looks_for() -> None:
    template = yaml.safe_load(json.dumps(policy("roles", "--format", "cloudformation")))
    made = [each["Properties"] for each in template["Resources"].values() if each["Type"] == "AWS::IAM::Role"]
    assert {one["RoleName"]: one["AssumeRolePolicyDocument"] for one in made} == {
        role.name: role.trust for role in roles("*")
    }
    profile = template["Resources"]["InstanceProfile"]["Properties"]
    assert (profile["InstanceProfileName"], profile["Roles"]) == ("starburst-instance", [{"Ref": "InstanceRole"}])
    terraform = policy("roles", "--format", "terraform")["resource"]
    assert set(terraform["aws_iam_role_policy"]) == {"starburst_instance", "starburst_execution", "starburst_scheduler"}


def test_another_partition_is_in_every_arn() -> None:
    text = json.dumps(policy("user", "--partition", "aws-us-gov"))
    assert "arn:aws-us-gov:ecs:" in text
    assert "arn:aws:" not in text
