"""Service Quotas of the embedded AWS, for the vCPU quotas of EC2 and Fargate.

Source: "Service Quotas API Reference", 2026-11. The error texts come from user reports (hashicorp/
terraform-provider-aws#19657, cloud-custodian/cloud-custodian#8939, aws/aws-cli#4569). When and whether AWS grants an
increase is not predictable; here all are granted, after `REVIEW` virtual seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dask_starburst.catalog.quotas import QUOTAS, Quota
from dask_starburst.local.backend.account import partition
from dask_starburst.local.backend.backend import ACCOUNT, Backend, new_id
from dask_starburst.local.backend.quotas import Quotas
from dask_starburst.local.http.protocols import Reply, Request, ServiceError, page

#: Invented: AWS takes minutes for small increases and days for large ones.
REVIEW = 900.0
_NAMES = {"ec2": "Amazon Elastic Compute Cloud (Amazon EC2)", "fargate": "AWS Fargate"}
_MOST = 100  # the largest MaxResults


@dataclass
class _Increase:
    id: str
    quota: Quota
    value: float
    created: float
    updated: float
    status: str = "PENDING"


class ServiceQuotas:
    """The operations.

    Parameters
    ----------
    backend : Backend
        Its clock, its timers and its lock.
    quotas : Quotas
        The quotas that launches respect.
    """

    def __init__(self, backend: Backend, quotas: Quotas) -> None:
        self._backend = backend
        self._quotas = quotas
        self._increases: list[_Increase] = []

    def list_services(self, request: Request) -> Reply:
        """List the services with quotas."""
        names, token = _page(request, sorted(_NAMES))
        return _paged({"Services": [{"ServiceCode": one, "ServiceName": _NAMES[one]} for one in names]}, token)

    def get_service_quota(self, request: Request) -> Reply:
        """Return the applied quota of the account."""
        return {"Quota": self._applied(_find(request))}

    def get_aws_default_service_quota(self, request: Request) -> Reply:
        """Return AWS's default quota."""
        return {"Quota": self._default(_find(request))}

    def list_service_quotas(self, request: Request) -> Reply:
        """List the applied quotas of one service."""
        quotas, token = _page(request, [one.code for one in _of_service(request)])
        return _paged({"Quotas": [self._applied(QUOTAS[code]) for code in quotas]}, token)

    def list_aws_default_service_quotas(self, request: Request) -> Reply:
        """List AWS's default quotas of one service."""
        quotas, token = _page(request, [one.code for one in _of_service(request)])
        return _paged({"Quotas": [self._default(QUOTAS[code]) for code in quotas]}, token)

    def request_service_quota_increase(self, request: Request) -> Reply:
        """Accept a request for an increase, which is granted later."""
        quota, value = _find(request), float(request["DesiredValue"])
        if value <= self._quotas.limit(quota):
            raise _illegal("You must provide a quota value greater than the current quota value")
        if any(one.quota == quota and one.status == "PENDING" for one in self._increases):
            raise ServiceError(
                "ResourceAlreadyExistsException",
                "Only one open service quota increase request is allowed per quota.",
            )
        now = self._backend.now()
        increase = _Increase(new_id(), quota, value, now, now)
        self._increases.append(increase)
        self._backend.at(now + REVIEW, lambda: self._grant(increase))
        return {"RequestedQuota": self._shown(increase)}

    def get_requested_service_quota_change(self, request: Request) -> Reply:
        """Return one request."""
        found = next((one for one in self._increases if one.id == request["RequestId"]), None)
        if found is None:
            raise _no_such("The request failed because the specified request does not exist.")
        return {"RequestedQuota": self._shown(found)}

    def list_requested_service_quota_change_history(self, request: Request) -> Reply:
        """List the requests, of all quotas or of one service."""
        requested = _of_service(request) if request.get("ServiceCode") else list(QUOTAS.values())
        return self._history(request, requested)

    def list_requested_service_quota_change_history_by_quota(self, request: Request) -> Reply:
        """List the requests of one quota."""
        return self._history(request, [_find(request)])

    def _history(self, request: Request, quotas: Iterable[Quota]) -> Reply:
        requested, status = set(quotas), request.get("Status")
        found = {
            one.id: one for one in reversed(self._increases) if one.quota in requested and status in (None, one.status)
        }
        ids, token = _page(request, list(found))
        return _paged({"RequestedQuotas": [self._shown(found[one]) for one in ids]}, token)

    def _grant(self, increase: _Increase) -> None:
        increase.status, increase.updated = "APPROVED", self._backend.now()
        # A fault may have raised it meanwhile, and an increase never lowers a quota.
        self._quotas.set(increase.quota, max(increase.value, self._quotas.limit(increase.quota)))

    def _applied(self, quota: Quota) -> dict[str, Any]:
        arn = self._backend.arn("servicequotas", f"{quota.service}/{quota.code}")
        return {**_described(quota, arn), "Value": self._quotas.limit(quota), "QuotaAppliedAtLevel": "ACCOUNT"}

    def _default(self, quota: Quota) -> dict[str, Any]:
        arn = f"arn:{partition()}:servicequotas:{self._backend.region}::{quota.service}/{quota.code}"
        return {**_described(quota, arn), "Value": quota.default}

    def _shown(self, increase: _Increase) -> dict[str, Any]:
        quota = increase.quota
        return {
            "Id": increase.id,
            "ServiceCode": quota.service,
            "ServiceName": _NAMES[quota.service],
            "QuotaCode": quota.code,
            "QuotaName": quota.name,
            "DesiredValue": increase.value,
            "Status": increase.status,
            "Created": increase.created,
            "LastUpdated": increase.updated,
            "Requester": f'{{"accountId":"{ACCOUNT}"}}',
            "QuotaArn": self._backend.arn("servicequotas", f"{quota.service}/{quota.code}"),
            "GlobalQuota": False,
            "Unit": "None",
            "QuotaRequestedAtLevel": "ACCOUNT",
        }


def _described(quota: Quota, arn: str) -> dict[str, Any]:
    return {
        "ServiceCode": quota.service,
        "ServiceName": _NAMES[quota.service],
        "QuotaArn": arn,
        "QuotaCode": quota.code,
        "QuotaName": quota.name,
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }


def _of_service(request: Request) -> list[Quota]:
    if request["ServiceCode"] not in _NAMES:
        raise _no_such("The request failed because the specified service does not exist.")
    return [one for one in QUOTAS.values() if one.service == request["ServiceCode"]]


def _find(request: Request) -> Quota:
    found = next((one for one in _of_service(request) if one.code == request["QuotaCode"]), None)
    if found is None:
        raise _no_such("The request failed because the specified quota does not exist.")
    return found


def _page(request: Request, keys: list[str]) -> tuple[list[str], str | None]:
    size = request.get("MaxResults", _MOST)
    return page(keys, request.get("NextToken"), size, "InvalidPaginationTokenException")


def _paged(reply: Reply, token: str | None) -> Reply:
    return reply if token is None else {**reply, "NextToken": token}


def _no_such(message: str) -> ServiceError:
    return ServiceError("NoSuchResourceException", message)


def _illegal(message: str) -> ServiceError:
    return ServiceError("IllegalArgumentException", message)
