"""Policies of users and roles, enforced for real calls of boto3."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from dask_starburst.local import LocalAWS
from tests.local.conftest import ARM

ACCOUNT = "123456789012"
Make = Callable[..., boto3.Session]
TEMPLATE = {"LaunchTemplateName": "strict", "Version": "1"}
LAUNCH = ["ec2:RunInstances", "ec2:CreateTags"]


@pytest.fixture(scope="module")
def aws(aws: LocalAWS) -> Iterator[LocalAWS]:
    aws.enforce_iam(True)
    _instance_profile(aws)
    yield aws
    aws.enforce_iam(False)


@pytest.fixture
def user(aws: LocalAWS) -> Make:
    """Return a function that makes a user with these statements, and returns its session."""
    iam = aws.client("iam")

    def make(*statements: dict[str, Any]) -> boto3.Session:
        name = f"u-{uuid.uuid4().hex[:10]}"
        iam.create_user(UserName=name)
        document = policy(*statements)
        if statements:
            iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=document)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return aws.session_of(key["AccessKeyId"], key["SecretAccessKey"])

    return make


def _instance_profile(aws: LocalAWS) -> None:
    iam, ec2 = aws.client("iam"), aws.client("ec2")
    iam.create_service_linked_role(AWSServiceName="autoscaling.amazonaws.com")
    trust = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    iam.create_role(RoleName="strict", Path="/strict/", AssumeRolePolicyDocument=policy(trust))
    iam.create_instance_profile(InstanceProfileName="strict")
    iam.add_role_to_instance_profile(InstanceProfileName="strict", RoleName="strict")
    data = {
        "ImageId": aws.client("ssm").get_parameter(Name=ARM)["Parameter"]["Value"],
        "InstanceType": "c7g.large",
        "IamInstanceProfile": {"Name": "strict"},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "team", "Value": "a"}]}],
    }
    ec2.create_launch_template(LaunchTemplateName="strict", LaunchTemplateData=data)


def allow(actions: Any, resource: Any = "*", **condition: Any) -> dict[str, Any]:
    more = {"Condition": condition} if condition else {}
    return {"Effect": "Allow", "Action": actions, "Resource": resource, **more}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def refused(call: Callable[..., Any], **request: Any) -> tuple[str, str, int]:
    """Return code, message and HTTP status of a call that fails."""
    with pytest.raises(ClientError) as error:
        call(**request)
    answer = error.value.response
    return answer["Error"]["Code"], answer["Error"]["Message"], answer["ResponseMetadata"]["HTTPStatusCode"]


def group(aws: LocalAWS, name: str) -> dict[str, Any]:
    subnet = aws.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]
    sizes = {"MinSize": 0, "MaxSize": 1, "VPCZoneIdentifier": subnet}
    return {"AutoScalingGroupName": name, "LaunchTemplate": TEMPLATE, **sizes}


def test_each_service_denies_in_its_own_words(aws, user):
    mine = user()
    who = mine.client("sts").get_caller_identity()["Arn"]
    cluster = f"arn:aws:ecs:us-east-1:{ACCOUNT}:cluster/mine"
    because = "because no identity-based policy allows the {} action"
    sentence = f"User: {{}} is not authorized to perform: {{}} on resource: {{}} {because}"
    assert refused(mine.client("ecs").create_cluster, clusterName="mine") == (
        "AccessDeniedException",
        sentence.format(who, "ecs:CreateCluster", cluster, "ecs:CreateCluster"),
        400,
    )
    assert refused(mine.client("ec2").describe_instances) == (
        "UnauthorizedOperation",
        "You are not authorized to perform this operation. "
        + sentence.format(who, "ec2:DescribeInstances", "*", "ec2:DescribeInstances"),
        403,
    )
    assert refused(mine.client("autoscaling").describe_auto_scaling_groups)[::2] == ("AccessDenied", 403)
    assert refused(mine.client("iam").get_role, RoleName="strict")[1].startswith(
        f"User: {who} is not authorized to perform: iam:GetRole on resource: arn:aws:iam::{ACCOUNT}:role/strict/strict "
    )
    assert refused(mine.client("ssm").get_parameter, Name="/a/b")[0] == "AccessDeniedException"


def test_an_explicit_deny_is_said_to_be_one(user):
    mine = user(allow("*"), {"Effect": "Deny", "Action": "ecs:*", "Resource": "*"})
    assert "with an explicit deny in an identity-based policy" in refused(mine.client("ecs").list_clusters)[1]


def test_a_right_holds_for_the_named_resources_only(user):
    ecs = user(allow("ecs:CreateCluster", "arn:aws:ecs:*:*:cluster/only-*")).client("ecs")
    assert ecs.create_cluster(clusterName="only-this")["cluster"]["status"] == "ACTIVE"
    assert refused(ecs.create_cluster, clusterName="other")[0] == "AccessDeniedException"


def test_tags_on_creation_need_a_right_of_their_own(user):
    tags = [{"key": "team", "value": "a"}]
    ecs = user(allow("ecs:CreateCluster")).client("ecs")
    assert "ecs:TagResource" in refused(ecs.create_cluster, clusterName="tagged", tags=tags)[1]
    created = {"StringEquals": {"ecs:CreateAction": "CreateCluster", "aws:RequestTag/team": "a"}}
    ecs = user(allow("ecs:CreateCluster"), allow("ecs:TagResource", **created)).client("ecs")
    assert ecs.create_cluster(clusterName="tagged", tags=tags)


def test_a_tag_of_the_resource_decides(aws, user):
    owner = aws.client("autoscaling")
    for name, team in (("team-a", "a"), ("team-b", "b")):
        tag = {"Key": "team", "Value": team, "ResourceId": name, "ResourceType": "auto-scaling-group"}
        owner.create_auto_scaling_group(**group(aws, name), Tags=[{**tag, "PropagateAtLaunch": False}])
    own = {"StringEquals": {"aws:ResourceTag/team": "a"}}
    mine = user(allow("autoscaling:SetDesiredCapacity", **own)).client("autoscaling")
    mine.set_desired_capacity(AutoScalingGroupName="team-a", DesiredCapacity=0)
    assert refused(mine.set_desired_capacity, AutoScalingGroupName="team-b", DesiredCapacity=0)[0] == "AccessDenied"


def test_sizes_can_be_bounded_to_zero(aws, user):
    aws.client("autoscaling").create_auto_scaling_group(**group(aws, "bounded"))
    zero = {"NumericEquals": {"autoscaling:MinSize": "0", "autoscaling:MaxSize": "0"}}
    mine = user(allow("autoscaling:UpdateAutoScalingGroup", **zero)).client("autoscaling")
    name = {"AutoScalingGroupName": "bounded"}
    mine.update_auto_scaling_group(**name, MinSize=0, MaxSize=0, DesiredCapacity=0)
    assert refused(mine.update_auto_scaling_group, **name, MinSize=0, MaxSize=1)[0] == "AccessDenied"
    assert refused(mine.update_auto_scaling_group, **name, DesiredCapacity=0)[0] == "AccessDenied"


@pytest.mark.parametrize("lacking", ["ec2:RunInstances", "ec2:CreateTags", "iam:PassRole"])
def test_a_group_needs_the_rights_of_its_template_which_the_refusal_does_not_name(aws, user, lacking):
    actions = {"autoscaling:CreateAutoScalingGroup", *LAUNCH, "iam:PassRole"} - {lacking}
    mine = user(allow(sorted(actions))).client("autoscaling")
    code, message, _ = refused(mine.create_auto_scaling_group, **group(aws, f"lacks-{lacking[4:]}"))
    assert code == "AccessDenied"
    assert message.startswith("You are not authorized to use launch template: lt-")


def test_a_role_is_passed_only_to_the_service_that_the_policy_names(aws, user):
    def session(service: str) -> Any:
        passing = allow("iam:PassRole", StringEquals={"iam:PassedToService": service})
        return user(allow(["autoscaling:*", *LAUNCH]), passing).client("autoscaling")

    session("ec2.amazonaws.com").create_auto_scaling_group(**group(aws, "passed"))
    refusal = refused(session("ecs-tasks.amazonaws.com").create_auto_scaling_group, **group(aws, "not-passed"))
    assert "launch template" in refusal[1]


def test_an_update_asks_for_the_rights_of_the_template_only_when_told_to(aws, user):
    aws.client("autoscaling").create_auto_scaling_group(**group(aws, "updated"))
    mine = user(allow("autoscaling:UpdateAutoScalingGroup")).client("autoscaling")
    zero = {"AutoScalingGroupName": "updated", "MinSize": 0, "MaxSize": 0, "DesiredCapacity": 0}
    mine.update_auto_scaling_group(**zero)
    aws.enforce_iam("templates")
    assert "not authorized to use launch template" in refused(mine.update_auto_scaling_group, **zero)[1]
    aws.enforce_iam(True)


def test_a_call_whose_rights_are_not_known_is_denied_and_named(aws, user):
    mine = user(allow("*"))
    code, message, _ = refused(
        mine.client("autoscaling").detach_instances, AutoScalingGroupName="a", ShouldDecrementDesiredCapacity=True
    )
    assert code == "AccessDenied"
    assert "autoscaling:DetachInstances" in message
    assert "autoscaling:DetachInstances" in aws.decisions()["unknown"]


def test_an_assumed_role_has_its_own_rights_within_its_session_policy(aws, user):
    iam, trust = aws.client("iam"), {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    role = iam.create_role(RoleName="reader", AssumeRolePolicyDocument=policy(trust))["Role"]["Arn"]
    rights = policy(allow(["ecs:ListClusters", "ec2:DescribeInstances"]))
    iam.put_role_policy(RoleName="reader", PolicyName="own", PolicyDocument=rights)
    sts = user(allow("sts:AssumeRole", role)).client("sts")
    only_ecs = policy(allow("ecs:*"))
    got = sts.assume_role(RoleArn=role, RoleSessionName="me", Policy=only_ecs)["Credentials"]
    keys = {"aws_access_key_id": got["AccessKeyId"], "aws_secret_access_key": got["SecretAccessKey"]}
    session = aws.session_of("-", "-")
    client = {"aws_session_token": got["SessionToken"], **keys}
    assert session.client("ecs", **client).list_clusters()
    message = refused(session.client("ec2", **client).describe_instances)[1]
    assert f"User: arn:aws:sts::{ACCOUNT}:assumed-role/reader/me is not authorized" in message


def test_every_decision_is_remembered_with_the_statement_that_made_it(aws, user):
    mine = user({**allow("ecs:ListClusters"), "Sid": "Look"})
    mine.client("ecs").list_clusters()
    who = mine.client("sts").get_caller_identity()["Arn"]
    (found,) = (each for each in aws.decisions()["decided"] if each["principal"] == who)
    assert (found["action"], found["allowed"], found["by"]) == ("ecs:ListClusters", True, ["own/Look"])


def test_a_managed_policy_counts_in_its_default_version(aws, user):
    mine = user()
    iam, name = aws.client("iam"), mine.client("sts").get_caller_identity()["Arn"].rpartition("/")[2]
    arn = iam.create_policy(PolicyName="looks", PolicyDocument=policy(allow("ecs:ListClusters")))["Policy"]["Arn"]
    iam.attach_user_policy(UserName=name, PolicyArn=arn)
    assert mine.client("ecs").list_clusters()
    iam.create_policy_version(PolicyArn=arn, PolicyDocument=policy(allow("ecs:ListTasks")), SetAsDefault=True)
    assert refused(mine.client("ecs").list_clusters)[0] == "AccessDeniedException"
