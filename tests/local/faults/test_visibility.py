"""New resources that AWS does not show, or cannot use, for some seconds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dask_starburst.local import LocalAWS, faults
from dask_starburst.local.backend.timing import Timing
from tests.local.conftest import Clients, Stack, wait_for

TRUST = '{"Version": "2012-10-17", "Statement": []}'


@pytest.fixture(autouse=True)
def hidden(aws: LocalAWS) -> Iterator[None]:
    aws.play([faults.Invisible(delay=1000.0)])
    yield
    aws.play([faults.Clear()])


def refusal(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    found = error.value.response["Error"]
    return found["Code"], found["Message"]


def policy(template: dict[str, str]) -> dict[str, Any]:
    return {"LaunchTemplate": {"LaunchTemplateSpecification": template}}


def test_a_new_role_is_not_found_although_its_name_is_taken(aws: LocalAWS, clients: Clients, stack: Stack) -> None:
    clients.iam.create_role(RoleName=stack.name, AssumeRolePolicyDocument=TRUST)
    clients.iam.create_instance_profile(InstanceProfileName=stack.name)
    calls = [
        lambda: clients.iam.get_role(RoleName=stack.name),
        lambda: clients.iam.put_role_policy(RoleName=stack.name, PolicyName="p", PolicyDocument=TRUST),
        lambda: clients.iam.add_role_to_instance_profile(InstanceProfileName=stack.name, RoleName=stack.name),
    ]
    for call in calls:
        with pytest.raises(ClientError) as error:
            call()
        assert refusal(error)[0] == "NoSuchEntity"
    with pytest.raises(ClientError) as error:
        clients.iam.create_role(RoleName=stack.name, AssumeRolePolicyDocument=TRUST)
    assert refusal(error)[0] == "EntityAlreadyExists"
    aws.advance(1001.0)
    assert clients.iam.get_role(RoleName=stack.name)["Role"]["RoleName"] == stack.name


def test_a_new_security_group_is_not_found_although_its_name_is_taken(
    aws: LocalAWS, clients: Clients, stack: Stack
) -> None:
    vpc = clients.ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group = clients.ec2.create_security_group(GroupName=stack.name, Description="d", VpcId=vpc)["GroupId"]
    rule = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "IpRanges": [{"CidrIp": "192.0.2.1/32"}]}
    calls = [
        lambda: clients.ec2.describe_security_groups(GroupIds=[group]),
        lambda: clients.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule]),
    ]
    for call in calls:
        with pytest.raises(ClientError) as error:
            call()
        assert refusal(error)[0] == "InvalidGroup.NotFound"
    named = [{"Name": "group-name", "Values": [stack.name]}]
    assert clients.ec2.describe_security_groups(Filters=named)["SecurityGroups"] == []
    with pytest.raises(ClientError) as error:
        clients.ec2.create_security_group(GroupName=stack.name, Description="d", VpcId=vpc)
    assert refusal(error)[0] == "InvalidGroup.Duplicate"
    aws.advance(1001.0)
    assert len(clients.ec2.describe_security_groups(Filters=named)["SecurityGroups"]) == 1


def test_auto_scaling_does_not_find_a_new_launch_template(aws: LocalAWS, stack: Stack) -> None:
    template = stack.template()
    named = {"LaunchTemplateName": f"{stack.name}-0", "Version": "1"}
    for specification in (template, named):
        with pytest.raises(ClientError) as error:
            stack.group(MixedInstancesPolicy=policy(specification))
        code, text = refusal(error)
        assert code == "ValidationError"
        assert "The specified launch template, with template" in text
        assert "does not exist" in text
    aws.advance(1001.0)
    stack.group(MixedInstancesPolicy=policy(template))


def test_a_new_group_is_not_shown_although_its_name_is_taken(aws: LocalAWS, stack: Stack) -> None:
    template = stack.template()
    aws.advance(1001.0)
    stack.group(MixedInstancesPolicy=policy(template))
    assert stack.described == {}
    with pytest.raises(ClientError) as error:
        stack.autoscaling.set_desired_capacity(AutoScalingGroupName=stack.name, DesiredCapacity=1)
    assert "AutoScalingGroup name not found" in refusal(error)[1]
    with pytest.raises(ClientError) as error:
        stack.group(MixedInstancesPolicy=policy(template))
    assert refusal(error)[0] == "AlreadyExists"
    aws.advance(1001.0)
    assert stack.described


def test_ecs_cannot_assume_its_own_role_yet(aws: LocalAWS, clients: Clients, stack: Stack) -> None:
    with suppress(ClientError):
        clients.iam.delete_service_linked_role(RoleName="AWSServiceRoleForECS")
    clients.iam.create_service_linked_role(AWSServiceName="ecs.amazonaws.com")
    with pytest.raises(ClientError) as error:
        clients.ecs.create_cluster(clusterName=stack.name)
    code, text = refusal(error)
    assert code == "InvalidParameterException"
    assert text.startswith("Unable to assume the service linked role.")
    aws.advance(1001.0)
    assert clients.ecs.create_cluster(clusterName=stack.name)["cluster"]["status"] == "ACTIVE"
    clients.iam.delete_service_linked_role(RoleName="AWSServiceRoleForECS")


def test_the_name_of_a_deleted_parameter_is_taken_and_what_is_written_over_it_is_lost(
    aws: LocalAWS, clients: Clients, stack: Stack
) -> None:
    kept, lost = (f"/{stack.name}/{name}" for name in ("kept", "lost"))
    for name in (kept, lost):
        clients.ssm.put_parameter(Name=name, Value="1", Type="String")
        clients.ssm.delete_parameter(Name=name)
        with pytest.raises(ClientError) as error:
            clients.ssm.put_parameter(Name=name, Value="2", Type="String")
        assert refusal(error)[0] == "ParameterAlreadyExists"
    clients.ssm.put_parameter(Name=lost, Value="2", Type="String", Overwrite=True)
    aws.advance(1001.0)
    clients.ssm.put_parameter(Name=kept, Value="2", Type="String")

    def shown() -> list[str]:
        return [p["Name"] for p in clients.ssm.get_parameters_by_path(Path=f"/{stack.name}")["Parameters"]]

    wait_for(lambda: shown() == [kept], "the value written over the deleted one is lost")


def test_without_any_fault_a_new_service_linked_role_is_refused_for_about_ten_seconds() -> None:
    timing = Timing("realistic")
    drawn = sorted(timing.seconds("role") for _ in range(100))
    assert 5.0 < drawn[0] < 12.0 < drawn[-1] < 60.0
    assert Timing("none").seconds("role") == 0.0


def test_without_any_fault_a_deleted_name_is_taken_for_thirty_seconds() -> None:
    assert Timing("realistic").seconds("parameter") == 30.0
