"""The choice of the zone and subnet."""

from __future__ import annotations

import asyncio

from dask_starburst.aws import placement
from dask_starburst.aws.session import AWS
from dask_starburst.local import LocalAWS, faults

TYPES = ("m7g.medium", "c7g.xlarge", "m7g.xlarge", "c6g.xlarge")
AMI = "/aws/service/ecs/optimized-ami/amazon-linux-2023/arm64/recommended/image_id"


def test_instances_in_a_subnet_do_not_move_the_next_cluster_to_another(aws: LocalAWS) -> None:
    def chosen() -> str:
        account = AWS(endpoint_url=aws.endpoint_url, session=aws.session())
        try:
            return asyncio.run(placement.choose_subnet(account, (), TYPES, spot=True, count=4)).subnet
        finally:
            account.close()

    client = aws.client("ec2")

    def free() -> int:
        return int(client.describe_subnets(SubnetIds=[first])["Subnets"][0]["AvailableIpAddressCount"])

    first = chosen()
    before = free()
    image = aws.client("ssm").get_parameter(Name=AMI)["Parameter"]["Value"]
    client.run_instances(ImageId=image, InstanceType="c7g.large", SubnetId=first, MinCount=3, MaxCount=3)
    assert free() < before, "the subnet should have fewer free addresses"
    assert chosen() == first


def zone(aws: LocalAWS, *, spot: bool = True) -> str:
    account = AWS(endpoint_url=aws.endpoint_url, session=aws.session())
    try:
        return asyncio.run(placement.choose_subnet(account, (), TYPES, spot=spot, count=4)).name
    finally:
        account.close()


def test_a_zone_without_spot_capacity_is_not_chosen_for_spot(aws: LocalAWS) -> None:
    first = zone(aws)
    aws.play([faults.Capacity(room=0, market="spot", zone=first)])
    assert zone(aws) != first
    assert zone(aws, spot=False) == first
    aws.play([faults.Clear(), faults.Capacity(room=None)])


def test_without_permission_for_placement_scores_prices_decide(aws: LocalAWS) -> None:
    before = aws.status().calls
    text = "You are not authorized to perform: ec2:GetSpotPlacementScores"
    aws.inject("ec2:GetSpotPlacementScores", "UnauthorizedOperation", text, status=403)
    assert zone(aws)
    assert aws.status().calls["ec2:DescribeSpotPriceHistory"] == before.get("ec2:DescribeSpotPriceHistory", 0) + 1
