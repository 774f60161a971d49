"""Create the prerequisites of dask-cloudprovider, as a user would."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from dask_starburst.local import LocalAWS

_AMI = "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id"
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}],
}
_NAME = "made-for-ecs"


def ami(local: LocalAWS) -> str:
    """Return an x86-64 AMI. The embedded AWS does not list EC2Cluster's default, Ubuntu 20.04."""
    found: str = local.client("ssm").get_parameter(Name=_AMI)["Parameter"]["Value"]
    return found


def default_security_group(local: LocalAWS) -> None:
    """Create ``dask-default``: EC2Cluster 2025.9.0 fails to, because it calls its own function without ``tags``."""
    ec2 = local.client("ec2")
    made = ec2.create_security_group(GroupName="dask-default", Description="Dask", VpcId=_vpc(ec2))["GroupId"]
    ports = {"IpProtocol": "tcp", "FromPort": 8786, "ToPort": 8787, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    inside = {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535, "UserIdGroupPairs": [{"GroupId": made}]}
    ec2.authorize_security_group_ingress(GroupId=made, IpPermissions=[ports, inside])


def ecs_capacity(local: LocalAWS, instance_type: str, workers: int, more: int) -> tuple[str, dict[str, float]]:
    """Create a cluster with an instance for the scheduler and one for each worker, as users do.

    Returns
    -------
    tuple of str and dict
        The cluster's ARN; and how many seconds it took until the instances for the scheduler and the first workers
        could take tasks (``"ready"``), and those for the others (``"more"``).
    """
    ecs, autoscaling = local.client("ecs"), local.client("autoscaling")
    arn: str = ecs.create_cluster(clusterName=_NAME)["cluster"]["clusterArn"]
    _group(local, instance_type, 1 + workers + more)
    waited = {}
    for what, count in (("ready", 1 + workers), ("more", 1 + workers + more)):
        begin = time.monotonic()
        autoscaling.set_desired_capacity(AutoScalingGroupName=_NAME, DesiredCapacity=count, HonorCooldown=False)
        _wait(ecs, count)
        waited[what] = time.monotonic() - begin
    return arn, waited


def _group(local: LocalAWS, instance_type: str, most: int) -> None:
    ec2 = local.client("ec2")
    user_data = base64.b64encode(f"#!/bin/bash\necho ECS_CLUSTER={_NAME} >> /etc/ecs/ecs.config\n".encode()).decode()
    data = {
        "ImageId": ami(local),
        "InstanceType": instance_type,
        "UserData": user_data,
        "IamInstanceProfile": {"Name": _profile(local.client("iam"))},
    }
    ec2.create_launch_template(LaunchTemplateName=_NAME, LaunchTemplateData=data)
    filters = [{"Name": "vpc-id", "Values": [_vpc(ec2)]}]
    subnets = [one["SubnetId"] for one in ec2.describe_subnets(Filters=filters)["Subnets"]]
    local.client("autoscaling").create_auto_scaling_group(
        AutoScalingGroupName=_NAME,
        MinSize=0,
        MaxSize=most,
        DesiredCapacity=0,
        LaunchTemplate={"LaunchTemplateName": _NAME, "Version": "1"},
        VPCZoneIdentifier=",".join(subnets),
    )


def _profile(iam: Any) -> str:
    iam.create_role(RoleName=_NAME, AssumeRolePolicyDocument=json.dumps(_TRUST))
    policy = "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
    iam.attach_role_policy(RoleName=_NAME, PolicyArn=policy)
    iam.create_instance_profile(InstanceProfileName=_NAME)
    iam.add_role_to_instance_profile(InstanceProfileName=_NAME, RoleName=_NAME)
    return _NAME


def _wait(ecs: Any, count: int) -> None:
    while True:
        arns = ecs.list_container_instances(cluster=_NAME)["containerInstanceArns"]
        if len(arns) >= count:
            described = ecs.describe_container_instances(cluster=_NAME, containerInstances=arns)["containerInstances"]
            if sum(one["agentConnected"] for one in described) >= count:
                return
        time.sleep(1.0)


def _vpc(ec2: Any) -> str:
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    found: str = vpc["VpcId"]
    return found
