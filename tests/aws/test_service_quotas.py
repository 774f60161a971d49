"""Calls to Service Quotas and EC2, on the embedded AWS."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest

from dask_starburst.aws import service_quotas
from dask_starburst.aws.session import AWS
from dask_starburst.catalog.instance_types import find
from dask_starburst.catalog.markets import Market
from dask_starburst.catalog.quotas import QUOTAS
from dask_starburst.errors import PermissionDenied
from dask_starburst.events import Event, QuotaUnknown
from dask_starburst.fleet.pool import preflight
from dask_starburst.local import LocalAWS, faults
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.requests.quotas import CapacityRequest, Running
from dask_starburst.plan.requests.sizing import worker_group

T = TypeVar("T")
SPOT = QUOTAS["L-34B43A08"]
REQUEST = CapacityRequest(
    find("m7g.medium"), worker_group(DEFAULT, (find("c7g.xlarge"),), (Market.SPOT,), None, None), 1
)
AMI = "/aws/service/ecs/optimized-ami/amazon-linux-2023/arm64/recommended/image_id"


@pytest.fixture(autouse=True)
def clear_faults(aws: LocalAWS) -> Iterator[None]:
    yield
    aws.play([faults.Clear()])


def ask(aws: LocalAWS, work: Callable[[AWS], Awaitable[T]]) -> T:
    async def asked() -> T:
        account = AWS(endpoint_url=aws.endpoint_url, session=aws.session())
        try:
            return await work(account)
        finally:
            await account.wait_for_calls(30.0)
            account.close()

    return asyncio.run(asked())


def test_the_limit_is_the_applied_quota(aws: LocalAWS) -> None:
    aws.play([faults.Quota(market="spot", vcpus=12)])
    assert ask(aws, lambda account: service_quotas.limit(account, SPOT)) == 12.0


def test_the_limit_is_the_default_if_no_quota_was_applied(aws: LocalAWS) -> None:
    aws.inject("servicequotas:GetServiceQuota", "NoSuchResourceException", "The request failed because applied value…")
    assert ask(aws, lambda account: service_quotas.limit(account, SPOT)) == 5.0


def test_a_denied_action_is_named_as_iam_does(aws: LocalAWS) -> None:
    aws.inject("servicequotas:GetServiceQuota", "AccessDeniedException", "Denied by a policy")
    with pytest.raises(PermissionDenied) as caught:
        ask(aws, lambda account: service_quotas.limit(account, SPOT))
    assert caught.value.operation == "servicequotas:GetServiceQuota"


def test_all_running_instances_of_the_region_count_and_terminated_ones_do_not(aws: LocalAWS) -> None:
    ec2 = aws.client("ec2")
    image = aws.client("ssm").get_parameter(Name=AMI)["Parameter"]["Value"]
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "starburst:pool", "Value": "starburst-1-0"}]}]

    def launch(kind: str, **more: Any) -> str:
        made = ec2.run_instances(ImageId=image, InstanceType=kind, MinCount=1, MaxCount=1, **more)
        return str(made["Instances"][0]["InstanceId"])

    ended = launch("c7g.8xlarge")
    launch("t4g.micro")
    launch("c7g.xlarge", InstanceMarketOptions={"MarketType": "spot"}, TagSpecifications=tags)
    ec2.terminate_instances(InstanceIds=[ended])
    found = ask(aws, service_quotas.running)
    assert sorted(found, key=lambda one: one.type) == [
        Running("c7g.xlarge", Market.SPOT, 4, "starburst-1-0"),
        Running("t4g.micro", Market.ON_DEMAND, 2),
    ]


def test_an_open_request_is_listed_until_it_is_granted(aws: LocalAWS) -> None:
    aws.play([faults.Quota(market="spot", vcpus=5)])
    made = ask(aws, lambda account: service_quotas.request(account, SPOT, 64))
    assert made.open
    assert ask(aws, lambda account: service_quotas.requests(account, SPOT)) == (made,)
    assert ask(aws, lambda account: service_quotas.all_requests(account, ["ec2", "fargate"])) == (made,)


@pytest.mark.parametrize("action", ["servicequotas:GetServiceQuota", "ec2:DescribeInstances"])
def test_a_denied_quota_call_is_reported_and_does_not_prevent_a_launch(aws: LocalAWS, action: str) -> None:
    aws.inject(action, "AccessDeniedException", f"User: ann is not authorized to perform: {action}", times=5)
    found = ask(aws, lambda account: preflight.fetch_quotas(account, [REQUEST]))
    assert f"not authorized to perform: {action}" in found.unknown
    emitted: list[Event] = []
    preflight.check(found, [REQUEST], "a-pool", emitted.append)
    (event,) = emitted
    assert isinstance(event, QuotaUnknown)
    assert "launching without a check" in event.message


def test_a_service_that_does_not_answer_is_not_waited_for(aws: LocalAWS) -> None:
    aws.play([faults.Timeout(action="servicequotas:*", count=2, hold=1.0)])
    done, found = ask(
        aws, lambda account: preflight.run_alongside(asyncio.sleep(0, "set up"), account, [REQUEST], patience=0.3)
    )
    assert done == "set up"
    assert found.unknown == "Service Quotas did not answer within 0.3 s."
