"""Where instances are launched."""

from __future__ import annotations

import asyncio

from dask_starburst.aws import ec2
from dask_starburst.aws.session import AWS
from dask_starburst.local import LocalAWS

AMI = "/aws/service/ecs/optimized-ami/amazon-linux-2023/arm64/recommended/image_id"


def test_instances_in_a_subnet_do_not_drive_the_next_cluster_to_another(aws: LocalAWS) -> None:
    def chosen() -> str:
        account = AWS(endpoint_url=aws.endpoint_url, session=aws.session())
        try:
            return asyncio.run(ec2.choose_subnet(account, None, {}, "m7g.medium")).id
        finally:
            account.close()

    client = aws.client("ec2")

    def free() -> int:
        return int(client.describe_subnets(SubnetIds=[first])["Subnets"][0]["AvailableIpAddressCount"])

    first = chosen()
    before = free()
    image = aws.client("ssm").get_parameter(Name=AMI)["Parameter"]["Value"]
    client.run_instances(ImageId=image, InstanceType="c7g.large", SubnetId=first, MinCount=3, MaxCount=3)
    assert free() < before, "else this would show nothing"
    assert chosen() == first
