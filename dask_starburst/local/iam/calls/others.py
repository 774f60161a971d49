"""Calls of services of which we use one or two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dask_starburst.local.http.protocols import Request
from dask_starburst.local.iam.calls.inventory import Inventory, Rule, anywhere
from dask_starburst.local.iam.model import Check


def _on_quota(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        quota = f"{request['ServiceCode']}/{request['QuotaCode']}"
        yield Check(f"servicequotas:{action}", inventory.arn("servicequotas", quota))

    return rule


def _on_key(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        key = request["KeyId"]
        yield Check(f"kms:{action}", key if key.startswith("arn:") else inventory.arn("kms", f"key/{key}"))

    return rule


RULES: Mapping[str, Rule] = {
    "ce:GetCostAndUsage": anywhere("ce:GetCostAndUsage"),
    **{
        f"servicequotas:{action}": _on_quota(action)
        for action in (
            "GetServiceQuota",
            "ListRequestedServiceQuotaChangeHistoryByQuota",
            "RequestServiceQuotaIncrease",
        )
    },
    **{f"kms:{action}": _on_key(action) for action in ("GetKeyPolicy", "ListGrants")},
}
