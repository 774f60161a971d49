"""Service Quotas: limits, usage and increase requests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from tlz import partition_all

from dask_starburst.aws import tolerant
from dask_starburst.aws.session import AWS
from dask_starburst.catalog.markets import Market
from dask_starburst.catalog.quotas import Quota, fargate_quota
from dask_starburst.plan.requests.policies import MANAGED_TAG
from dask_starburst.plan.requests.quotas import Increase, Running

#: States that count against a quota: running instances ("Amazon EC2 instance type quotas") and pending ones.
_STATES = ["pending", "running"]
#: The most tasks of DescribeTasks (aws-facts §1.2).
_MOST_TASKS = 100


async def limit(aws: AWS, quota: Quota) -> float:
    """Return a quota in vCPUs: the applied value, or AWS's default if none was ever applied."""
    which = {"ServiceCode": quota.service, "QuotaCode": quota.code}
    # "If the applied quota value is not available for a quota, then the quota is not retrieved" (GetServiceQuota).
    found = await tolerant.get(aws, "service-quotas", "GetServiceQuota", **which)
    if found is None:
        found = await aws.call("service-quotas", "GetAWSDefaultServiceQuota", **which)
    return float(found["Quota"]["Value"])


async def limits(aws: AWS, quotas: Iterable[Quota]) -> dict[str, float]:
    """Return quotas in vCPUs by quota code."""
    requested = tuple(quotas)
    found = await asyncio.gather(*(limit(aws, quota) for quota in requested))
    return {quota.code: value for quota, value in zip(requested, found, strict=True)}


async def running(aws: AWS) -> tuple[Running, ...]:
    """Return all instances of the account in the region that count against a quota, not only ours."""
    found = await aws.pages(
        "ec2", "DescribeInstances", "Reservations", Filters=[{"Name": "instance-state-name", "Values": _STATES}]
    )
    return tuple(_running(one) for reservation in found for one in reservation["Instances"])


async def fargate_vcpus(aws: AWS) -> dict[str, float]:
    """Return the vCPUs of ECS tasks on Fargate, by quota code. EKS pods count too, and are not included."""
    used = {fargate_quota(Market.ON_DEMAND).code: 0.0, fargate_quota(Market.SPOT).code: 0.0}
    clusters = await aws.pages("ecs", "ListClusters", "clusterArns")
    listed = await asyncio.gather(
        *(aws.pages("ecs", "ListTasks", "taskArns", cluster=one, launchType="FARGATE") for one in clusters)
    )
    parts = [(one, part) for one, arns in zip(clusters, listed, strict=True) for part in _parts(arns)]
    answers = await asyncio.gather(
        *(aws.call("ecs", "DescribeTasks", cluster=cluster, tasks=part) for cluster, part in parts)
    )
    for task in (task for answer in answers for task in answer["tasks"]):
        spot = task.get("capacityProviderName") == "FARGATE_SPOT"
        used[fargate_quota(Market.SPOT if spot else Market.ON_DEMAND).code] += int(task["cpu"]) / 1024
    return used


async def request(aws: AWS, quota: Quota, vcpus: int) -> Increase:
    """Request a quota increase."""
    answer = await aws.call(
        "service-quotas",
        "RequestServiceQuotaIncrease",
        ServiceCode=quota.service,
        QuotaCode=quota.code,
        DesiredValue=float(vcpus),
    )
    return _increase(answer["RequestedQuota"])


async def requests(aws: AWS, quota: Quota) -> tuple[Increase, ...]:
    """Return the increase requests of one quota, newest first."""
    operation = "ListRequestedServiceQuotaChangeHistoryByQuota"
    which = {"ServiceCode": quota.service, "QuotaCode": quota.code}
    return _sorted(await aws.pages("service-quotas", operation, "RequestedQuotas", **which))


async def all_requests(aws: AWS, services: Iterable[str]) -> tuple[Increase, ...]:
    """Return the increase requests of all quotas of these services, newest first."""
    operation = "ListRequestedServiceQuotaChangeHistory"
    found = await asyncio.gather(
        *(aws.pages("service-quotas", operation, "RequestedQuotas", ServiceCode=service) for service in services)
    )
    return _sorted([one for some in found for one in some])


def _running(one: dict[str, Any]) -> Running:
    cores = one.get("CpuOptions", {})  # AWS returns it for every instance
    return Running(
        one["InstanceType"],
        Market.SPOT if one.get("InstanceLifecycle") == "spot" else Market.ON_DEMAND,
        cores.get("CoreCount", 0) * cores.get("ThreadsPerCore", 1),
        next((tag["Value"] for tag in one.get("Tags", ()) if tag["Key"] == MANAGED_TAG), ""),
    )


def _increase(one: dict[str, Any]) -> Increase:
    at = one["Created"].timestamp()
    return Increase(one["Id"], one["QuotaCode"], one["DesiredValue"], one["Status"], at, one.get("CaseId", ""))


def _sorted(found: Iterable[dict[str, Any]]) -> tuple[Increase, ...]:
    return tuple(sorted(map(_increase, found), key=lambda one: one.at, reverse=True))


def _parts(arns: Sequence[str]) -> list[Sequence[str]]:
    return [list(part) for part in partition_all(_MOST_TASKS, arns)]
