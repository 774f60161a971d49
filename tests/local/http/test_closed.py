"""Access control of the embedded AWS: its owner, and tasks with the credentials of their role."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from dask_starburst.errors import LocalAWSError
from dask_starburst.local import LocalAWS, endpoints
from dask_starburst.local.backend.keys import TOKEN_HEADER, Keys
from dask_starburst.local.http.authorize import Authorizer
from dask_starburst.local.http.protocols import Protocol, ServiceError
from tests.local.conftest import Clients, Stack, code_of, wait_for

NOW = 2_000_000_000.0
KEYS = Keys()
ROLE = "arn:aws:iam::123456789012:role/sb-task"
HOST = "127.0.0.1:4566"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def session(key: str, secret: str, token: str | None = None) -> boto3.Session:
    return boto3.Session(key, secret, token, region_name="us-east-1")


def environ_of(
    credentials: Credentials, service: str, body: bytes = b"", at: float = NOW, path: str = "/", **headers: str
) -> dict[str, Any]:
    """Return the environ of a POST signed by botocore at a time."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = AWSRequest("POST", f"http://{HOST}{path}", {"Host": HOST, **names}, body)
    signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(credentials, service, "us-east-1")
    request.context["timestamp"] = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(at))
    signer._modify_request_before_signing(request)
    text = signer.string_to_sign(request, signer.canonical_request(request))
    signer._inject_signature_to_request(request, signer.signature(text, request))
    sent = {f"HTTP_{name.upper().replace('-', '_')}": str(value) for name, value in request.headers.items()}
    return {"REQUEST_METHOD": "POST", "REQUEST_URI": path, "QUERY_STRING": path.partition("?")[2], **sent}


def refusal(protocol: Protocol, environ: dict[str, Any], body: bytes = b"") -> ServiceError | None:
    return Authorizer(KEYS, lambda: NOW).refusal(protocol, environ, body)


def of_role(until: float = NOW + 1) -> Credentials:
    made = KEYS.of_role(ROLE, until)
    return Credentials(made.access_key, made.secret_key, made.token)


OWNER = Credentials(KEYS.owner.access_key, KEYS.owner.secret_key)
SERVICES: list[tuple[Protocol, str]] = [("json", "ecs"), ("query", "autoscaling"), ("ec2", "ec2"), ("s3", "s3")]


@pytest.mark.parametrize(("protocol", "service"), SERVICES)
def test_the_owner_and_a_role_are_accepted_until_the_role_s_credentials_expire(
    protocol: Protocol, service: str
) -> None:
    body = b"Action=DescribeVpcs"
    assert refusal(protocol, environ_of(OWNER, service, body), body) is None
    assert refusal(protocol, environ_of(of_role(), service, body), body) is None
    ended = refusal(protocol, environ_of(of_role(NOW), service, body), body)
    assert ended is not None
    assert ended.code == {"json": "ExpiredTokenException", "ec2": "RequestExpired"}.get(protocol, "ExpiredToken")


@pytest.mark.parametrize(("protocol", "service"), SERVICES)
def test_a_signature_outside_the_allowed_clock_skew_is_refused(protocol: Protocol, service: str) -> None:
    minutes = 15 if protocol in ("ec2", "s3") else 5
    code = {"json": "InvalidSignatureException", "ec2": "RequestExpired", "s3": "RequestTimeTooSkewed"}
    for sign in (-1, 1):
        assert refusal(protocol, environ_of(OWNER, service, at=NOW + sign * minutes * 60)) is None
        refused = refusal(protocol, environ_of(OWNER, service, at=NOW + sign * (minutes * 60 + 1)))
        assert refused is not None
        assert refused.code == code.get(protocol, "SignatureDoesNotMatch")


def test_a_body_header_or_path_changed_after_signing_is_refused() -> None:
    signed = environ_of(OWNER, "ecs", b"{}", X_Amz_Target="ECS.ListClusters")
    assert refusal("json", signed, b"{}") is None
    changes: list[tuple[dict[str, str], bytes]] = [
        ({}, b"{ }"),
        ({"HTTP_X_AMZ_TARGET": "ECS.DeleteCluster"}, b"{}"),
        ({"HTTP_HOST": "localhost:4566"}, b"{}"),
        ({"REQUEST_URI": "/?Action=DeleteCluster"}, b"{}"),
        ({"REQUEST_METHOD": "PUT"}, b"{}"),
    ]
    for changed, body in changes:
        refused = refusal("json", {**signed, **changed}, body)
        assert refused is not None, changed
        assert refused.code == "InvalidSignatureException"
    more = refusal("json", {**signed, "HTTP_X_AMZ_SECURITY_TOKEN": "t"}, b"{}")
    assert more is not None
    refused = refusal("s3", environ_of(OWNER, "s3", b"one"), b"two")
    assert refused is not None
    assert refused.code == "XAmzContentSHA256Mismatch"


def test_a_token_of_another_role_or_server_or_with_a_later_expiry_is_refused() -> None:
    mine, other = of_role(), Keys().of_role(ROLE, NOW + 1)
    later = KEYS.of_role(ROLE, NOW).token
    forged = [
        Credentials(mine.access_key, mine.secret_key),
        Credentials(mine.access_key, mine.secret_key, KEYS.of_role(f"{ROLE}-2", NOW + 1).token),
        Credentials(other.access_key, other.secret_key, other.token),
        Credentials(mine.access_key, mine.secret_key, f"x{later}"),
        Credentials(OWNER.access_key, OWNER.secret_key, mine.token),
    ]
    for credentials in forged:
        refused = refusal("query", environ_of(credentials, "sts"))
        assert refused is not None
        assert refused.code == "InvalidClientTokenId"


@pytest.mark.parametrize(
    "header",
    [
        "AWS4-HMAC-SHA256 Credential=k/20330518/us-east-1/ecs/aws4_request, Signature=0",
        "AWS4-HMAC-SHA256 Credential=k/20330518/ecs, SignedHeaders=host, Signature=0",
        "AWS4-HMAC-SHA256",
    ],
)
def test_an_incomplete_authorization_is_refused(header: str) -> None:
    environ = {**environ_of(OWNER, "ecs"), "HTTP_AUTHORIZATION": header}
    refused = refusal("json", environ)
    assert refused is not None
    assert refused.code == "IncompleteSignatureException"
    assert "{}" not in refused.message


@pytest.mark.parametrize(
    ("service", "operation", "codes", "statuses"),
    [
        ("ecs", "list_clusters", ("UnrecognizedClientException", "InvalidSignatureException"), (400, 400)),
        ("ecr", "describe_repositories", ("UnrecognizedClientException", "InvalidSignatureException"), (400, 400)),
        ("autoscaling", "describe_auto_scaling_groups", ("InvalidClientTokenId", "SignatureDoesNotMatch"), (403, 403)),
        ("iam", "list_users", ("InvalidClientTokenId", "SignatureDoesNotMatch"), (403, 403)),
        ("ec2", "describe_vpcs", ("AuthFailure", "AuthFailure"), (401, 401)),
        ("s3", "list_buckets", ("InvalidAccessKeyId", "SignatureDoesNotMatch"), (403, 403)),
    ],
)
def test_an_unknown_key_or_a_wrong_secret_is_refused_with_the_error_of_the_service(
    aws: LocalAWS, service: str, operation: str, codes: tuple[str, str], statuses: tuple[int, int]
) -> None:
    own = aws.environment
    before = aws.status().calls
    for key, secret, code, status in zip(
        ("AKIATESTING", own["AWS_ACCESS_KEY_ID"]), ("testing", "testing"), codes, statuses, strict=True
    ):
        client = session(key, secret).client(service, endpoint_url=aws.endpoint_url)
        with pytest.raises(ClientError) as error:
            getattr(client, operation)()
        assert code_of(error) == code
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        assert error.value.response["ResponseMetadata"]["RetryAttempts"] == 0
    assert aws.status().calls == before, "a refused call must not use up a fault or a rate limit"


def test_keys_from_iam_and_sts_are_accepted_until_they_are_deactivated(aws: LocalAWS, clients: Clients) -> None:
    def ask(*credentials: str) -> str:
        sts = session(*credentials).client("sts", endpoint_url=aws.endpoint_url)
        arn: str = sts.get_caller_identity()["Arn"]
        return arn

    clients.iam.create_user(UserName="mate")
    key = clients.iam.create_access_key(UserName="mate")["AccessKey"]
    assert ask(key["AccessKeyId"], key["SecretAccessKey"]).endswith("/mate")
    clients.iam.update_access_key(UserName="mate", AccessKeyId=key["AccessKeyId"], Status="Inactive")
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        ask(key["AccessKeyId"], key["SecretAccessKey"])
    made = clients.sts.assume_role(RoleArn=ROLE, RoleSessionName="session")["Credentials"]
    assert "assumed-role" in ask(made["AccessKeyId"], made["SecretAccessKey"], made["SessionToken"])
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        ask(made["AccessKeyId"], made["SecretAccessKey"], "another")


def test_the_signing_variants_of_s3_are_accepted(aws: LocalAWS) -> None:
    s3 = aws.session().client("s3", config=Config(signature_version="s3v4"))
    s3.create_bucket(Bucket="closed")
    for name in ("a b/ü+~.txt", "x//y", "q?r=s&t"):
        s3.put_object(Bucket="closed", Key=name, Body=b"hello")
        assert s3.get_object(Bucket="closed", Key=name)["Body"].read() == b"hello"
    s3.upload_fileobj(io.BytesIO(b"x" * (9 << 20)), "closed", "in-parts")
    unsigned = aws.session().client("s3", config=Config(s3={"payload_signing_enabled": False}))
    unsigned.put_object(Bucket="closed", Key="unsigned", Body=b"hello")
    where = {"Bucket": "closed", "Key": "a b/ü+~.txt"}
    url = s3.generate_presigned_url("get_object", Params=where)
    with OPENER.open(url, timeout=90) as reply:
        assert reply.read() == b"hello"
    put = s3.generate_presigned_url("put_object", Params={**where, "Key": "put"})
    OPENER.open(urllib.request.Request(put, b"there", {"Content-Type": ""}, method="PUT"), timeout=90).close()
    assert s3.get_object(Bucket="closed", Key="put")["Body"].read() == b"there"
    for wrong in (url.replace("txt", "exe"), url.partition("?")[0]):
        assert status_of(wrong) == 403


def status_of(url: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    try:
        with OPENER.open(urllib.request.Request(url, body, headers or {}, method=method), timeout=90) as reply:
            status, answered = int(reply.status), reply.headers
    except urllib.error.HTTPError as error:
        status, answered = error.code, error.headers
    assert not [name for name in answered if name.lower().startswith("access-control")]
    return status


PATHS = ["/", "/_local/status", "/_local/shutdown", "/moto-api/data.json", "/v2/", "/checkip/x", "/imds/i-0/latest/"]


@pytest.mark.parametrize("path", PATHS)
def test_a_web_page_or_another_host_name_is_refused_even_with_the_token(aws: LocalAWS, path: str) -> None:
    token = {TOKEN_HEADER: endpoints.read(aws.endpoint_url).token}
    port = urlsplit(aws.endpoint_url).port
    pages: list[dict[str, str]] = [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": aws.endpoint_url},
        {"Sec-Fetch-Site": "none"},
        {"Host": f"evil.example:{port}"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
    ]
    for method in ("GET", "POST", "OPTIONS"):
        for page in pages:
            assert status_of(aws.endpoint_url + path, method, b"{}", {**token, **page}) == 403, page
    assert aws.status().pid == aws.pid


def test_a_web_page_cannot_smuggle_a_second_request_in_a_body(aws: LocalAWS) -> None:
    where = urlsplit(aws.endpoint_url)
    hidden = f"POST /_local/shutdown HTTP/1.1\r\nHost: {where.netloc}\r\n{TOKEN_HEADER}: "
    hidden += f"{endpoints.read(aws.endpoint_url).token}\r\nContent-Length: 2\r\n\r\n{{}}"
    head = f"POST / HTTP/1.1\r\nHost: {where.netloc}\r\nOrigin: null\r\nContent-Length: {len(hidden)}\r\n\r\n"
    last = f"GET /checkip/x HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((where.hostname or "", where.port or 0), 10) as connection:
        connection.sendall((head + hidden + last).encode())
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    assert [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", said)] == [403, 404]


def test_a_signed_request_from_a_web_page_is_refused_too(aws: LocalAWS) -> None:
    client = aws.session().client("ecs")
    client.meta.events.register("before-sign", lambda request, **_: request.headers.add_header("Origin", "null"))
    with pytest.raises(ClientError) as error:
        client.list_clusters()
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403


def test_the_control_api_requires_the_token(aws: LocalAWS) -> None:
    for path in ("_local/status", "_local/shutdown", "_local/faults", "moto-api/data.json", "moto-api/reset"):
        for method in ("GET", "POST"):
            assert status_of(f"{aws.endpoint_url}/{path}", method, b"{}") == 403, path
            assert status_of(f"{aws.endpoint_url}/{path}", method, b"{}", {TOKEN_HEADER: "0" * 64}) == 403, path
    token = {TOKEN_HEADER: endpoints.read(aws.endpoint_url).token}
    assert status_of(f"{aws.endpoint_url}/_local/status", headers=token) == 200


def test_the_metadata_urls_of_a_task_cannot_be_guessed(aws: LocalAWS, warm: Stack) -> None:
    instance_id = warm.members[0]["InstanceId"]
    task = warm.start(warm.definition(taskRoleArn=ROLE)).rsplit("/", 1)[-1]
    assert status_of(aws.private_url("credentials", task)) == status_of(aws.private_url("ecs/v4", task)) == 200
    assert status_of(aws.private_url("agent", instance_id) + "/v1/metadata") == 200
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    assert status_of(aws.private_url("imds", instance_id) + "/latest/api/token", "PUT", headers=ttl) == 200
    secret = urlsplit(aws.private_url("credentials", instance_id)).path.rpartition(".")[2]  # of another URL
    for kind, id, rest in (
        ("credentials", task, ""),
        ("ecs/v4", task, ""),
        ("ecs/v4", task, "/task"),
        ("agent", instance_id, "/v1/metadata"),
        ("imds", instance_id, "/latest/api/token"),
        ("checkip", "caller", ""),
    ):
        for guess in (id, f"{id}.", f"{id}.{secret}", f"{id}.{'0' * 32}", f".{secret}"):
            assert status_of(f"{aws.endpoint_url}/{kind}/{guess}{rest}", "PUT", headers=ttl) == 404, (kind, guess)


def test_a_task_has_the_credentials_of_its_role_and_not_the_owner_s(aws: LocalAWS, warm: Stack) -> None:
    program = (
        "import boto3, json, os\n"
        "c = boto3.Session().get_credentials().get_frozen_credentials()\n"
        "ok = boto3.client('ecs').list_clusters()['ResponseMetadata']['HTTPStatusCode']\n"
        "print(json.dumps([c.access_key, c.secret_key, ok, dict(os.environ)]))\n"
    )
    arn = warm.start(warm.definition([sys.executable, "-c", program], taskRoleArn=ROLE))
    warm.reaches(arn, "STOPPED", 30)
    key, secret, ok, environment = json.loads(wait_for(lambda: warm.lines(arn))[0])
    assert (key[:4], ok) == ("ASIA", 200)
    own = endpoints.read(aws.endpoint_url)
    for hidden in (aws.environment["AWS_ACCESS_KEY_ID"], aws.environment["AWS_SECRET_ACCESS_KEY"], own.token):
        assert hidden not in json.dumps([secret, environment])


def test_the_token_file_is_readable_only_by_its_owner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    open_to_all = tmp_path / "dask-starburst" / "local"
    open_to_all.mkdir(parents=True)
    open_to_all.chmod(0o777)
    made = endpoints.Endpoint("http://127.0.0.1:2", os.getpid(), "us-east-1", "0" * 64)
    endpoints.write(made)
    assert stat.S_IMODE(open_to_all.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in open_to_all.iterdir()] == [0o600]
    assert endpoints.read("http://localhost:2/") == made
    monkeypatch.setenv("XDG_STATE_HOME", os.devnull)
    with pytest.raises(LocalAWSError, match="XDG_STATE_HOME"):
        endpoints.write(made)
    if os.geteuid() == 0:
        os.chown(open_to_all, 65534, 65534)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        with pytest.raises(LocalAWSError, match="belongs to another user"):
            endpoints.read(made.url)


INTRUDER = """
import json, os, sys, urllib.request, urllib.error
os.setgroups([]); os.setgid(65534); os.setuid(65534)
found = {}
def ask(name, url, method="GET", headers={}):
    try:
        found[name] = urllib.request.urlopen(urllib.request.Request(url, b"{}" if method == "POST" else None, headers,
            method=method), timeout=90).status
    except urllib.error.HTTPError as error:
        found[name] = error.code
def read(path):
    try:
        found[path] = open(path).read()
    except OSError as error:
        found[path] = type(error).__name__
url, files = sys.argv[1], sys.argv[2:]
for path in ("_local/status", "imds/i-0/latest/meta-data/", "credentials/0", "checkip/caller", "v2/", ""):
    ask(path, f"{url}/{path}")
ask("shutdown", f"{url}/_local/shutdown", "POST")
scope = "AWS4-HMAC-SHA256 Credential=testing/20301231/us-east-1/ecs/aws4_request, SignedHeaders=host, Signature=0"
ask("run", url, "POST", {"Authorization": scope, "X-Amz-Target": "AmazonEC2ContainerServiceV20141113.RunTask",
    "X-Amz-Date": "20301231T000000Z", "Content-Type": "application/x-amz-json-1.1"})
for path in files:
    read(path)
print(json.dumps(found))
"""


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_computer_has_no_access(aws: LocalAWS, warm: Stack) -> None:
    task = warm.start(warm.definition(taskRoleArn=ROLE)).rsplit("/", 1)[-1]
    process = aws.status().containers[f"{task}/main"]
    files = [str(endpoints.folder() / f"{urlsplit(aws.endpoint_url).port}.json"), f"/proc/{process}/environ"]
    files += [f"/proc/{aws.pid}/environ", f"/proc/{process}/cwd/x"]
    ran = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", INTRUDER, aws.endpoint_url, *files], check=True, capture_output=True, text=True
    )
    found = json.loads(ran.stdout)
    assert found.pop("v2/") == 401
    assert {found.pop(file) for file in files} == {"PermissionError"}
    assert set(found.values()) <= {400, 403, 404}, found
    assert aws.status().pid == aws.pid


def test_connecting_to_another_user_s_server_is_refused(aws: LocalAWS, tmp_path: Path) -> None:
    program = "import sys; from dask_starburst.local import LocalAWS; LocalAWS.connect(sys.argv[1])"
    elsewhere = subprocess.run(
        [sys.executable, "-c", program, aws.endpoint_url],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "Only the user who started it can use it" in elsewhere.stderr
    assert str(tmp_path) in elsewhere.stderr
    endpoints.write(endpoints.Endpoint("http://127.0.0.1:1", os.getpid(), "us-east-1", "0" * 64))
    with pytest.raises(LocalAWSError, match="No embedded AWS answers"):
        LocalAWS.connect("http://127.0.0.1:1")
    endpoints.forget("http://127.0.0.1:1", os.getpid())
