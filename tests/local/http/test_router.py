"""The router of the embedded AWS: counts, faults, throttling, routes, the clock, and the end of the process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from dask_starburst.local import LocalAWS, endpoints
from dask_starburst.local.backend.clock import Clock
from dask_starburst.local.backend.keys import TOKEN_HEADER
from dask_starburst.local.backend.timing import PROFILES, Timing
from dask_starburst.local.http.router import recognise
from dask_starburst.local.http.throttle import BUCKET_OF, LIMITS, Throttle
from tests.local.conftest import Clients, Stack, code_of, wait_for
from tests.support.cluster_asserts import alive

SCOPE = "AWS4-HMAC-SHA256 Credential=k/20261123/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=0"


def impatient(aws: LocalAWS, service: str) -> Any:
    """Return a client that does not retry."""
    return aws.session().client(service, config=Config(retries={"total_max_attempts": 1}))


def post(aws: LocalAWS, path: str, document: Any) -> Any:
    url, headers = f"{aws.endpoint_url}/_local/{path}", {TOKEN_HEADER: endpoints.read(aws.endpoint_url).token}
    request = urllib.request.Request(url, json.dumps(document).encode(), headers, method="POST")
    with urllib.request.urlopen(request, timeout=90) as reply:
        return json.loads(reply.read())


@pytest.mark.parametrize(
    ("environ", "body", "call"),
    [
        ({"HTTP_AUTHORIZATION": SCOPE.format("ecs"), "HTTP_X_AMZ_TARGET": "AmazonEC2X.RunTask"}, b"{}", "ecs:RunTask"),
        (
            {
                "HTTP_AUTHORIZATION": SCOPE.format("ec2"),
                "CONTENT_TYPE": "application/x-www-form-urlencoded; charset=utf-8",
            },
            b"Action=DescribeVpcs&Version=2016-11-15",
            "ec2:DescribeVpcs",
        ),
        ({"HTTP_AUTHORIZATION": SCOPE.format("s3"), "REQUEST_METHOD": "PUT"}, b"", "s3:PUT"),
    ],
    ids=["json", "ec2", "s3"],
)
def test_a_call_is_identified_by_its_signature(environ: dict[str, str], body: bytes, call: str) -> None:
    assert str(recognise(environ, body)) == call


def test_calls_are_counted_by_action(aws: LocalAWS, clients: Clients) -> None:
    before = aws.status().calls.get("ec2:DescribeKeyPairs", 0)
    clients.ec2.describe_key_pairs()
    assert aws.status().calls["ec2:DescribeKeyPairs"] == before + 1


@pytest.mark.parametrize(
    ("service", "operation", "code", "status"),
    [
        ("ecs", "list_clusters", "AccessDeniedException", 400),
        ("autoscaling", "describe_auto_scaling_groups", "ScalingActivityInProgress", 400),
        ("ec2", "describe_vpcs", "UnauthorizedOperation", 403),
        ("ec2", "describe_subnets", "InsufficientInstanceCapacity", 500),
        ("iam", "list_roles", "AccessDenied", 403),
        ("logs", "describe_log_groups", "ThrottlingException", 400),
    ],
)
def test_an_injected_error_has_the_format_of_the_service(
    aws: LocalAWS, service: str, operation: str, code: str, status: int
) -> None:
    client = impatient(aws, service)
    action = client.meta.method_to_api_mapping[operation]
    aws.inject(f"{service}:{action}", code, "so it is < said", status=status)
    with pytest.raises(ClientError) as error:
        getattr(client, operation)()
    assert code_of(error) == code
    assert error.value.response["Error"]["Message"] == "so it is < said"
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    getattr(client, operation)()


def test_an_unimplemented_action_is_a_400_that_is_not_retried(aws: LocalAWS, clients: Clients) -> None:
    calls = {
        "ecs:CreateService": lambda: clients.ecs.create_service(serviceName="s", taskDefinition="t"),
        "autoscaling:StartInstanceRefresh": lambda: clients.autoscaling.start_instance_refresh(
            AutoScalingGroupName="g"
        ),
        "ec2:GetCapacityReservationUsage": lambda: clients.ec2.get_capacity_reservation_usage(
            CapacityReservationId="cr-0"
        ),
        "ec2:StopInstances": lambda: clients.ec2.stop_instances(InstanceIds=["i-0"]),
        "ssm:ListNodes": lambda: clients.ssm.list_nodes(),
    }
    for action, call in calls.items():
        with pytest.raises(ClientError) as error:
            call()
        assert code_of(error) in ("UnknownOperationException", "InvalidAction"), action
        assert error.value.response["ResponseMetadata"]["RetryAttempts"] == 0, action
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400, action


def call_often(call: Callable[[], Any]) -> None:
    for _ in range(400):
        call()


def test_calls_are_throttled_like_ecs_once_throttling_is_on(aws: LocalAWS) -> None:
    client = impatient(aws, "ecs")
    before = aws.status().throttled
    post(aws, "throttle", {"on": True})
    try:
        with pytest.raises(ClientError) as error:
            # Its bucket refills slowly enough for a busy computer.
            call_often(lambda: client.create_cluster(clusterName="often"))
    finally:
        post(aws, "throttle", {"on": False})
    assert code_of(error) == "ThrottlingException"
    assert aws.status().throttled == before + 1


def test_a_bucket_refills_and_is_shared() -> None:
    now = [0.0]
    throttle = Throttle(lambda: now[0])
    throttle.enabled = True
    limit = LIMITS[BUCKET_OF["ecs:RunTask"]]
    assert all(throttle.admit("ecs:RunTask") for _ in range(int(limit.burst)))
    assert not throttle.admit("ecs:StopTask")
    assert throttle.admit("ecs:DescribeTasks")
    now[0] += 1.0
    assert [throttle.admit("ecs:StopTask") for _ in range(41)].count(True) == limit.refill


def test_ec2_has_a_bucket_for_each_action() -> None:
    throttle = Throttle(lambda: 0.0)
    throttle.enabled = True
    assert [throttle.admit("ec2:RunInstances") for _ in range(6)].count(True) == 5
    assert [throttle.admit("ec2:DescribeInstances") for _ in range(101)].count(True) == 100
    assert [throttle.admit("ec2:DescribeVpcs") for _ in range(101)].count(True) == 100
    assert [throttle.admit("ec2:CreateSecurityGroup") for _ in range(51)].count(True) == 50
    assert all(throttle.admit("iam:CreateRole") for _ in range(1000))


def test_calls_can_be_delayed() -> None:
    with LocalAWS(latency=(0.3, 0.3)) as slow:
        client = impatient(slow, "ecs")
        begin = time.monotonic()
        client.list_clusters()
        assert time.monotonic() - begin >= 0.3


def test_responses_have_the_date_of_the_virtual_clock(aws: LocalAWS) -> None:
    client = impatient(aws, "ecs")
    aws.advance(7200.0)
    headers = client.list_clusters()["ResponseMetadata"]["HTTPHeaders"]
    assert abs(parsedate_to_datetime(headers["date"]).timestamp() - aws.now()) < 60


def test_the_control_api_refuses_unknown_requests(aws: LocalAWS) -> None:
    for path, document in (
        ("storm", {}),
        ("faults", {}),
        ("clock", {"advance": -1}),
        ("faults", {"events": [{"kind": "hail"}]}),
    ):
        with pytest.raises(urllib.error.HTTPError) as error:
            post(aws, path, document)
        assert error.value.code == 400


def test_a_caller_can_read_its_own_address(aws: LocalAWS) -> None:
    with urllib.request.urlopen(aws.private_url("checkip", "me"), timeout=90) as reply:
        assert reply.read().decode().strip() == "127.0.0.1"


def test_an_instance_can_read_its_metadata(aws: LocalAWS, stack: Stack) -> None:
    stack.group(size=1)
    instance_id = stack.in_service(1)[0]["InstanceId"]
    base = f"{aws.private_url('imds', instance_id)}/latest"
    seconds = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    put = urllib.request.Request(f"{base}/api/token", method="PUT", headers=seconds)
    with urllib.request.urlopen(put, timeout=90) as reply:
        token = reply.read().decode()
    ask = urllib.request.Request(f"{base}/meta-data/local-ipv4", headers={"X-aws-ec2-metadata-token": token})
    with urllib.request.urlopen(ask, timeout=90) as reply:
        address = reply.read().decode()
    shown = stack.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]
    assert address == shown["PrivateIpAddress"]
    assert address.startswith(aws.network.rsplit(".", 2)[0])


def serve(*options: str) -> tuple[subprocess.Popen[bytes], LocalAWS]:
    pipe = subprocess.PIPE
    server = subprocess.Popen([sys.executable, "-m", "dask_starburst.local", *options], stdin=pipe, stdout=pipe)
    assert server.stdout is not None
    handshake = json.loads(server.stdout.readline())
    assert handshake["pid"] == server.pid
    return server, LocalAWS.connect(handshake["endpoint_url"])


def test_the_server_ends_with_its_standard_input_and_kills_what_it_started() -> None:
    server, aws = serve("--speed", "5")
    assert server.stdin is not None
    assert server.stdout is not None
    stack = Stack(Clients(aws))
    stack.group(size=1)
    stack.cluster()
    stack.connected(1)
    stack.start(stack.definition())
    (pid,) = aws.status().containers.values()
    server.stdin.close()
    assert server.wait(10) == 0
    assert server.stdout.read() == b""
    wait_for(lambda: not alive(pid))


@pytest.mark.parametrize("ending", ["SIGTERM", "shutdown"])
def test_a_persistent_server_ends_on_request(ending: str) -> None:
    server, aws = serve("--stay")
    assert server.stdin is not None
    server.stdin.close()
    if ending == "SIGTERM":
        server.send_signal(signal.SIGTERM)
    else:
        post(aws, "shutdown", {})
    assert server.wait(10) == 0


def test_the_clock_runs_at_its_speed_and_never_goes_back() -> None:
    clock = Clock(speed=1000.0)
    first = clock.now()
    wait_for(lambda: clock.now() - first > 50)
    clock.set_speed(0.001)
    held = clock.now()
    clock.advance(100.0)
    assert 100.0 <= clock.now() - held < 101.0
    for wrong in (lambda: clock.advance(-1), lambda: clock.set_speed(0)):
        with pytest.raises(ValueError, match="clock"):
            wrong()


def test_realistic_steps_are_drawn_reproducibly() -> None:
    draws = [[Timing("realistic", seed).seconds("boot") for _ in range(20)] for seed in (1, 1, 2)]
    first, again, other = draws
    assert first == again != other
    timing = Timing("realistic", 1)
    assert all(timing.seconds(step) > 0 for step in PROFILES["realistic"])


def test_an_additional_step_of_one_kind_does_not_change_another() -> None:
    one, other = Timing("realistic"), Timing("realistic")
    one.seconds("pull")
    assert one.seconds("boot") == other.seconds("boot")


def test_the_profile_none_has_no_latencies() -> None:
    assert {Timing("none").seconds(step) for step in PROFILES["realistic"]} == {0.0}
