"""The price APIs of the embedded AWS, from the bundled catalogue."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dask_starburst.local import LocalAWS, faults
from tests.local.conftest import Clients, code_of, message_of, wait_for

WANTED = {
    "regionCode": "eu-central-1",
    "instanceType": "m5.xlarge",
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}


def products(
    clients: Clients, requested: dict[str, str], kind: str = "TERM_MATCH", **more: Any
) -> list[dict[str, Any]]:
    filters = [{"Type": kind, "Field": field, "Value": value} for field, value in requested.items()]
    answer = clients.pricing.get_products(ServiceCode="AmazonEC2", Filters=filters, **more)
    return [json.loads(text) for text in answer["PriceList"]]


def test_a_product_has_its_price_in_the_nested_shape_of_aws(clients: Clients):
    (product,) = products(clients, WANTED)
    attributes = product["product"]["attributes"]
    assert (attributes["instanceType"], attributes["vcpu"], attributes["memory"]) == ("m5.xlarge", "4", "16 GiB")
    (offer,) = product["terms"]["OnDemand"].values()
    (dimension,) = offer["priceDimensions"].values()
    assert offer["sku"] == product["product"]["sku"]
    assert (dimension["unit"], dimension["pricePerUnit"]) == ("Hrs", {"USD": "0.2300000000"})
    assert dimension["description"] == "$0.23 per On Demand Linux m5.xlarge Instance Hour"


def test_without_a_capacity_filter_there_are_reserved_hours_at_no_cost(clients: Clients):
    found = products(clients, {key: value for key, value in WANTED.items() if key != "capacitystatus"})
    prices = {
        product["product"]["attributes"]["capacitystatus"]: dimension["pricePerUnit"]["USD"]
        for product in found
        for offer in product["terms"]["OnDemand"].values()
        for dimension in offer["priceDimensions"].values()
    }
    assert prices == {
        "Used": "0.2300000000",
        "UnusedCapacityReservation": "0.2300000000",
        "AllocatedCapacityReservation": "0.0000000000",
    }


def test_a_type_that_a_region_lacks_is_not_listed(clients: Clients):
    assert products(clients, WANTED | {"instanceType": "m9g.xlarge"}) == []
    assert products(clients, WANTED | {"operatingSystem": "Windows"}) == []


@pytest.mark.parametrize(("kind", "value", "count"), [("ANY_OF", "m5.large,m5.xlarge", 2), ("CONTAINS", "m5.", 7)])
def test_the_newer_filter_types_work(clients: Clients, kind: str, value: str, count: int):
    filters = [{"Type": "TERM_MATCH", "Field": f, "Value": v} for f, v in WANTED.items() if f != "instanceType"]
    filters.append({"Type": kind, "Field": "instanceType", "Value": value})
    answer = clients.pricing.get_products(ServiceCode="AmazonEC2", Filters=filters)
    found = {json.loads(text)["product"]["attributes"]["instanceType"] for text in answer["PriceList"]}
    assert len(found) >= count
    assert {"m5.large", "m5.xlarge"} <= found


def test_a_page_has_a_hundred_products_and_the_token_of_the_next(clients: Clients):
    pages = clients.pricing.get_paginator("get_products").paginate(
        ServiceCode="AmazonEC2",
        Filters=[
            {"Type": "TERM_MATCH", "Field": field, "Value": value}
            for field, value in WANTED.items()
            if field != "instanceType"
        ],
    )
    sizes = [len(page["PriceList"]) for page in pages]
    assert set(sizes[:-1]) == {100}
    assert sum(sizes) > 500
    assert len(products(clients, WANTED | {"regionCode": "us-east-1"}, MaxResults=1)) == 1


def test_an_invalid_request_is_refused(clients: Clients):
    def ask(**request: Any) -> str:
        with pytest.raises(ClientError) as refused:
            clients.pricing.get_products(**{"ServiceCode": "AmazonEC2", **request})
        return code_of(refused)

    field = {"Type": "TERM_MATCH", "Field": "colour", "Value": "red"}
    assert ask(Filters=[field]) == "InvalidParameterException"
    assert ask(Filters=[{**field, "Type": "LIKE"}]) == "InvalidParameterException"
    assert ask(ServiceCode="AmazonNothing") == "InvalidParameterException"
    assert ask(FormatVersion="csv") == "InvalidParameterException"
    assert ask(NextToken="none") == "InvalidNextTokenException"


def history(clients: Clients, **request: Any) -> list[dict[str, Any]]:
    pages = clients.ec2.get_paginator("describe_spot_price_history").paginate(**request)
    return [entry for page in pages for entry in page["SpotPriceHistory"]]


@pytest.fixture
def now(aws: LocalAWS) -> datetime:
    """Return the time of the embedded AWS, which is ahead of ours and may be in the next day."""
    return datetime.fromtimestamp(aws.now(), UTC)


def test_the_current_spot_price_is_that_of_the_last_change(clients: Clients, now: datetime):
    one = {"InstanceTypes": ["c7g.xlarge"], "ProductDescriptions": ["Linux/UNIX"]}
    entries = history(clients, **one, StartTime=now, EndTime=now)
    assert {entry["AvailabilityZone"] for entry in entries} == {f"us-east-1{letter}" for letter in "abcdef"}
    assert {entry["SpotPrice"] for entry in entries} == {"0.056550"}
    assert {entry["ProductDescription"] for entry in entries} == {"Linux/UNIX"}
    assert all(entry["Timestamp"] <= now and entry["AvailabilityZoneId"].startswith("use1-az") for entry in entries)


def test_both_linux_product_names_have_a_history(clients: Clients, now: datetime):
    entries = history(clients, InstanceTypes=["c7g.xlarge"], StartTime=now, AvailabilityZone="us-east-1a")
    assert {entry["ProductDescription"] for entry in entries} == {"Linux/UNIX", "Linux/UNIX (Amazon VPC)"}
    assert len(history(clients, InstanceTypes=["c7g.xlarge"], StartTime=now, ProductDescriptions=["Windows"])) == 0


def test_the_history_is_newest_first_and_at_most_ninety_days(clients: Clients, now: datetime):
    one = {"InstanceTypes": ["c7g.xlarge"], "AvailabilityZone": "us-east-1a", "ProductDescriptions": ["Linux/UNIX"]}
    week = history(clients, **one, StartTime=now - timedelta(days=7))
    times = [entry["Timestamp"] for entry in week]
    assert times == sorted(times, reverse=True)
    assert 7 <= len(times) <= 9
    assert 90 <= len(history(clients, **one)) <= 92
    assert history(clients, **one, StartTime=now + timedelta(days=1)) == []


def test_a_fault_changes_spot_prices_and_the_history_has_its_time():
    with LocalAWS(speed=5.0) as own:
        clients = Clients(own)
        one = {"InstanceTypes": ["c7g.xlarge"], "AvailabilityZone": "us-east-1a", "ProductDescriptions": ["Linux/UNIX"]}
        own.play([faults.SpotPrice(type="c7g.xlarge", zone="us-east-1a", times=2.0, seconds=3600.0)])
        changed = own.past_faults()[0]["at"]
        own.advance(60.0)

        def last(**more: Any) -> dict[str, Any]:
            at = datetime.fromtimestamp(own.now(), UTC)
            return history(clients, **{**one, "StartTime": at, "EndTime": at, **more})[0]

        assert last()["SpotPrice"] == "0.113100"
        assert last()["Timestamp"].timestamp() == int(changed)  # whole seconds, as on AWS
        assert last(AvailabilityZone="us-east-1b")["SpotPrice"] == "0.056550"
        assert last(InstanceTypes=["m7g.xlarge"])["SpotPrice"] == "0.060384"
        assert {entry["SpotPrice"] for entry in history(clients, **one)[1:]} == {"0.056550"}
        own.advance(3600.0)
        wait_for(lambda: last()["SpotPrice"] == "0.056550")


def test_the_history_is_filtered_and_paged(clients: Clients, now: datetime):
    filters = [
        {"Name": "availability-zone", "Values": ["us-east-1b"]},
        {"Name": "instance-type", "Values": ["c7g.*", "m7g.large"]},
        {"Name": "product-description", "Values": ["Linux/UNIX"]},
    ]
    entries = history(clients, Filters=filters, StartTime=now, EndTime=now, PaginationConfig={"PageSize": 3})
    types = [entry["InstanceType"] for entry in entries]
    assert len(types) == len(set(types)) == 9
    assert {entry["AvailabilityZone"] for entry in entries} == {"us-east-1b"}


def test_an_unknown_filter_or_zone_is_refused_with_the_message_of_ec2(clients: Clients):
    with pytest.raises(ClientError) as refused:
        history(clients, Filters=[{"Name": "colour", "Values": ["red"]}])
    assert (code_of(refused), message_of(refused)) == ("InvalidParameterValue", "The filter 'colour' is invalid")
    with pytest.raises(ClientError) as refused:
        history(clients, AvailabilityZone="eu-west-1a")
    assert code_of(refused) == "InvalidParameterValue"
