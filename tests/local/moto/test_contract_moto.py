"""All patches of moto and all workarounds for moto, through boto3.

A new moto version that breaks a patch breaks a test here.
"""

from __future__ import annotations

import ipaddress
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dask_starburst.local import LocalAWS
from tests.local.conftest import Clients, Stack, code_of, message_of, wait_for


def test_the_default_vpc_uses_the_claimed_network_and_has_an_internet_gateway(aws: LocalAWS, clients: Clients) -> None:
    (vpc,) = clients.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    assert vpc["CidrBlock"] == aws.network
    subnets = clients.ec2.describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]
    network = ipaddress.ip_network(aws.network)
    assert all(ipaddress.ip_network(subnet["CidrBlock"]).subnet_of(network) for subnet in subnets)  # type: ignore[arg-type]  # both are IPv4
    attached = [{"Name": "attachment.vpc-id", "Values": [vpc["VpcId"]]}]
    (gateway,) = clients.ec2.describe_internet_gateways(Filters=attached)["InternetGateways"]
    tables = clients.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["RouteTables"]
    routes = {route["DestinationCidrBlock"]: route["GatewayId"] for table in tables for route in table["Routes"]}
    assert routes["0.0.0.0/0"] == gateway["InternetGatewayId"]


def launch(stack: Stack, **changes: Any) -> dict[str, Any]:
    request = {"ImageId": stack.image, "InstanceType": "c7g.large", "MinCount": 1, "MaxCount": 1, **changes}
    instance: dict[str, Any] = stack.ec2.run_instances(**request)["Instances"][0]
    return instance


def state(stack: Stack, identity: str) -> str:
    shown = stack.ec2.describe_instances(InstanceIds=[identity])["Reservations"][0]["Instances"][0]
    name: str = shown["State"]["Name"]
    return name


def test_an_instance_is_pending_without_a_public_address_until_it_runs(stack: Stack) -> None:
    born = launch(stack, SubnetId=stack.subnets[0])
    assert born["State"]["Name"] == "pending"
    assert "PublicIpAddress" not in born
    wait_for(lambda: state(stack, born["InstanceId"]) == "running")
    shown = stack.ec2.describe_instances(InstanceIds=[born["InstanceId"]])["Reservations"][0]["Instances"][0]
    assert shown["PublicIpAddress"] == shown["PrivateIpAddress"]
    stack.ec2.terminate_instances(InstanceIds=[born["InstanceId"]])


def test_an_instance_shuts_down_before_it_is_terminated(stack: Stack) -> None:
    identity = launch(stack)["InstanceId"]
    wait_for(lambda: state(stack, identity) == "running")
    reply = stack.ec2.terminate_instances(InstanceIds=[identity])["TerminatingInstances"][0]
    assert (reply["PreviousState"]["Name"], reply["CurrentState"]["Name"]) == ("running", "shutting-down")
    wait_for(lambda: state(stack, identity) == "terminated")
    reply = stack.ec2.terminate_instances(InstanceIds=[identity])["TerminatingInstances"][0]
    assert reply["PreviousState"]["Name"] == "terminated"
    assert state(stack, identity) == "terminated"


def test_a_client_token_launches_once(stack: Stack) -> None:
    first, again = (launch(stack, ClientToken=stack.name)["InstanceId"] for _ in range(2))
    assert first == again
    stack.ec2.terminate_instances(InstanceIds=[first])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"InstanceType": "c99g.large"}, "InvalidParameterValue"),
        ({"ImageId": "ami-0123456789abcdef0"}, "InvalidAMIID.NotFound"),
        ({"IamInstanceProfile": {"Name": "missing"}}, "InvalidParameterValue"),
        (
            {"IamInstanceProfile": {"Arn": "arn:aws:iam::123456789012:instance-profile/missing"}},
            "InvalidParameterValue",
        ),
    ],
    ids=["type", "image", "profile", "profile by arn"],
)
def test_an_instance_with_invalid_parameters_is_refused(stack: Stack, changes: dict[str, Any], code: str) -> None:
    with pytest.raises(ClientError) as error:
        launch(stack, **changes)
    assert code_of(error) == code


def test_a_security_group_in_use_cannot_be_deleted(stack: Stack, clients: Clients) -> None:
    used = clients.ec2.create_security_group(GroupName=stack.name, Description="used")["GroupId"]
    named = clients.ec2.create_security_group(GroupName=f"{stack.name}-2", Description="named in a rule")["GroupId"]
    pair = [{"GroupId": named}]
    permission = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "UserIdGroupPairs": pair}
    clients.ec2.authorize_security_group_ingress(GroupId=used, IpPermissions=[permission])
    identity = launch(stack, SecurityGroupIds=[used], SubnetId=stack.subnets[0])["InstanceId"]
    for group in (used, named):
        with pytest.raises(ClientError) as error:
            clients.ec2.delete_security_group(GroupId=group)
        assert code_of(error) == "DependencyViolation"
        assert message_of(error) == f"resource {group} has a dependent object"
    clients.ec2.terminate_instances(InstanceIds=[identity])
    wait_for(lambda: state(stack, identity) == "terminated")
    clients.ec2.delete_security_group(GroupId=used)
    clients.ec2.delete_security_group(GroupId=named)


def test_a_group_applies_all_of_its_launch_template(stack: Stack, clients: Clients) -> None:
    clients.iam.create_role(RoleName=stack.name, AssumeRolePolicyDocument="{}")
    clients.iam.create_instance_profile(InstanceProfileName=stack.name)
    clients.iam.add_role_to_instance_profile(InstanceProfileName=stack.name, RoleName=stack.name)
    security = clients.ec2.create_security_group(GroupName=stack.name, Description="d")["GroupId"]
    template = stack.template(
        ImageId=f"resolve:ssm:{'/aws/service/ecs/optimized-ami/amazon-linux-2023/arm64/recommended/image_id'}",
        IamInstanceProfile={"Name": stack.name},
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        NetworkInterfaces=[{"DeviceIndex": 0, "AssociatePublicIpAddress": False, "Groups": [security]}],
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "from", "Value": "template"}]}],
    )
    stack.group(size=1, LaunchTemplate=template)
    identity = stack.in_service(1)[0]["InstanceId"]
    shown = clients.ec2.describe_instances(InstanceIds=[identity])["Reservations"][0]["Instances"][0]
    assert shown["ImageId"] == stack.image
    assert shown["IamInstanceProfile"]["Arn"].endswith(f"/{stack.name}")
    assert [group["GroupId"] for group in shown["SecurityGroups"]] == [security]
    assert shown["MetadataOptions"]["HttpTokens"] == "required"
    assert shown["MetadataOptions"]["HttpPutResponseHopLimit"] == 2
    assert "PublicIpAddress" not in shown
    assert {"Key": "from", "Value": "template"} in shown["Tags"]


def test_managed_policies_exist_and_others_do_not(stack: Stack, clients: Clients) -> None:
    clients.iam.create_role(RoleName=stack.name, AssumeRolePolicyDocument="{}")
    policy = "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
    clients.iam.attach_role_policy(RoleName=stack.name, PolicyArn=policy)
    with pytest.raises(ClientError) as error:
        clients.iam.attach_role_policy(RoleName=stack.name, PolicyArn=f"{policy}X")
    assert code_of(error) == "NoSuchEntity"


def test_an_address_is_reused_only_after_its_instance_is_terminated(stack: Stack) -> None:
    stack.group(size=2)
    ids = [member["InstanceId"] for member in stack.in_service(2)]
    reservations = stack.ec2.describe_instances(InstanceIds=ids)["Reservations"]
    addresses = {one["PrivateIpAddress"] for each in reservations for one in each["Instances"]}
    assert len(addresses) == 2


def test_without_aliases_every_instance_has_the_address_127_0_0_1() -> None:
    with LocalAWS(aliases=False) as aws:
        stack = Stack(Clients(aws))
        stack.group(size=2)
        ids = [member["InstanceId"] for member in stack.in_service(2)]
        reservations = stack.ec2.describe_instances(InstanceIds=ids)["Reservations"]
        instances = [one for each in reservations for one in each["Instances"]]
        assert {(one["PrivateIpAddress"], one["PublicIpAddress"]) for one in instances} == {("127.0.0.1", "127.0.0.1")}
        stack.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=stack.name, ForceDelete=True)
        wait_for(lambda: not stack.described)


def test_service_linked_roles_have_the_names_of_aws(clients: Clients) -> None:
    clients.iam.create_service_linked_role(AWSServiceName="ecs.amazonaws.com")
    assert (
        clients.iam.get_role(RoleName="AWSServiceRoleForECS")["Role"]["Path"] == "/aws-service-role/ecs.amazonaws.com/"
    )
    assert clients.iam.get_role(RoleName="AWSServiceRoleForEC2Spot")


def test_an_image_and_an_instance_are_found_by_their_ids(clients: Clients) -> None:
    images = clients.ec2.describe_images()["Images"]
    requested = images[7]["ImageId"]
    by_filter = clients.ec2.describe_images(Filters=[{"Name": "image-id", "Values": [requested]}])["Images"]
    assert [image["ImageId"] for image in by_filter] == [requested]
    pattern = [{"Name": "image-id", "Values": [requested[:-3] + "*"]}]
    assert requested in [image["ImageId"] for image in clients.ec2.describe_images(Filters=pattern)["Images"]]
    assert clients.ec2.describe_images(Filters=[{"Name": "image-id", "Values": ["ami-none"]}])["Images"] == []
    with pytest.raises(ClientError) as error:
        clients.ec2.terminate_instances(InstanceIds=["i-0123456789abcdef0"])
    assert code_of(error) == "InvalidInstanceID.NotFound"


@pytest.mark.parametrize("head", [True, False])
def test_a_log_stream_is_read_in_pages_of_which_the_first_is_empty(clients: Clients, head: bool) -> None:
    logs, group = clients.logs, f"pages-{head}"
    logs.create_log_group(logGroupName=group)
    logs.create_log_stream(logGroupName=group, logStreamName="s")
    stream = {"logGroupName": group, "logStreamName": "s", "startFromHead": head}
    lines = [f"line {n}" for n in range(25)]
    now = int(time.time() * 1000)
    events = [{"timestamp": now + n, "message": line} for n, line in enumerate(lines)]
    logs.put_log_events(logGroupName=group, logStreamName="s", logEvents=events)
    token = "nextForwardToken" if head else "nextBackwardToken"
    pages = [reply := logs.get_log_events(**stream, limit=10)]
    while True:
        following = logs.get_log_events(**stream, limit=10, nextToken=reply[token])
        if following[token] == reply[token]:
            break
        pages.append(reply := following)
    assert [len(page["events"]) for page in pages] == [0, 10, 10, 5]
    found = [[event["message"] for event in page["events"]] for page in (pages if head else pages[::-1])]
    assert [line for page in found for line in page] == lines
