"""A cluster without public addresses, in the user's own subnet and security group."""

from __future__ import annotations

from typing import Any

from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.local import LocalAWS
from tests.support.networks import add_nat, private_subnet


def test_a_private_cluster_has_no_public_address_and_no_group_of_ours(aws: LocalAWS) -> None:
    ec2, subnet = aws.client("ec2"), private_subnet(aws)
    add_nat(aws, subnet)
    group = ec2.create_security_group(GroupName="of-the-user", Description="d", VpcId=subnet.vpc)["GroupId"]
    network: Any = {"access": "private", "subnets": [subnet.id], "security_groups": [group]}
    with (
        StarburstCluster(
            cloud="local", endpoint_url=aws.endpoint_url, n_workers=1, quiet=True, network=network
        ) as cluster,
        Client(cluster) as client,
    ):
        assert client.submit(sum, [1, 2]).result(timeout=120) == 3
        reservations = ec2.describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running"]}])
        instances = [i for r in reservations["Reservations"] for i in r["Instances"]]
        assert len(instances) == 2
        assert all("PublicIpAddress" not in i and i["SubnetId"] == subnet.id for i in instances)
        assert {g["GroupId"] for i in instances for g in i["SecurityGroups"]} == {group}
        assert any(i["PrivateIpAddress"] in cluster.scheduler_address for i in instances)
    assert aws.status().instances_running == 0
    names = {g["GroupName"] for g in ec2.describe_security_groups()["SecurityGroups"]}
    assert not {name for name in names if name.startswith("starburst")}
