"""Service Quotas of the embedded AWS: launches respect the reported quotas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dask_starburst.catalog.quotas import QUOTAS
from dask_starburst.local import LocalAWS, faults
from dask_starburst.local.backend.quotas import PLENTY, Quotas
from dask_starburst.local.backend.state import Ec2Instance
from dask_starburst.local.services.service_quotas import REVIEW
from tests.local.conftest import Clients, Stack, code_of, message_of, wait_for

SPOT = {"ServiceCode": "ec2", "QuotaCode": "L-34B43A08"}
ON_DEMAND = {"ServiceCode": "ec2", "QuotaCode": "L-1216C47A"}
GPU = {"ServiceCode": "ec2", "QuotaCode": "L-DB2E81BA"}
FARGATE = {"ServiceCode": "fargate", "QuotaCode": "L-3032A538"}


@pytest.fixture(autouse=True)
def clear_faults(aws: LocalAWS) -> Iterator[None]:
    yield
    aws.play([faults.Clear()])


@pytest.fixture
def quotas(clients: Clients) -> Any:
    return getattr(clients, "service-quotas")


def refusal(call: Callable[..., Any], **request: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        call(**request)
    return code_of(error), message_of(error)


def failures(stack: Stack) -> list[str]:
    found = stack.autoscaling.describe_scaling_activities(AutoScalingGroupName=stack.name)["Activities"]
    return [one["StatusMessage"] for one in found if one["StatusCode"] == "Failed"]


def test_a_quota_is_high_initially_and_its_default_is_that_of_a_new_account(quotas: Any) -> None:
    applied, default = quotas.get_service_quota(**SPOT)["Quota"], quotas.get_aws_default_service_quota(**SPOT)["Quota"]
    assert applied["Value"] == PLENTY
    assert default["Value"] == 5.0
    assert applied["QuotaName"] == default["QuotaName"]
    assert applied["QuotaName"] == "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"
    assert applied["QuotaArn"] == "arn:aws:servicequotas:us-east-1:123456789012:ec2/L-34B43A08"
    assert default["QuotaArn"] == "arn:aws:servicequotas:us-east-1::ec2/L-34B43A08"
    defaults = [quotas.get_aws_default_service_quota(**one)["Quota"]["Value"] for one in (ON_DEMAND, GPU, FARGATE)]
    assert defaults == [5.0, 0.0, 6.0]


def test_quotas_are_listed_in_pages(quotas: Any) -> None:
    pages = quotas.get_paginator("list_service_quotas").paginate(ServiceCode="ec2", PaginationConfig={"PageSize": 2})
    sizes, codes = [], []
    for page in pages:
        sizes.append(len(page["Quotas"]))
        codes += [one["QuotaCode"] for one in page["Quotas"]]
    assert max(sizes) == 2
    assert {"L-1216C47A", "L-34B43A08", "L-DB2E81BA", "L-3819A6DF"} <= set(codes)
    assert len(codes) == len(set(codes))
    assert [one["QuotaCode"] for one in quotas.list_aws_default_service_quotas(ServiceCode="fargate")["Quotas"]] == [
        "L-3032A538",
        "L-36FBB829",
    ]
    assert [one["ServiceCode"] for one in quotas.list_services()["Services"]] == ["ec2", "fargate"]
    code, _ = refusal(quotas.list_service_quotas, ServiceCode="ec2", NextToken="no token")
    assert code == "InvalidPaginationTokenException"


def test_an_unknown_service_quota_or_request_is_refused_with_the_message_of_aws(quotas: Any) -> None:
    # Fargate's quotas are not under the service code of ECS, and service codes are case-sensitive.
    for service in ("ecs", "EC2"):
        code, text = refusal(quotas.get_service_quota, ServiceCode=service, QuotaCode="L-3032A538")
        assert code == "NoSuchResourceException"
        assert text == "The request failed because the specified service does not exist."
    for call in (quotas.get_service_quota, quotas.get_aws_default_service_quota):
        assert refusal(call, ServiceCode="ec2", QuotaCode="L-3032A538")[0] == "NoSuchResourceException"
    asked = {"ServiceCode": "ec2", "QuotaCode": "L-00000000", "DesiredValue": 5.0}
    assert refusal(quotas.request_service_quota_increase, **asked)[0] == "NoSuchResourceException"
    assert refusal(quotas.get_requested_service_quota_change, RequestId="none")[0] == "NoSuchResourceException"


def test_an_increase_is_pending_and_then_granted(aws: LocalAWS, quotas: Any) -> None:
    aws.play([faults.Quota(market="spot", vcpus=5)])
    asked = quotas.request_service_quota_increase(**SPOT, DesiredValue=64.0)["RequestedQuota"]
    assert (asked["Status"], asked["DesiredValue"], asked["QuotaCode"]) == ("PENDING", 64.0, "L-34B43A08")
    assert abs(asked["Created"].timestamp() - aws.now()) < 60
    assert quotas.get_service_quota(**SPOT)["Quota"]["Value"] == 5.0
    code, text = refusal(quotas.request_service_quota_increase, **SPOT, DesiredValue=128.0)
    assert code == "ResourceAlreadyExistsException"
    assert text == "Only one open service quota increase request is allowed per quota."
    history = quotas.list_requested_service_quota_change_history_by_quota
    assert [one["Id"] for one in history(**SPOT, Status="PENDING")["RequestedQuotas"]] == [asked["Id"]]
    aws.advance(REVIEW)
    wait_for(lambda: quotas.get_service_quota(**SPOT)["Quota"]["Value"] == 64.0)
    found = quotas.get_requested_service_quota_change(RequestId=asked["Id"])["RequestedQuota"]
    assert found["Status"] == "APPROVED"
    assert found["LastUpdated"] > found["Created"]
    assert history(**SPOT, Status="PENDING")["RequestedQuotas"] == []
    everything = quotas.list_requested_service_quota_change_history(ServiceCode="ec2")["RequestedQuotas"]
    assert asked["Id"] in [one["Id"] for one in everything]
    assert history(**ON_DEMAND)["RequestedQuotas"] == []


@pytest.mark.parametrize("value", [4.0, 5.0])
def test_a_request_that_is_not_an_increase_is_refused(aws: LocalAWS, quotas: Any, value: float) -> None:
    aws.play([faults.Quota(market="on-demand", vcpus=5)])
    code, text = refusal(quotas.request_service_quota_increase, **ON_DEMAND, DesiredValue=value)
    assert code == "IllegalArgumentException"
    assert text == "You must provide a quota value greater than the current quota value"


def nothing_runs(stack: Stack) -> bool:
    states = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    return stack.ec2.describe_instances(Filters=states)["Reservations"] == []


def test_a_group_launches_as_many_instances_as_the_reported_quota_allows(
    aws: LocalAWS, stack: Stack, quotas: Any
) -> None:
    wait_for(lambda: nothing_runs(stack), "what other tests have launched is gone")
    aws.play([faults.Quota(market="on-demand", vcpus=5)])
    assert quotas.get_service_quota(**ON_DEMAND)["Quota"]["Value"] == 5.0
    stack.group(size=3)  # of two vCPUs each
    wait_for(lambda: failures(stack))
    assert "your current vCPU limit of 5 allows" in failures(stack)[0]
    assert len(stack.in_service(2)) == 2
    quotas.request_service_quota_increase(**ON_DEMAND, DesiredValue=6.0)
    aws.advance(REVIEW)
    wait_for(lambda: quotas.get_service_quota(**ON_DEMAND)["Quota"]["Value"] == 6.0)
    aws.advance(60.0)
    stack.in_service(3)


def test_another_quota_is_set_by_its_code(aws: LocalAWS, stack: Stack, quotas: Any) -> None:
    aws.play([faults.Quota(code="L-DB2E81BA", vcpus=0, seconds=1000)])
    assert quotas.get_service_quota(**GPU)["Quota"]["Value"] == 0.0
    assert quotas.get_service_quota(**ON_DEMAND)["Quota"]["Value"] == PLENTY
    stack.group(size=1, LaunchTemplate=stack.template(InstanceType="g5g.xlarge"))
    wait_for(lambda: failures(stack))
    assert "your current vCPU limit of 0 allows" in failures(stack)[0]
    aws.advance(1000.0)
    wait_for(lambda: quotas.get_service_quota(**GPU)["Quota"]["Value"] == PLENTY)


@pytest.mark.parametrize("wrong", [{}, {"market": "spot", "code": "L-DB2E81BA"}, {"market": "cheap"}, {"code": "L-0"}])
def test_a_fault_without_a_valid_quota_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="quota needs a market"):
        faults.Quota(vcpus=1, **wrong)  # type: ignore[arg-type]  # the tested error


def test_an_instance_is_described_with_its_vcpus(stack: Stack) -> None:
    stack.group(size=1)
    (member,) = stack.in_service(1)
    found = stack.ec2.describe_instances(InstanceIds=[member["InstanceId"]])["Reservations"][0]["Instances"][0]
    assert found["CpuOptions"]["CoreCount"] * found["CpuOptions"]["ThreadsPerCore"] == 2


def ec2_instance(identity: str) -> Ec2Instance:
    return Ec2Instance(identity, "c7g.xlarge", "us-east-1a", "10.0.0.1", "spot", 0.0, 4, 8192, "arm64", None, None)


def test_an_instance_that_shuts_down_does_not_count_against_a_quota() -> None:
    quotas, spot = Quotas(), QUOTAS["L-34B43A08"]
    quotas.set(spot, 8)
    one, other = ec2_instance("i-1"), ec2_instance("i-2")
    quotas.take(one)
    quotas.take(other)
    assert not quotas.allows(spot, 4)
    quotas.give_back(one)
    quotas.give_back(one)
    assert quotas.allows(spot, 4)
    assert not quotas.allows(spot, 5)
