"""The Price List service, from the bundled catalogue: GetProducts of EC2, in AWS's nested shape."""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dask_starburst.catalog import InstanceType, catalogue, price_table, regions
from dask_starburst.local.http.protocols import Reply, Request, ServiceError

_SERVICE = "AmazonEC2"
_PAGE = 100
#: AWS's names of the only offer and the only dimension of every EC2 product.
_OFFER, _DIMENSION = "JRTCKXETXF", "6YS6EN2CT7"
#: One type has many products: without this filter a caller also gets reserved hours at no cost.
_CAPACITIES = {
    "Used": "BoxUsage",
    "UnusedCapacityReservation": "UnusedBox",
    "AllocatedCapacityReservation": "Reservation",
}
_FREE = "AllocatedCapacityReservation"


@dataclass(frozen=True, slots=True)
class _Product:
    """A type in a region, in one kind of capacity."""

    type: InstanceType
    region: str
    capacity: str

    @property
    def attributes(self) -> dict[str, str]:
        return {
            "servicecode": _SERVICE,
            "servicename": "Amazon Elastic Compute Cloud",
            "locationType": "AWS Region",
            "regionCode": self.region,
            "instanceType": self.type.name,
            "instancesku": _sku(self.type.name, self.region),
            "operation": "RunInstances",
            "usagetype": f"{_CAPACITIES[self.capacity]}:{self.type.name}",
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": self.capacity,
            "marketoption": "OnDemand",
            "licenseModel": "No License required",
            "vcpu": str(self.type.vcpus),
            "memory": f"{self.type.memory_mib / 1024:g} GiB",
            "networkPerformance": self.type.network,
            "processorArchitecture": "64-bit",
        }

    def text(self) -> str:
        """Return it as one string of the answer."""
        price = price_table(self.region).on_demand(self.type)
        usd = 0.0 if self.capacity == _FREE else price.usd_per_hour
        sku = _sku(self.type.name, self.region, self.capacity)
        dimension = {
            "unit": "Hrs",
            "beginRange": "0",
            "endRange": "Inf",
            "description": f"${usd:.10g} per On Demand Linux {self.type.name} Instance Hour",
            "appliesTo": [],
            "rateCode": f"{sku}.{_OFFER}.{_DIMENSION}",
            "pricePerUnit": {"USD": f"{usd:.10f}"},
        }
        offer = {
            "sku": sku,
            "offerTermCode": _OFFER,
            "effectiveDate": f"{price.date}T00:00:00Z",
            "termAttributes": {},
            "priceDimensions": {f"{sku}.{_OFFER}.{_DIMENSION}": dimension},
        }
        document = {
            "product": {"productFamily": "Compute Instance", "attributes": self.attributes, "sku": sku},
            "serviceCode": _SERVICE,
            "terms": {"OnDemand": {f"{sku}.{_OFFER}": offer}},
            "version": price.date.replace("-", "") + "000000",
            "publicationDate": f"{price.date}T00:00:00Z",
        }
        return json.dumps(document)


class PriceList:
    """Answers GetProducts for on-demand Linux instances on shared hardware."""

    def get_products(self, request: Request) -> Reply:
        """Answer one page."""
        if request["ServiceCode"] != _SERVICE:
            raise _invalid(f"The embedded AWS has prices of {_SERVICE} only, not of {request['ServiceCode']}.")
        if request.get("FormatVersion", "aws_v1") != "aws_v1":
            raise _invalid("FormatVersion must be aws_v1.")
        filters = request.get("Filters", [])
        _check(filters)
        found = list(_matching(filters))
        start = _start(request.get("NextToken"), len(found))
        end = start + int(request.get("MaxResults") or _PAGE)
        more = {"NextToken": str(end)} if end < len(found) else {}
        return {"FormatVersion": "aws_v1", "PriceList": [each.text() for each in found[start:end]], **more}


def _matching(filters: list[Mapping[str, str]]) -> Iterator[_Product]:
    by_field = [(each["Field"], each) for each in filters]
    for region in regions():
        if not all(_takes(each, region) for field, each in by_field if field == "regionCode"):
            continue
        table = price_table(region)
        for kind in catalogue().values():
            if not table.has(kind):
                continue
            if not all(_takes(each, kind.name) for field, each in by_field if field == "instanceType"):
                continue
            for capacity in _CAPACITIES:
                product = _Product(kind, region, capacity)
                attributes = product.attributes
                if all(_takes(each, attributes[field]) for field, each in by_field if field in attributes):
                    yield product


def _check(filters: list[Mapping[str, str]]) -> None:
    """Refuse attributes that the products do not have. AWS's message is not known."""
    known = {
        *_Product(next(iter(catalogue().values())), "us-east-1", "Used").attributes,
        "productFamily",
        "ServiceCode",
    }
    for each in filters:
        if each["Field"] not in known:
            raise _invalid(f"{each['Field']} is not an attribute of {_SERVICE}.")


def _takes(condition: Mapping[str, str], value: str) -> bool:
    values = [each.strip() for each in condition["Value"].split(",")]
    match condition["Type"]:
        case "ANY_OF":
            return value in values
        case "NONE_OF":
            return value not in values
        case "CONTAINS":
            return fnmatch.fnmatchcase(value, f"*{condition['Value']}*")
        case _:
            return value == condition["Value"]


def _start(token: str | None, count: int) -> int:
    if token is None:
        return 0
    if not token.isdigit() or not 0 < int(token) < count:
        raise ServiceError("InvalidNextTokenException", "The pagination token is invalid. Try again without it.")
    return int(token)


def _sku(*parts: str) -> str:
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:16].upper()


def _invalid(message: str) -> ServiceError:
    return ServiceError("InvalidParameterException", message)
