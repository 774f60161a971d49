"""The AWS client: pagination and rate limits."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError

from dask_starburst.aws.session import AWS
from dask_starburst.cancellation import together
from dask_starburst.errors import StarburstError
from dask_starburst.local import LocalAWS
from dask_starburst.plan.requests.rate_limits import LIMITS, SHARE


def test_every_page_of_a_listing_is_read_and_counted(clean: LocalAWS) -> None:
    ssm = clean.client("ssm")
    names = {f"/pages/{n:02}" for n in range(25)}
    for name in names:
        ssm.put_parameter(Name=name, Value="x", Type="String")
    aws = AWS(endpoint_url=clean.endpoint_url, session=clean.session())
    found = asyncio.run(aws.pages("ssm", "GetParametersByPath", "Parameters", Path="/pages"))
    aws.close()
    ssm.delete_parameters(Names=sorted(names)[:10])
    ssm.delete_parameters(Names=sorted(names)[10:20])
    ssm.delete_parameters(Names=sorted(names)[20:])
    assert {p["Name"] for p in found} == names
    assert aws.calls["ssm:GetParametersByPath"] == 3  # ten per page


def test_calls_beyond_a_burst_wait_instead_of_being_throttled(clean: LocalAWS) -> None:
    aws = AWS(endpoint_url=clean.endpoint_url, session=clean.session())
    limit = LIMITS["ssm modify"]
    calls = 6

    async def write() -> None:
        names = (f"/rate/{n}" for n in range(calls))
        await asyncio.gather(*(aws.call("ssm", "PutParameter", Name=name, Value="x", Type="String") for name in names))

    start = time.monotonic()
    asyncio.run(write())
    aws.close()
    clean.client("ssm").delete_parameters(Names=[f"/rate/{n}" for n in range(calls)])
    assert time.monotonic() - start >= (calls - limit.burst) / (limit.refill * SHARE)


def test_a_call_that_fails_after_its_caller_was_cancelled_leaves_no_warning() -> None:
    """Of two concurrent calls the first failure cancels the other, whose own failure arrives later."""
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1")
    aws, cancelled, warnings = AWS(session=session), threading.Event(), list[str]()

    def fail(model: Any, **_: Any) -> None:
        if model.name == "ListQueues":
            cancelled.wait(30)
        raise EndpointConnectionError(endpoint_url=model.name)

    session.events.register("before-call", fail)

    async def work() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: warnings.append(context["message"]))
        with pytest.raises(StarburstError):
            await together(aws.call("sts", "GetCallerIdentity"), aws.call("sqs", "ListQueues"))
        cancelled.set()
        await aws.wait_for_calls(30)
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(work())
    aws.close()
    gc.collect()
    assert warnings == []
