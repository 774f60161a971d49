"""Launch templates that are created again after deletion; rules of others in the scheduler's security group."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dask_starburst.aws.ec2 import (
    admit_caller,
    dismiss_callers,
    ensure_launch_template,
    ensure_security_group,
    remove_launch_templates,
)
from dask_starburst.aws.session import AWS
from dask_starburst.local import LocalAWS

NAME, TAG = "starburst-00000000-0-head", "starburst:pool"


def test_a_deleted_launch_template_is_created_again(aws: LocalAWS) -> None:
    tokens: list[str] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        tokens.append(params["body"]["ClientToken"])

    session = aws.session()
    session.events.register("before-call.ec2.CreateLaunchTemplate", note)
    ours = AWS(session=session)

    async def make_and_remove() -> None:
        await ensure_launch_template(ours, NAME, {"UserData": ""}, {TAG: NAME})
        await remove_launch_templates(ours, TAG, NAME)

    for _ in range(2):
        asyncio.run(make_and_remove())
    ours.close()
    first, second = tokens
    assert first != second
    assert aws.client("ec2").describe_launch_templates()["LaunchTemplates"] == []


EVERYTHING = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "10.1.0.0/16", "Description": "scanner"}]}
MONITORING = {"IpProtocol": "tcp", "FromPort": 9100, "ToPort": 9200, "IpRanges": [{"CidrIp": "10.2.0.0/16"}]}
SIXTH = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "Ipv6Ranges": [{"CidrIpv6": "2001:db8::/32"}]}


def test_only_our_own_rules_of_the_schedulers_group_are_revoked(aws: LocalAWS) -> None:
    ec2, ours = aws.client("ec2"), AWS(session=aws.session())
    vpc = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]

    def admitted() -> set[tuple[str, int | None]]:
        permissions = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
        return {
            (r.get("CidrIp") or r["CidrIpv6"], p.get("FromPort"))
            for p in permissions
            for r in (*p.get("IpRanges", []), *p.get("Ipv6Ranges", []))
        }

    async def run() -> None:
        await admit_caller(ours, group, "203.0.113.7/32", (8786, 8787))
        await admit_caller(ours, group, "203.0.113.8/32", (8786,))

    group = asyncio.run(ensure_security_group(ours, vpc, "head", "the scheduler's", {TAG: NAME}))
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[EVERYTHING, MONITORING, SIXTH])
    others = admitted()
    asyncio.run(run())
    assert admitted() == others | {("203.0.113.8/32", 8786)}
    asyncio.run(dismiss_callers(ours, group))
    assert admitted() == others
    ours.close()


@pytest.mark.parametrize("given", ["203.0.113.7", "2001:db8::7/128"])
def test_the_embedded_ec2_refuses_a_range_without_a_mask_and_ipv6_in_its_place(aws: LocalAWS, given: str) -> None:
    ec2 = aws.client("ec2")
    group = ec2.create_security_group(GroupName=f"refuses {len(given)}", Description="d")["GroupId"]
    with pytest.raises(ec2.exceptions.ClientError) as error:
        ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=1, ToPort=1, CidrIp=given)
    assert error.value.response["Error"]["Code"] == "InvalidParameterValue"
