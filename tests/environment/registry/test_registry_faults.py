"""Registry authentication, redirects to other hosts, and retries."""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Lock, Thread

import pytest

from benchmarks.harness.images.registry import registry_without_pause, serving, why_no_registry
from dask_starburst.environment.registry import documents
from dask_starburst.environment.registry.auth import is_loopback
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.registry.docker_credentials import stored_credentials
from dask_starburst.errors import ImageError, RegistryDenied, RegistryUnavailable
from tests.support.registry_proxy import Fault, Proxy, proxied
from tests.support.token_server import TokenServer, serving_tokens

BLOB = os.urandom(1_500_000)
DIGEST = documents.digest_of(BLOB)
PASSWORD = "open sesame"
# bcrypt, the only format that the registry supports
_HTPASSWD = "me:$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n"


@pytest.fixture
def repository() -> str:
    return f"test/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def proxied_registry(registry_server: str) -> Iterator[tuple[str, Proxy]]:
    with proxied(registry_server) as found:
        yield found


@pytest.fixture(scope="module")
def password_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with basic authentication."""
    if why := why_no_registry():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("password_registry")
    (folder / "htpasswd").write_text(_HTPASSWD)
    with serving(folder, f'auth: {{htpasswd: {{realm: tests, path: "{folder}/htpasswd"}}}}') as host:
        yield host


@pytest.fixture(scope="module")
def token_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, TokenServer]]:
    """A registry with token authentication, as Docker Hub has, and its token server."""
    if why := why_no_registry():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("token_registry")
    with serving_tokens(folder) as (tokens, more), serving(folder, more) as host:
        yield host, tokens


# -- passwords ------------------------------------------------------------------------------------


def test_a_registry_accepts_valid_credentials(password_registry: str, repository: str):
    registry = registry_without_pause(password_registry, lambda: ("me", PASSWORD))
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.blob(repository, DIGEST) == BLOB


@pytest.mark.parametrize(("credentials", "identity"), [(("me", "wrong"), "as me"), (None, "without credentials")])
def test_missing_or_wrong_credentials_are_an_error_that_says_to_log_in(
    password_registry: str, repository: str, credentials, identity: str
):
    registry = registry_without_pause(password_registry, lambda: credentials)
    for refused in (
        lambda: registry.push_blob(repository, DIGEST, BLOB),
        lambda: registry.manifest(repository, "latest"),
        lambda: registry.mount_blob(repository, DIGEST, "other"),
    ):
        with pytest.raises(
            RegistryDenied, match=f"{password_registry}/{repository} denied access .{identity}.: 401 UNAUTHORIZED"
        ) as said:
            refused()
        assert f"docker login {password_registry}" in str(said.value)


def test_an_access_denied_error_of_ecr_lists_the_permissions_to_allow(password_registry: str, repository: str):
    with pytest.raises(RegistryDenied, match="ecr:PutImage"):
        registry_without_pause(password_registry, lambda: ("AWS", "wrong")).push_blob(repository, DIGEST, BLOB)


def test_concurrent_401_responses_request_credentials_once(password_registry: str, repository: str):
    asked: list[int] = []
    lock, barrier = Lock(), Barrier(6)

    def credentials() -> tuple[str, str]:
        with lock:
            asked.append(1)
        return "me", PASSWORD

    registry = registry_without_pause(password_registry, credentials)

    def push(number: int) -> bool:
        body = f"{repository} {number}".encode()
        barrier.wait()
        registry.push_blob(repository, documents.digest_of(body), body)
        return registry.has_blob(repository, documents.digest_of(body))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(push, range(6)))
    assert len(asked) == 1


# -- tokens ---------------------------------------------------------------------------------------


def test_credentials_are_exchanged_for_a_token(token_registry, repository: str):
    host, tokens = token_registry
    registry = registry_without_pause(host, lambda: ("me", PASSWORD))
    before = len(tokens.given)
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.blob(repository, DIGEST) == BLOB
    assert tokens.given[before:] == [[f"repository:{repository}:pull,push"], [f"repository:{repository}:pull"]]


def test_a_pull_needs_no_credentials(token_registry, repository: str):
    host, _ = token_registry
    registry_without_pause(host, lambda: ("me", PASSWORD)).push_blob(repository, DIGEST, BLOB)
    anonymous = registry_without_pause(host)
    assert anonymous.blob(repository, DIGEST) == BLOB
    assert anonymous.manifest(repository, "latest") is None
    with pytest.raises(RegistryDenied, match="without credentials"):
        anonymous.push_blob(repository, documents.digest_of(b"x"), b"x")


def test_a_mount_uses_a_token_for_both_repositories(token_registry, repository: str):
    host, _ = token_registry
    registry = registry_without_pause(host, lambda: ("me", PASSWORD))
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.mount_blob(f"{repository}-2", DIGEST, repository)


@pytest.mark.parametrize("status", [202, 400, 403, 404, 405])
def test_a_refused_mount_falls_back_to_a_push(proxied_registry, repository: str, status: int):
    where, proxy = proxied_registry
    proxy.faults = [Fault("POST", "mount=", 1, status, {"Location": "/v2/unused"})]
    assert not registry_without_pause(where).mount_blob(repository, DIGEST, "other")


def test_a_token_that_expires_during_a_push_is_renewed(token_registry, repository: str):
    host, tokens = token_registry
    registry = registry_without_pause(host, lambda: ("me", PASSWORD))
    tokens.seconds = -300.0  # issues expired tokens, so that the test need not wait
    try:
        with pytest.raises(RegistryDenied):
            registry.push_blob(repository, DIGEST, BLOB)
    finally:
        tokens.seconds = 300.0
    before = len(tokens.given)
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.has_blob(repository, DIGEST)
    assert tokens.given[before] == [f"repository:{repository}:pull,push"]


def test_credentials_refused_for_an_upload_are_requested_again(proxied_registry, repository: str):
    where, proxy = proxied_registry
    proxy.password = lambda given: given is not None
    proxy.faults = [Fault("PUT", "/uploads/", 1, 401, {"WWW-Authenticate": 'Basic realm="tests"'})]
    passwords = iter(["first", "second"])
    registry = registry_without_pause(where, lambda: ("me", next(passwords)))
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.blob(repository, DIGEST) == BLOB
    assert registry.uploaded == len(BLOB)
    assert next(passwords, None) is None


def test_wrong_credentials_get_no_token(token_registry, repository: str):
    host, _ = token_registry
    with pytest.raises(RegistryDenied, match=r"refused a token \(as me\): 401.*docker login") as said:
        registry_without_pause(host, lambda: ("me", "wrong-word")).push_blob(repository, DIGEST, BLOB)
    assert "wrong-word" not in str(said.value)


def test_an_unavailable_token_server_is_reported_as_unavailable(token_registry, repository: str):
    host, tokens = token_registry
    tokens.status = 503
    try:
        with pytest.raises(RegistryUnavailable, match=r"the token server of .*, answered 503"):
            registry_without_pause(host, lambda: ("me", PASSWORD)).push_blob(repository, DIGEST, BLOB)
    finally:
        tokens.status = 200


@pytest.mark.parametrize("realm", ["http://tokens.test/", "http://127.0.0.1.tokens.test/", "ftp://127.0.0.1/", "token"])
def test_a_password_is_not_sent_to_an_unencrypted_token_server(proxied_registry, repository: str, realm: str):
    where, proxy = proxied_registry
    proxy.faults = [Fault("POST", "/", 9, 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'})]
    with pytest.raises(RegistryDenied, match="not a safe address"):
        registry_without_pause(where, lambda: ("me", PASSWORD)).push_blob(repository, DIGEST, BLOB)


def test_bearer_is_preferred_over_basic_authentication(token_registry, registry_server: str, repository: str):
    """Some registries offer both in one response; both have a realm."""
    _, tokens = token_registry
    with proxied(registry_server) as (where, proxy):
        proxy.password = lambda given: bool(given and given.startswith("Bearer "))
        proxy.challenge = f'Bearer realm="http://{tokens.host}/",service="the registry", Basic realm="Some Realm"'
        registry_without_pause(where, lambda: ("me", PASSWORD)).push_blob(repository, DIGEST, BLOB)
        assert not [given for given in proxy.authorizations if given and given.startswith("Basic")]


# -- other hosts ----------------------------------------------------------------------------------


class Storage:
    """The blob storage of a registry on another host, open to anyone with the link."""

    def __init__(self) -> None:
        self.host = ""
        self.heads: list[dict[str, str]] = []
        self.status = 200
        self.challenge = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.heads.append({name.lower(): value for name, value in handler.headers.items()})
        handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        handler.send_response(self.status)
        if self.challenge:
            handler.send_header("WWW-Authenticate", self.challenge)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(BLOB if self.status == 200 else b"")


@contextmanager
def serving_storage() -> Iterator[Storage]:
    storage = Storage()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            storage.answer(self)

        do_HEAD = do_PUT = do_GET  # noqa: N815 -- http.server's names

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    storage.host = f"127.0.0.1:{server.server_port}"
    try:
        yield storage
    finally:
        server.shutdown()
        server.server_close()


def redirecting_registry(proxied_registry: tuple[str, Proxy], storage: Storage, method: str, status: int) -> Registry:
    """A registry with a password whose next responses redirect to another host."""
    where, proxy = proxied_registry
    proxy.password = lambda given: given is not None
    proxy.faults = [Fault(method, "/blobs/", 9, status, {"Location": f"http://{storage.host}/signed?by=them"})]
    return registry_without_pause(where, lambda: ("me", PASSWORD))


def test_a_redirected_pull_does_not_send_credentials_to_the_other_host(
    proxied_registry, repository: str, tmp_path: Path
):
    with serving_storage() as storage:
        registry = redirecting_registry(proxied_registry, storage, "GET", 307)
        assert registry.pull_blob(repository, DIGEST, tmp_path / "back").read_bytes() == BLOB
        assert registry.blob(repository, DIGEST) == BLOB
        assert len(storage.heads) == 2
        assert not [head for head in storage.heads if "authorization" in head]


def test_has_blob_follows_redirects_to_another_host(proxied_registry, repository: str):
    with serving_storage() as storage:
        registry = redirecting_registry(proxied_registry, storage, "HEAD", 307)
        assert registry.has_blob(repository, DIGEST)
        storage.status = 404
        assert not registry.has_blob(repository, DIGEST)
        assert not [head for head in storage.heads if "authorization" in head]


def test_an_upload_to_another_host_does_not_send_credentials(proxied_registry, repository: str):
    with serving_storage() as storage:
        storage.status = 201
        redirecting_registry(proxied_registry, storage, "POST", 202).push_blob(repository, DIGEST, BLOB)
        assert [head["content-length"] for head in storage.heads] == [str(len(BLOB))]
        assert "authorization" not in storage.heads[0]


@pytest.mark.parametrize("kind", ["Basic", "Bearer"])
def test_a_401_of_another_host_gets_no_credentials(proxied_registry, repository: str, tmp_path: Path, kind: str):
    with serving_storage() as storage:
        storage.status = 401
        storage.challenge = f'{kind} realm="http://{storage.host}/token",service="theirs"'
        registry = redirecting_registry(proxied_registry, storage, "GET", 307)
        with pytest.raises(RegistryUnavailable, match=r"the storage of .* answered 401"):
            registry.pull_blob(repository, DIGEST, tmp_path / "back")
        assert not [head for head in storage.heads if "authorization" in head]
        assert len(storage.heads) == 4, "each attempt requests a new link, as one may expire"


def test_a_redirect_loop_ends_with_an_error(proxied_registry, repository: str):
    where, proxy = proxied_registry
    proxy.faults = [Fault("GET", "/manifests/", 99, 307, {"Location": f"/v2/{repository}/manifests/latest"})]
    with pytest.raises(RegistryUnavailable, match="redirected more than 5 times"):
        registry_without_pause(where).manifest(repository, "latest")


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.8.9.1", True),
        ("[::1]:5000", True),
        ("::1", True),
        ("127.0.0.1.registry.test", False),
        ("localhost.registry.test:443", False),
        ("10.0.0.1:5000", False),
        ("[2001:db8::1]:5000", False),
        ("registry.test", False),
        ("", False),
    ],
)
def test_only_loopback_addresses_use_plain_http(host: str, local: bool):
    assert is_loopback(host) is local


def test_loopback_addresses_bypass_the_proxy(registry_server: str, repository: str, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert not registry_without_pause(registry_server).has_blob(repository, DIGEST)


def test_logs_contain_neither_passwords_nor_tokens(password_registry: str, token_registry, repository: str, caplog):
    caplog.set_level(logging.DEBUG)
    for host in (password_registry, token_registry[0]):
        registry = registry_without_pause(host, lambda: ("me", PASSWORD))
        registry.push_blob(repository, DIGEST, BLOB)
        assert registry.manifest(repository, "latest") is None
    said = caplog.text
    assert password_registry.partition(":")[2] in said, "httpx logs requests"
    assert PASSWORD not in said
    assert base64.b64encode(f"me:{PASSWORD}".encode()).decode() not in said
    assert "eyJ" not in said, "every token begins with this"


# -- retries --------------------------------------------------------------------------------------


def test_retry_after_is_respected(proxied_registry, repository: str):
    where, proxy = proxied_registry
    proxy.faults = [Fault("HEAD", "/blobs/", 1, 429, {"Retry-After": "2"})]
    began = time.monotonic()
    assert not registry_without_pause(where).has_blob(repository, DIGEST)
    assert time.monotonic() - began >= 2


def test_a_retry_after_of_an_hour_is_an_error(proxied_registry, repository: str):
    where, proxy = proxied_registry
    proxy.faults = [Fault("GET", "/manifests/", 9, 429, {"Retry-After": "3600"})]
    began = time.monotonic()
    with pytest.raises(RegistryUnavailable, match="Try again in 3600 s"):
        registry_without_pause(where).manifest(repository, "latest")
    assert time.monotonic() - began < 2


def test_an_interrupted_pull_is_resumed_as_long_as_it_makes_progress(proxied_registry, repository: str, tmp_path):
    where, proxy = proxied_registry
    body = os.urandom(7_000_000)
    registry_without_pause(proxy.registry).push_blob(repository, documents.digest_of(body), body)
    cut = Fault("GET", "/blobs/", 5, cut_after=1_200_000)
    proxy.faults = [cut]
    assert (
        registry_without_pause(where).pull_blob(repository, documents.digest_of(body), tmp_path / "back").read_bytes()
        == body
    )
    assert cut.seen == 5


def test_an_upload_session_that_was_lost_restarts(proxied_registry, repository: str):
    where, proxy = proxied_registry
    proxy.faults = [Fault("PUT", "/uploads/", 1, 404, body=b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}')]
    registry = registry_without_pause(where)
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.has_blob(repository, DIGEST)


def test_a_failed_push_succeeds_if_another_client_pushed_the_blob(proxied_registry, repository: str):
    where, proxy = proxied_registry
    registry_without_pause(proxy.registry).push_blob(repository, DIGEST, BLOB)
    proxy.faults = [Fault("PUT", "/uploads/", 1, 400, body=b'{"errors": [{"code": "LayerAlreadyExists"}]}')]
    registry_without_pause(where).push_blob(repository, DIGEST, BLOB)


def test_corrupted_content_is_rejected(registry_server: str, repository: str):
    with pytest.raises(ImageError, match=rf"received content that does not match {DIGEST}"):
        registry_without_pause(registry_server).push_blob(repository, DIGEST, BLOB[::-1])
    assert not registry_without_pause(registry_server).has_blob(repository, DIGEST)


@pytest.mark.parametrize(
    ("method", "status", "headers", "body"),
    [
        ("GET", 200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"),
        ("GET", 200, {"Content-Type": "application/json"}, b"[]"),
        ("POST", 202, {}, b""),
        ("POST", 202, {"Location": "http://[nonsense"}, b""),
    ],
)
def test_a_server_that_is_not_a_registry_is_an_error(
    proxied_registry, repository: str, method: str, status: int, headers, body: bytes
):
    where, proxy = proxied_registry
    proxy.faults = [Fault(method, "/v2/", 9, status, headers, body)]
    registry = registry_without_pause(where)
    asked = {
        "GET": lambda: registry.manifest(repository, "latest"),
        "POST": lambda: registry.push_blob(repository, DIGEST, BLOB),
    }
    with pytest.raises(RegistryUnavailable, match="proxy"):
        asked[method]()


def test_pushing_a_missing_file_is_an_error(registry_server: str, repository: str, tmp_path: Path):
    with pytest.raises(ImageError, match="No such file"):
        registry_without_pause(registry_server).push_blob(repository, DIGEST, tmp_path / "gone")


@pytest.mark.parametrize("where", ["/uploads/", "/manifests/sha256:", "/manifests/latest"])
def test_a_tag_appears_only_when_its_image_is_complete(proxied_registry, repository: str, where: str):
    """Whichever request of a push fails, the tag names a complete image or does not exist."""
    host, proxy = proxied_registry
    refused = Fault("PUT", where, 99, 503)
    proxy.faults = [refused]
    with pytest.raises(RegistryUnavailable):
        push_image(registry_without_pause(host), repository)
    assert registry_without_pause(proxy.registry).manifest(repository, "latest") is None
    proxy.faults = []
    again = registry_without_pause(host)
    index = push_image(again, repository)
    assert refused.seen == 4
    assert again.uploaded < len(BLOB) or where == "/uploads/", "existing blobs are not pushed again"
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    name = f"docker://{proxy.registry}/{repository}:latest"
    done = subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", name], check=True, capture_output=True)
    assert done.stdout == index.body


def push_image(registry: Registry, repository: str) -> documents.Manifest:
    """Push as builders do: blobs, then manifests, then the tagged index."""
    config = documents.canonical({"architecture": "arm64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    for body in (config, BLOB):
        if not registry.has_blob(repository, documents.digest_of(body)):
            registry.push_blob(repository, documents.digest_of(body), body)
    described = documents.Descriptor(documents.CONFIG, documents.digest_of(config), len(config))
    one = documents.manifest(described, [documents.Descriptor(documents.LAYER_TAR, DIGEST, len(BLOB))])
    registry.put_manifest(repository, one.digest, one)
    index = documents.index([documents.Descriptor(one.media_type, one.digest, len(one.body), "linux/arm64")])
    registry.put_manifest(repository, "latest", index)
    return index


# -- docker's credentials -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[]",
        "no JSON",
        '{"auths": null}',
        '{"auths": {"127.0.0.1:5000": {}}}',
        '{"auths": {"127.0.0.1:5000": {"auth": "no base64!"}}}',
        '{"credsStore": "that-is-not-installed"}',
        '{"credHelpers": {"127.0.0.1:5001": "other"}}',
    ],
)
def test_without_a_docker_login_there_are_no_credentials(config: str, tmp_path: Path, monkeypatch):
    (tmp_path / "config.json").write_text(config)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert stored_credentials("127.0.0.1:5000")() is None


def test_docker_hub_credentials_are_found_under_its_other_names(tmp_path: Path, monkeypatch):
    auth = base64.b64encode(b"me:secret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    host = documents.Reference.parse("python:3.12").host
    assert stored_credentials(host)() == ("me", "secret")
