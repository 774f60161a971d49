"""A refused launch template: the error names the right that is missing, which AWS does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from dask_starburst.aws import autoscaling
from dask_starburst.aws.session import AWS
from dask_starburst.errors import PermissionDenied
from dask_starburst.local import LocalAWS

RIGHTS = ["autoscaling:*", "ec2:RunInstances", "ec2:CreateTags", "iam:PassRole", "iam:CreateServiceLinkedRole"]
AMI = "/aws/service/ecs/optimized-ami/amazon-linux-2023/arm64/recommended/image_id"


@pytest.fixture(scope="module")
def request_of_a_group(aws: LocalAWS) -> Iterator[dict[str, Any]]:
    """Make a launch template with an instance profile and tags; return a request that uses it."""
    iam, ec2 = aws.client("iam"), aws.client("ec2")
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName="hosts", AssumeRolePolicyDocument=document)
    iam.create_instance_profile(InstanceProfileName="hosts")
    iam.add_role_to_instance_profile(InstanceProfileName="hosts", RoleName="hosts")
    data = {
        "ImageId": aws.client("ssm").get_parameter(Name=AMI)["Parameter"]["Value"],
        "InstanceType": "c7g.large",
        "IamInstanceProfile": {"Name": "hosts"},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}],
    }
    ec2.create_launch_template(LaunchTemplateName="hosts", LaunchTemplateData=data)
    template = {
        "LaunchTemplateSpecification": {"LaunchTemplateName": "hosts", "Version": "1"},
        "Overrides": [{"InstanceType": "c7g.large"}],
    }
    aws.enforce_iam(True)
    yield {
        "AutoScalingGroupName": "hosts",
        "MinSize": 0,
        "MaxSize": 0,
        "VPCZoneIdentifier": ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        "MixedInstancesPolicy": {"LaunchTemplate": template},
    }
    aws.enforce_iam(False)


def refusal(aws: LocalAWS, name: str, rights: list[str], request: dict[str, Any]) -> PermissionDenied:
    iam = aws.client("iam")
    iam.create_user(UserName=name)
    statement = {"Effect": "Allow", "Action": rights, "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    ours = AWS(session=aws.session_of(key["AccessKeyId"], key["SecretAccessKey"]))
    with pytest.raises(PermissionDenied) as denied:
        asyncio.run(autoscaling.ensure_group(ours, request))
    ours.close()
    return denied.value


@pytest.mark.parametrize("lacking", ["ec2:RunInstances", "ec2:CreateTags", "iam:PassRole"])
def test_a_dry_run_finds_the_missing_right(aws: LocalAWS, request_of_a_group: dict[str, Any], lacking: str) -> None:
    rights = [right for right in RIGHTS if right != lacking]
    error = refusal(aws, f"lacks-{lacking[4:]}", rights, request_of_a_group)
    assert error.operation == lacking
    assert "You are not authorized to use launch template" in str(error)
    assert f"A dry run says: AWS denies {lacking}" in str(error)


def test_where_a_dry_run_finds_nothing_the_candidates_are_named(
    aws: LocalAWS, request_of_a_group: dict[str, Any]
) -> None:
    text = "You are not authorized to use launch template: lt-0a"
    aws.inject("autoscaling:CreateAutoScalingGroup", "AccessDenied", text, status=403)
    error = refusal(aws, "lacks-nothing", RIGHTS, request_of_a_group)
    assert "It asks for ec2:RunInstances, ec2:CreateTags and iam:PassRole" in str(error)
