"""A customer managed key as the default EBS key: without a grant for Auto Scaling, instances terminate at launch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from dask_starburst.aws import autoscaling, volume_keys
from dask_starburst.aws.faults import launch_meaning
from dask_starburst.aws.identity import Caller
from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError
from dask_starburst.local import LocalAWS
from tests.local.conftest import Clients, Stack, wait_for

ROLE = "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
CALLER = Caller("123456789012", "arn:aws:iam::123456789012:user/ada")
ENCRYPTED = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 30, "VolumeType": "gp3", "Encrypted": True}}]


@pytest.fixture
def ours(aws: LocalAWS) -> Iterator[AWS]:
    made = AWS(session=aws.session())
    yield made
    made.close()


@pytest.fixture
def key(clients: Clients) -> Iterator[str]:
    """A customer managed key without a grant, as the account's default."""
    made = clients.kms.create_key()["KeyMetadata"]["KeyId"]
    yield clients.ec2.modify_ebs_default_kms_key_id(KmsKeyId=made)["KmsKeyId"]
    clients.ec2.modify_ebs_default_kms_key_id(KmsKeyId="alias/aws/ebs")


def failed(ours: AWS, stack: Stack) -> list[str]:
    return [text for text, _ in asyncio.run(autoscaling.failures(ours, stack.name, 0.0))]


def test_the_cancelled_launch_of_an_instance_without_its_key_is_an_error_of_the_account(
    ours: AWS, stack: Stack, key: str
) -> None:
    stack.group(size=1, LaunchTemplate=stack.template(BlockDeviceMappings=ENCRYPTED))
    texts = wait_for(lambda: failed(ours, stack), "the launch is cancelled")
    stack.autoscaling.update_auto_scaling_group(AutoScalingGroupName=stack.name, DesiredCapacity=0)
    assert texts[0].endswith("Termination Reason: Client.InternalError: Client error on launch")
    found = launch_meaning(texts[0])
    assert (found.kind, "AWSServiceRoleForAutoScaling" in found.advice) == ("fault", True)


def test_a_launch_that_is_not_needed_any_more_is_not_an_error(ours: AWS, stack: Stack) -> None:
    stack.group(size=1)
    [member] = wait_for(lambda: stack.members)
    stack.ec2.terminate_instances(InstanceIds=[member["InstanceId"]])
    wait_for(lambda: [m["InstanceId"] for m in stack.members] not in ([], [member["InstanceId"]]), "replaced")
    assert failed(ours, stack) == []


def test_a_key_without_a_grant_is_refused_before_anything_is_launched(ours: AWS, clients: Clients, key: str) -> None:
    with pytest.raises(AWSError, match=f"create-grant --key-id {key} --grantee-principal {ROLE}"):
        asyncio.run(volume_keys.check_default_key(ours, CALLER))
    clients.kms.create_grant(KeyId=key, GranteePrincipal=ROLE, Operations=["CreateGrant", "Decrypt"])
    asyncio.run(volume_keys.check_default_key(ours, CALLER))


def test_the_key_that_aws_manages_needs_no_grant(ours: AWS, stack: Stack) -> None:
    stack.group(size=1, LaunchTemplate=stack.template(BlockDeviceMappings=ENCRYPTED))
    stack.in_service(1)
    asyncio.run(volume_keys.check_default_key(ours, CALLER))
    assert ours.calls["kms:ListGrants"] == 0


@pytest.mark.parametrize("action", ["ec2:GetEbsDefaultKmsKeyId", "kms:ListGrants", "kms:GetKeyPolicy"])
def test_a_key_that_may_not_be_read_is_not_checked(aws: LocalAWS, ours: AWS, key: str, action: str) -> None:
    aws.inject(action, "AccessDeniedException", f"User: ann is not authorized to perform: {action}", status=400)
    asyncio.run(volume_keys.check_default_key(ours, CALLER))
