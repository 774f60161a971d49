"""AWS's errors become ours: the right class, AWS's message, the next step."""

from __future__ import annotations

import asyncio
import socket

import boto3
import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOTokenLoadError,
    TokenRetrievalError,
    UnauthorizedSSOTokenError,
)

from dask_starburst.aws.client_errors import explained
from dask_starburst.aws.faults import (
    DENIED,
    EXISTS,
    EXPIRED,
    MISSING,
    THROTTLED,
    UNAVAILABLE,
    code_of,
    launch_refusal,
    outage,
)
from dask_starburst.aws.session import AWS
from dask_starburst.errors import (
    AWSError,
    AWSUnavailable,
    BadArgument,
    CredentialsExpired,
    NoCredentials,
    PermissionDenied,
    StarburstError,
    Throttled,
)
from tests.support.placements import SPOT

USER = "User: arn:aws:iam::123456789012:user/ada"


def refusal(code: str, text: str = "AWS says no") -> ClientError:
    answer = {"Error": {"Code": code, "Message": text}, "ResponseMetadata": {"RequestId": "r-1"}}
    return ClientError(answer, "RunTask")


def test_no_code_has_two_meanings():
    tables = [DENIED, EXPIRED, THROTTLED, EXISTS, MISSING, UNAVAILABLE]
    assert sum(map(len, tables)) == len(frozenset().union(*tables))


@pytest.mark.parametrize("code", sorted(DENIED))
def test_a_denied_call_names_the_action_to_allow(code: str):
    error = explained(refusal(code, f"{USER} is not authorized to perform: ecs:RunTask on resource: x"), "ecs:RunTask")
    assert type(error) is PermissionDenied
    assert (error.code, error.operation, error.request_id) == (code, "ecs:RunTask", "r-1")
    assert str(error).startswith("AWS denies ecs:RunTask: User: ")
    assert str(error).endswith("Ask your administrator to allow ecs:RunTask.")


def test_a_denied_action_may_differ_from_the_called_one():
    text = f"{USER} is not authorized to perform: iam:PassRole on resource: arn:aws:iam::1:role/r because no policy"
    error = explained(refusal("AccessDeniedException", text), "ecs:RunTask")
    assert error.operation == "iam:PassRole"
    assert "AWS denies iam:PassRole" in str(error)
    assert text in str(error)


def test_a_denial_without_an_action_names_the_called_one():
    error = explained(refusal("UnauthorizedOperation", "You are not authorized."), "ec2:RunInstances")
    assert error.operation == "ec2:RunInstances"


@pytest.mark.parametrize("code", sorted(EXPIRED))
def test_expired_and_invalid_credentials_suggest_a_new_login(code: str):
    error = explained(refusal(code, "The security token included in the request is expired"), "sts:GetCallerIdentity")
    assert type(error) is CredentialsExpired
    assert code in str(error)
    assert "is expired" in str(error)
    assert "aws sso login" in str(error)


@pytest.mark.parametrize("code", sorted(THROTTLED))
def test_throttling_has_its_own_error_class(code: str):
    error = explained(refusal(code, "Rate exceeded"), "ecs:RegisterTaskDefinition")
    assert type(error) is Throttled
    assert isinstance(error, AWSError)
    assert str(error) == f"AWS throttles ecs:RegisterTaskDefinition: Rate exceeded ({code})."


@pytest.mark.parametrize("code", sorted(UNAVAILABLE))
def test_a_server_error_code_is_an_outage(code: str):
    error = explained(refusal(code), "ecs:RunTask")
    assert type(error) is AWSUnavailable
    assert outage(error)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_5xx_status_is_an_outage_for_every_code(status: int):
    answer = {"Error": {"Code": str(status), "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert type(explained(ClientError(answer, "RunTask"), "ecs:RunTask")) is AWSUnavailable


@pytest.mark.parametrize("code", sorted(EXISTS | MISSING | {"ValidationError", "ClientException"}))
def test_other_errors_keep_their_code_and_message(code: str):
    error = explained(refusal(code), "autoscaling:CreateAutoScalingGroup")
    assert type(error) is AWSError
    assert str(error) == f"autoscaling:CreateAutoScalingGroup failed: AWS says no ({code})."
    assert code_of(error) == code_of(refusal(code)) == code


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (NoCredentialsError(), NoCredentials, 'cloud="local"'),
        (PartialCredentialsError(provider="env", cred_var="aws_secret_access_key"), NoCredentials, "aws configure"),
        (TokenRetrievalError(provider="sso", error_msg="expired"), CredentialsExpired, "aws sso login"),
        (ProfileNotFound(profile="nope"), BadArgument, "nope"),
        (NoRegionError(), BadArgument, 'region="us-east-1"'),
        (EndpointConnectionError(endpoint_url="https://ecs.x"), AWSUnavailable, "cannot reach AWS"),
        (ConnectTimeoutError(endpoint_url="https://ecs.x"), AWSUnavailable, "https://ecs.x"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BotoCoreError) else "",
)
def test_errors_before_a_response_have_a_next_step(error: BotoCoreError, kind: type[StarburstError], advice: str):
    ours = explained(error, "ecs:RunTask")
    assert type(ours) is kind
    assert advice in str(ours)


@pytest.mark.parametrize(
    "error",
    [SSOTokenLoadError(error_msg="no such file"), UnauthorizedSSOTokenError()],
    ids=lambda e: type(e).__name__,
)
def test_a_missing_or_expired_sso_login_suggests_a_new_login(error: BotoCoreError):
    ours = explained(error, "sts:GetCallerIdentity")
    assert type(ours) is CredentialsExpired
    assert "aws sso login" in str(ours)


@pytest.mark.parametrize("error", [None, ValueError("x"), AWSError("x")])
def test_an_exception_without_a_code_has_an_empty_code(error: BaseException | None):
    assert code_of(error) == ""


def test_an_unreachable_endpoint_is_named():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    keys = boto3.Session("testing", "testing", region_name="us-east-1")
    aws = AWS(session=keys, endpoint_url=f"http://127.0.0.1:{port}")

    async def ask() -> None:
        await aws.call("sts", "GetCallerIdentity")

    try:
        with pytest.raises(AWSError, match=rf"sts:GetCallerIdentity cannot reach AWS: .*127\.0\.0\.1:{port}"):
            asyncio.run(ask())
    finally:
        aws.close()


@pytest.mark.parametrize(
    ("text", "kind", "type"),
    [
        (
            "We currently do not have sufficient c7g.xlarge capacity in the Availability Zone you requested"
            " (us-east-1a). Launching EC2 instance failed.",
            "capacity",
            "c7g.xlarge",
        ),
        (
            "Could not launch Spot Instances. UnfulfillableCapacity - Unable to fulfill capacity due to your request"
            " configuration. Please adjust your request and try again. Launching EC2 instance failed.",
            "capacity",
            "",
        ),
        (
            "Your requested instance type (m7i-flex.2xlarge) is not supported in your requested Availability Zone"
            " (us-east-1e). Launching EC2 instance failed.",
            "capacity",
            "m7i-flex.2xlarge",
        ),
        (
            "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count exceeded."
            " Launching EC2 instance failed.",
            "quota",
            "",
        ),
        (
            "You have requested more vCPU capacity than your current vCPU limit of 5 allows for the instance bucket"
            " that the specified instance type belongs to. Launching EC2 instance failed.",
            "quota",
            "",
        ),
        (
            "The image id '[ami-0123]' does not exist. Launching EC2 instance failed.",
            "fault",
            "",
        ),
    ],
)
def test_messages_of_failed_launches_are_classified(text: str, kind: str, type: str) -> None:
    found = launch_refusal(SPOT, text, 1.0)
    assert (found.kind, found.type, found.text) == (kind, type, text)
