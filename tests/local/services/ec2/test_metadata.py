"""Instance and task metadata over HTTP, also through botocore's fetchers."""

from __future__ import annotations

import dataclasses
import json
import threading
import urllib.request
from collections.abc import Iterator
from urllib.error import HTTPError
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from botocore.credentials import ContainerProvider
from botocore.utils import IMDSRegionProvider, InstanceMetadataFetcher

from dask_starburst.local.backend.keys import Keys
from dask_starburst.local.services.ec2.metadata import InstanceMetadata, MetadataApp, TaskMetadata

INSTANCE = InstanceMetadata(
    instance_id="i-0a",
    instance_type="c7g.xlarge",
    region="us-west-2",
    zone="us-west-2a",
    private_ip="127.64.0.4",
    public_ip="127.64.0.4",
    image_id="ami-0123",
    account_id="123456789012",
    role_name="sb-instance",
    lifecycle="spot",
    tags={"sb:cluster": "k", "Name": "worker"},
)
TASK = TaskMetadata(
    arn="arn:aws:ecs:us-west-2:123456789012:task/k/0123abcd",
    cluster="k",
    family="sb-worker",
    revision=3,
    container="worker",
    image="123456789012.dkr.ecr.us-west-2.amazonaws.com/sb@sha256:00",
    cpu=4096,
    memory=7000,
    zone="us-west-2a",
    role_arn="arn:aws:iam::123456789012:role/sb-task",
    instance_id="i-0a",
    started=1_700_000_000.0,
    log_group="/sb",
    log_stream="worker/0123abcd",
)


KEYS = Keys()


class FakeBackend:
    """A backend with two instances and two tasks, whose time the test sets."""

    def __init__(self) -> None:
        self.instances = {"i-0a": INSTANCE, "i-0b": dataclasses.replace(INSTANCE, instance_id="i-0b")}
        self.tasks = {"0123abcd": TASK, "norole": dataclasses.replace(TASK, role_arn=None, started=None)}
        self.time = 2_000_000_000.0
        self.url = ""

    def instance(self, id: str) -> InstanceMetadata | None:
        return self.instances.get(id)

    def task(self, id: str) -> TaskMetadata | None:
        return self.tasks.get(id)

    def now(self) -> float:
        return self.time

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.url + path, method=method, headers=given)
        try:
            with OPENER.open(request, timeout=90) as reply:
                return reply.status, reply.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()

    def token(self, instance: str = "i-0a", ttl: str = "60") -> str:
        status, token = self.ask(f"/imds/{instance}/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds=ttl)
        assert status == 200
        return token

    def imds(self, path: str, instance: str = "i-0a", token: str | None = None) -> tuple[int, str]:
        token = self.token(instance) if token is None else token
        return self.ask(f"/imds/{instance}/latest/{path}", X_aws_ec2_metadata_token=token)


class Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    made = FakeBackend()
    with make_server("127.0.0.1", 0, MetadataApp(made, KEYS, made.now), handler_class=Silent) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def test_without_a_token_there_is_no_metadata(backend: FakeBackend) -> None:
    assert backend.ask("/imds/i-0a/latest/meta-data/instance-id") == (401, "")
    assert backend.imds("meta-data/instance-id", token="made up")[0] == 401
    assert backend.imds("meta-data/instance-id", token="bWFkZSB1cA==")[0] == 401


@pytest.mark.parametrize("ttl", ["", "0", "-1", "21601", "abc", "1.5", "٣"])
def test_a_token_has_a_lifetime_of_at_most_six_hours(backend: FakeBackend, ttl: str) -> None:
    ttl = ttl.encode().decode("latin-1")
    path = "/imds/i-0a/latest/api/token"
    assert backend.ask(path, "PUT", X_aws_ec2_metadata_token_ttl_seconds=ttl)[0] == 400


def test_a_token_without_any_lifetime_is_refused(backend: FakeBackend) -> None:
    assert backend.ask("/imds/i-0a/latest/api/token", "PUT")[0] == 400


def test_a_token_requires_a_put_request(backend: FakeBackend) -> None:
    for method in ("GET", "POST", "DELETE"):
        assert backend.ask("/imds/i-0a/latest/api/token", method)[0] == 405


def test_a_forwarded_request_gets_no_token(backend: FakeBackend) -> None:
    headers = {"X_aws_ec2_metadata_token_ttl_seconds": "60", "X_Forwarded_For": "10.0.0.1"}
    assert backend.ask("/imds/i-0a/latest/api/token", "PUT", **headers)[0] == 403


def test_a_token_expires(backend: FakeBackend) -> None:
    token = backend.token(ttl="60")
    backend.time += 59
    assert backend.imds("meta-data/instance-id", token=token) == (200, "i-0a")
    backend.time += 1
    assert backend.imds("meta-data/instance-id", token=token)[0] == 401


def test_the_token_of_another_instance_is_refused(backend: FakeBackend) -> None:
    assert backend.imds("meta-data/instance-id", "i-0b", token=backend.token("i-0a"))[0] == 401


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("instance-id", "i-0a"),
        ("instance-type", "c7g.xlarge"),
        ("local-ipv4", "127.64.0.4"),
        ("public-ipv4", "127.64.0.4"),
        ("ami-id", "ami-0123"),
        ("hostname", "ip-127-64-0-4.us-west-2.compute.internal"),
        ("placement/availability-zone", "us-west-2a"),
        ("placement/region", "us-west-2"),
        ("placement/", "availability-zone\nregion"),
        ("instance-life-cycle", "spot"),
        ("tags/instance/sb:cluster", "k"),
        ("tags/instance", "Name\nsb:cluster"),
        ("iam/security-credentials/", "sb-instance"),
        ("iam", "security-credentials/"),
    ],
)
def test_the_metadata_of_an_instance(backend: FakeBackend, path: str, value: str) -> None:
    assert backend.imds(f"meta-data/{path}") == (200, value)


def test_the_listing_shows_folders_with_a_slash(backend: FakeBackend) -> None:
    status, listing = backend.imds("meta-data/")
    assert status == 200
    assert {"instance-id", "placement/", "iam/", "tags/"} <= set(listing.split("\n"))
    assert "spot/" not in listing


@pytest.mark.parametrize("path", ["meta-data/no-such-thing", "meta-data/instance-id/x", "user-data", "../x"])
def test_an_unknown_path_is_not_found(backend: FakeBackend, path: str) -> None:
    assert backend.imds(path)[0] == 404


def test_another_instance_and_another_path_are_not_found(backend: FakeBackend) -> None:
    assert backend.ask("/imds/i-gone/latest/api/token", "PUT", X_aws_ec2_metadata_token_ttl_seconds="1")[0] == 404
    assert backend.ask("/imds/i-0a")[0] == backend.ask("/")[0] == backend.ask("/ecs/v3/0123abcd")[0] == 404


def test_metadata_that_an_instance_lacks_is_not_found(backend: FakeBackend) -> None:
    backend.instances["i-0a"] = dataclasses.replace(INSTANCE, public_ip=None, role_name=None, tags={})
    for path in ("public-ipv4", "iam/security-credentials/", "tags/instance"):
        assert backend.imds(f"meta-data/{path}")[0] == 404


def test_a_spot_notice_is_not_found_before_it_is_issued(backend: FakeBackend) -> None:
    assert backend.imds("meta-data/spot/instance-action")[0] == 404
    action = {"action": "terminate", "time": "2033-05-18T03:35:20Z"}
    backend.instances["i-0a"] = dataclasses.replace(INSTANCE, instance_action=action)
    status, body = backend.imds("meta-data/spot/instance-action")
    assert (status, json.loads(body)) == (200, action)
    assert backend.imds("meta-data/spot/termination-time") == (200, action["time"])


def test_a_rebalance_recommendation_is_not_found_before_it_is_issued(backend: FakeBackend) -> None:
    assert backend.imds("meta-data/events/recommendations/rebalance")[0] == 404
    notice = {"noticeTime": "2033-05-18T03:33:20Z"}
    backend.instances["i-0a"] = dataclasses.replace(INSTANCE, rebalance=notice)
    status, body = backend.imds("meta-data/events/recommendations/rebalance")
    assert (status, json.loads(body)) == (200, notice)


@pytest.mark.parametrize(
    ("instance_type", "architecture"),
    [
        ("c7g.xlarge", "arm64"),
        ("i4gn.large", "arm64"),
        ("a1.large", "arm64"),
        ("c7i.large", "x86_64"),
        ("g6.xlarge", "x86_64"),
    ],
)
def test_the_identity_document_names_the_architecture(
    backend: FakeBackend, instance_type: str, architecture: str
) -> None:
    backend.instances["i-0a"] = dataclasses.replace(INSTANCE, instance_type=instance_type)
    document = json.loads(backend.imds("dynamic/instance-identity/document")[1])
    assert document["architecture"] == architecture
    assert document["region"] == "us-west-2"
    assert document["accountId"] == "123456789012"


def test_botocore_gets_the_credentials_of_an_instance(backend: FakeBackend) -> None:
    fetcher = InstanceMetadataFetcher(
        timeout=5,
        num_attempts=1,
        base_url=f"{backend.url}/imds/i-0a",
        config={"ec2_metadata_service_endpoint": f"{backend.url}/imds/i-0a", "ec2_metadata_v1_disabled": True},
    )
    credentials = fetcher.retrieve_iam_role_credentials()
    assert credentials["role_name"] == "sb-instance"
    role = "arn:aws:iam::123456789012:role/sb-instance"
    assert credentials["access_key"] == KEYS.of_role(role, 0.0, "i-0a").access_key


def test_botocore_finds_the_region_of_an_instance(backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    import botocore.session

    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"{backend.url}/imds/i-0a")
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    assert IMDSRegionProvider(botocore.session.Session()).provide() == "us-west-2"


def test_botocore_gets_the_credentials_of_a_task(backend: FakeBackend) -> None:
    given = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{backend.url}/credentials/0123abcd"}
    credentials = ContainerProvider(environ=given).load().get_frozen_credentials()
    session = KEYS.session(credentials.token)
    assert session is not None
    assert session.role == "arn:aws:iam::123456789012:role/sb-task"
    assert (session.credentials.access_key, session.credentials.secret_key) == credentials[:2]


def test_a_task_without_a_role_has_no_credentials(backend: FakeBackend) -> None:
    status, body = backend.ask("/credentials/norole")
    assert (status, json.loads(body)["code"]) == (400, "InvalidIdInRequest")


def test_each_role_and_server_has_its_own_keys_in_the_format_of_aws() -> None:
    keys = {made.of_role(role, 1.0).access_key for made in (KEYS, Keys()) for role in ("a", "b")}
    assert len(keys) == 4
    assert all(len(key) == 20 and key.startswith("ASIA") and key.isalnum() for key in keys)


def test_container_metadata_has_the_address_and_the_names(backend: FakeBackend) -> None:
    document = json.loads(backend.ask("/ecs/v4/0123abcd")[1])
    assert document["Name"] == "worker"
    assert document["Networks"] == [{"NetworkMode": "host", "IPv4Addresses": ["127.64.0.4"]}]
    assert document["Limits"] == {"CPU": 4096, "Memory": 7000}
    assert document["Labels"]["com.amazonaws.ecs.task-arn"] == TASK.arn
    assert document["Labels"]["com.amazonaws.ecs.task-definition-version"] == "3"
    assert document["LogOptions"] == {
        "awslogs-group": "/sb",
        "awslogs-region": "us-west-2",
        "awslogs-stream": "worker/0123abcd",
    }
    assert document["ContainerARN"].startswith("arn:aws:ecs:us-west-2:123456789012:container/k/0123abcd/")
    assert len(document["DockerId"]) == 64


def test_task_metadata_describes_the_task_and_its_container(backend: FakeBackend) -> None:
    document = json.loads(backend.ask("/ecs/v4/0123abcd/task")[1])
    [container] = document.pop("Containers")
    assert container == json.loads(backend.ask("/ecs/v4/0123abcd")[1])
    assert document == {
        "Cluster": "k",
        "TaskARN": TASK.arn,
        "Family": "sb-worker",
        "Revision": "3",
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "Limits": {"CPU": 4.0, "Memory": 7000},
        "AvailabilityZone": "us-west-2a",
        "LaunchType": "EC2",
    }


def test_a_task_that_has_not_started_has_no_start_time(backend: FakeBackend) -> None:
    document = json.loads(backend.ask("/ecs/v4/norole")[1])
    assert document["KnownStatus"] == "PENDING"
    assert "StartedAt" not in document


def test_an_unknown_task_has_no_metadata(backend: FakeBackend) -> None:
    assert backend.ask("/ecs/v4/gone")[0] == backend.ask("/ecs/v4/0123abcd/stats")[0] == 404
