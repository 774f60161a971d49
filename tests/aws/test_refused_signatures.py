"""Signatures that AWS refuses because of this computer's clock, or of a region that is not enabled."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dask_starburst.aws.client_errors import explained
from dask_starburst.aws.regions import is_opt_in
from dask_starburst.aws.session import AWS
from dask_starburst.errors import CredentialsExpired
from dask_starburst.local import LocalAWS, faults

#: One call of each protocol: query, JSON, EC2's.
CALLS = (("sts", "GetCallerIdentity"), ("ecs", "ListClusters"), ("ec2", "DescribeVpcs"))


@pytest.fixture(autouse=True)
def clear_faults(aws: LocalAWS) -> Iterator[None]:
    yield
    aws.play([faults.Clear()])


def refused(aws: LocalAWS, service: str, operation: str) -> str:
    ours = AWS(session=aws.session())
    with pytest.raises(CredentialsExpired) as error:
        asyncio.run(ours.call(service, operation))
    ours.close()
    return str(error.value)


@dataclass(frozen=True)
class Skew:
    fault: faults.ClockSkew
    says: str


@pytest.mark.parametrize(
    "skew",
    [
        Skew(faults.ClockSkew(behind=3600), r"clock is (3[56]\d\d) s behind AWS's"),
        Skew(faults.ClockSkew(ahead=3600), r"clock is (3[56]\d\d) s ahead of AWS's"),
    ],
    ids=["behind", "ahead"],
)
@pytest.mark.parametrize(("service", "operation"), CALLS)
def test_a_wrong_clock_is_named_with_its_difference(aws: LocalAWS, service: str, operation: str, skew: Skew) -> None:
    aws.play([skew.fault])
    text = refused(aws, service, operation)
    assert re.search(skew.says, text)
    assert text.endswith("Set the clock.")
    assert "sso login" not in text


@pytest.mark.parametrize(("service", "operation"), CALLS)
def test_a_clock_that_is_off_by_two_minutes_is_accepted(aws: LocalAWS, service: str, operation: str) -> None:
    aws.play([faults.ClockSkew(behind=120)])
    ours = AWS(session=aws.session())
    asyncio.run(ours.call(service, operation))
    ours.close()


@pytest.mark.parametrize(("service", "operation"), CALLS)
def test_unknown_keys_in_a_region_that_all_accounts_have_need_a_login(
    aws: LocalAWS, service: str, operation: str
) -> None:
    aws.play([faults.RegionNotEnabled()])
    assert "Log in again (`aws sso login`" in refused(aws, service, operation)


def refusal(code: str, text: str = "AWS says no", **headers: str) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"HTTPHeaders": headers}}
    return ClientError(answer, "GetCallerIdentity")


@pytest.mark.parametrize("code", ["InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure"])
def test_unknown_keys_in_an_opt_in_region_name_the_region_and_how_to_enable_it(code: str) -> None:
    text = str(explained(refusal(code), "sts:GetCallerIdentity", "ap-east-1"))
    assert "in ap-east-1" in text
    assert "aws account enable-region --region-name ap-east-1" in text
    assert "if it is enabled, log in again" in text


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestExpired"])
def test_an_expired_token_is_not_taken_for_a_wrong_clock(code: str) -> None:
    text = str(explained(refusal(code, date=formatdate(usegmt=True)), "ec2:RunInstances", "ap-east-1"))
    assert "Log in again" in text
    assert "clock" not in text


def test_without_a_date_the_clock_is_named_without_its_difference() -> None:
    text = str(explained(refusal("RequestTimeTooSkewed", "The difference is too large."), "s3:GetObject"))
    assert "clock is wrong" in text


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ("us-east-1", False),
        ("ap-east-1", True),
        ("me-central-1", True),
        ("us-gov-west-1", False),
        ("cn-north-1", False),
    ],
)
def test_regions_to_be_enabled_first_are_known(region: str, expected: bool) -> None:
    assert is_opt_in(region) is expected
