"""Who is let in by a registry and with what, where a password may not go, and how long we are patient."""

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

from dask_starburst.environment.registry import documents
from dask_starburst.environment.registry.auth import is_loopback
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.registry.docker_credentials import stored_credentials
from dask_starburst.errors import ImageError, RegistryDenied, RegistryUnavailable
from tests.support.docker_registry import quick, serving, why_no_registry
from tests.support.registry_proxy import Fault, Proxy, proxied
from tests.support.token_server import Tokens, giving

BLOB = os.urandom(1_500_000)
DIGEST = documents.digest_of(BLOB)
PASSWORD = "open sesame"
# bcrypt, the only kind that the registry reads
_HTPASSWD = "me:$2b$04$abcdefghijklmnopqrstuu/LVz6MZlItEy42I2juLihZ66HnQx/cy\n"


@pytest.fixture
def repository() -> str:
    return f"test/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def door(registry_server: str) -> Iterator[tuple[str, Proxy]]:
    with proxied(registry_server) as found:
        yield found


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry that wants a password."""
    if why := why_no_registry():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("closed")
    (folder / "htpasswd").write_text(_HTPASSWD)
    with serving(folder, f'auth: {{htpasswd: {{realm: tests, path: "{folder}/htpasswd"}}}}') as host:
        yield host


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Tokens]]:
    """A registry that wants tokens, as Docker Hub does, and who gives them."""
    if why := why_no_registry():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("guarded")
    with giving(folder) as (tokens, more), serving(folder, more) as host:
        yield host, tokens


# -- passwords ------------------------------------------------------------------------------------


def test_a_registry_with_a_password_lets_in_who_has_it(closed: str, repository: str):
    registry = quick(closed, lambda: ("me", PASSWORD))
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.blob(repository, DIGEST) == BLOB


@pytest.mark.parametrize(("credentials", "who"), [(("me", "wrong"), "as me"), (None, "without credentials")])
def test_who_has_no_password_or_a_wrong_one_is_told_to_log_in(closed: str, repository: str, credentials, who: str):
    registry = quick(closed, lambda: credentials)
    for refused in (
        lambda: registry.push_blob(repository, DIGEST, BLOB),
        lambda: registry.manifest(repository, "latest"),
        lambda: registry.mount_blob(repository, DIGEST, "other"),
    ):
        with pytest.raises(RegistryDenied, match=f"{closed}/{repository} refuses us .{who}.: 401 UNAUTHORIZED") as said:
            refused()
        assert f"docker login {closed}" in str(said.value)


def test_who_is_refused_by_ecr_is_told_what_to_allow(closed: str, repository: str):
    with pytest.raises(RegistryDenied, match="ecr:PutImage"):
        quick(closed, lambda: ("AWS", "wrong")).push_blob(repository, DIGEST, BLOB)


def test_threads_that_are_refused_at_once_ask_for_a_password_once(closed: str, repository: str):
    asked: list[int] = []
    lock, barrier = Lock(), Barrier(6)

    def credentials() -> tuple[str, str]:
        with lock:
            asked.append(1)
        return "me", PASSWORD

    registry = quick(closed, credentials)

    def push(number: int) -> bool:
        body = f"{repository} {number}".encode()
        barrier.wait()
        registry.push_blob(repository, documents.digest_of(body), body)
        return registry.has_blob(repository, documents.digest_of(body))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(push, range(6)))
    assert len(asked) == 1


# -- tokens ---------------------------------------------------------------------------------------


def test_a_password_buys_a_token_and_the_token_opens_the_registry(guarded, repository: str):
    host, tokens = guarded
    registry = quick(host, lambda: ("me", PASSWORD))
    before = len(tokens.given)
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.blob(repository, DIGEST) == BLOB
    assert tokens.given[before:] == [[f"repository:{repository}:pull,push"], [f"repository:{repository}:pull"]]


def test_who_only_reads_needs_no_password(guarded, repository: str):
    host, _ = guarded
    quick(host, lambda: ("me", PASSWORD)).push_blob(repository, DIGEST, BLOB)
    stranger = quick(host)
    assert stranger.blob(repository, DIGEST) == BLOB
    assert stranger.manifest(repository, "latest") is None
    with pytest.raises(RegistryDenied, match="without credentials"):
        stranger.push_blob(repository, documents.digest_of(b"x"), b"x")


def test_a_layer_is_taken_over_with_a_token_for_both_repositories(guarded, repository: str):
    host, _ = guarded
    registry = quick(host, lambda: ("me", PASSWORD))
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.mount_blob(f"{repository}-2", DIGEST, repository)


@pytest.mark.parametrize("status", [202, 400, 403, 404, 405])
def test_where_a_layer_may_not_be_taken_over_it_is_pushed(door, repository: str, status: int):
    where, proxy = door
    proxy.faults = [Fault("POST", "mount=", 1, status, {"Location": "/v2/unused"})]
    assert not quick(where).mount_blob(repository, DIGEST, "other")


def test_a_token_that_expires_in_the_middle_of_a_push_is_bought_anew(guarded, repository: str):
    host, tokens = guarded
    registry = quick(host, lambda: ("me", PASSWORD))
    tokens.seconds = -300.0  # nobody waits here for five minutes: it gets one that is over
    try:
        with pytest.raises(RegistryDenied):
            registry.push_blob(repository, DIGEST, BLOB)
    finally:
        tokens.seconds = 300.0
    before = len(tokens.given)
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.has_blob(repository, DIGEST)
    assert tokens.given[before] == [f"repository:{repository}:pull,push"]


def test_a_password_that_is_refused_for_the_very_bytes_is_asked_for_again(door, repository: str):
    where, proxy = door
    proxy.password = lambda given: given is not None
    proxy.faults = [Fault("PUT", "/uploads/", 1, 401, {"WWW-Authenticate": 'Basic realm="tests"'})]
    passwords = iter(["first", "second"])
    registry = quick(where, lambda: ("me", next(passwords)))
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.blob(repository, DIGEST) == BLOB
    assert registry.uploaded == len(BLOB)
    assert next(passwords, None) is None


def test_a_wrong_password_buys_no_token(guarded, repository: str):
    host, _ = guarded
    with pytest.raises(RegistryDenied, match=r"gives no token \(as me\): 401.*docker login") as said:
        quick(host, lambda: ("me", "wrong-word")).push_blob(repository, DIGEST, BLOB)
    assert "wrong-word" not in str(said.value)


def test_who_gives_tokens_may_be_down_for_a_while(guarded, repository: str):
    host, tokens = guarded
    tokens.status = 503
    try:
        with pytest.raises(RegistryUnavailable, match=r"where .* gives tokens, answered 503"):
            quick(host, lambda: ("me", PASSWORD)).push_blob(repository, DIGEST, BLOB)
    finally:
        tokens.status = 200


@pytest.mark.parametrize("realm", ["http://tokens.test/", "http://127.0.0.1.tokens.test/", "ftp://127.0.0.1/", "token"])
def test_a_password_is_not_sent_where_everybody_can_read_it(door, repository: str, realm: str):
    where, proxy = door
    proxy.faults = [Fault("POST", "/", 9, 401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="x"'})]
    with pytest.raises(RegistryDenied, match="not safe"):
        quick(where, lambda: ("me", PASSWORD)).push_blob(repository, DIGEST, BLOB)


def test_of_several_ways_in_the_token_is_taken(guarded, registry_server: str, repository: str):
    """Some offer both in one answer; the word realm is in both then."""
    _, tokens = guarded
    with proxied(registry_server) as (where, proxy):
        proxy.password = lambda given: bool(given and given.startswith("Bearer "))
        proxy.challenge = f'Bearer realm="http://{tokens.host}/",service="the registry", Basic realm="Some Realm"'
        quick(where, lambda: ("me", PASSWORD)).push_blob(repository, DIGEST, BLOB)
        assert not [given for given in proxy.authorizations if given and given.startswith("Basic")]


# -- other hosts ----------------------------------------------------------------------------------


class Storage:
    """Where a registry has its blobs, at another address; whoever has the link may read."""

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
def elsewhere() -> Iterator[Storage]:
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


def sent_on(door: tuple[str, Proxy], storage: Storage, method: str, status: int) -> Registry:
    """A registry with a password, whose next answers send us to another host."""
    where, proxy = door
    proxy.password = lambda given: given is not None
    proxy.faults = [Fault(method, "/blobs/", 9, status, {"Location": f"http://{storage.host}/signed?by=them"})]
    return quick(where, lambda: ("me", PASSWORD))


def test_a_blob_at_another_host_is_fetched_without_the_password(door, repository: str, tmp_path: Path):
    with elsewhere() as storage:
        registry = sent_on(door, storage, "GET", 307)
        assert registry.pull_blob(repository, DIGEST, tmp_path / "back").read_bytes() == BLOB
        assert registry.blob(repository, DIGEST) == BLOB
        assert len(storage.heads) == 2
        assert not [head for head in storage.heads if "authorization" in head]


def test_a_blob_at_another_host_is_seen_to_be_there(door, repository: str):
    with elsewhere() as storage:
        registry = sent_on(door, storage, "HEAD", 307)
        assert registry.has_blob(repository, DIGEST)
        storage.status = 404
        assert not registry.has_blob(repository, DIGEST)
        assert not [head for head in storage.heads if "authorization" in head]


def test_a_blob_that_is_to_be_put_elsewhere_goes_there_without_the_password(door, repository: str):
    with elsewhere() as storage:
        storage.status = 201
        sent_on(door, storage, "POST", 202).push_blob(repository, DIGEST, BLOB)
        assert [head["content-length"] for head in storage.heads] == [str(len(BLOB))]
        assert "authorization" not in storage.heads[0]


@pytest.mark.parametrize("kind", ["Basic", "Bearer"])
def test_another_host_that_asks_for_the_password_does_not_get_it(door, repository: str, tmp_path: Path, kind: str):
    with elsewhere() as storage:
        storage.status = 401
        storage.challenge = f'{kind} realm="http://{storage.host}/token",service="theirs"'
        registry = sent_on(door, storage, "GET", 307)
        with pytest.raises(RegistryUnavailable, match=r"the storage of .* answered 401"):
            registry.pull_blob(repository, DIGEST, tmp_path / "back")
        assert not [head for head in storage.heads if "authorization" in head]
        assert len(storage.heads) == 4, "a link may be too old: each attempt asks for a new one"


def test_a_registry_that_sends_us_in_circles_is_left(door, repository: str):
    where, proxy = door
    proxy.faults = [Fault("GET", "/manifests/", 99, 307, {"Location": f"/v2/{repository}/manifests/latest"})]
    with pytest.raises(RegistryUnavailable, match="without an end"):
        quick(where).manifest(repository, "latest")


@pytest.mark.parametrize(
    ("host", "near"),
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
def test_only_this_computer_itself_is_spoken_to_without_encryption(host: str, near: bool):
    assert is_loopback(host) is near


def test_a_proxy_is_not_asked_for_what_is_on_this_computer(registry_server: str, repository: str, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert not quick(registry_server).has_blob(repository, DIGEST)


def test_no_password_and_no_token_is_in_a_log(closed: str, guarded, repository: str, caplog):
    caplog.set_level(logging.DEBUG)
    for host in (closed, guarded[0]):
        registry = quick(host, lambda: ("me", PASSWORD))
        registry.push_blob(repository, DIGEST, BLOB)
        assert registry.manifest(repository, "latest") is None
    said = caplog.text
    assert closed.partition(":")[2] in said, "the library does log"
    assert PASSWORD not in said
    assert base64.b64encode(f"me:{PASSWORD}".encode()).decode() not in said
    assert "eyJ" not in said, "which every token begins with"


# -- patience -------------------------------------------------------------------------------------


def test_a_registry_that_says_when_to_come_again_is_given_the_time(door, repository: str):
    where, proxy = door
    proxy.faults = [Fault("HEAD", "/blobs/", 1, 429, {"Retry-After": "2"})]
    began = time.monotonic()
    assert not quick(where).has_blob(repository, DIGEST)
    assert time.monotonic() - began >= 2


def test_a_registry_that_wants_an_hour_is_not_waited_for(door, repository: str):
    where, proxy = door
    proxy.faults = [Fault("GET", "/manifests/", 9, 429, {"Retry-After": "3600"})]
    began = time.monotonic()
    with pytest.raises(RegistryUnavailable, match="Try again in 3600 s"):
        quick(where).manifest(repository, "latest")
    assert time.monotonic() - began < 2


def test_a_pull_that_is_cut_off_again_and_again_goes_on_as_long_as_it_comes_further(door, repository: str, tmp_path):
    where, proxy = door
    body = os.urandom(7_000_000)
    quick(proxy.registry).push_blob(repository, documents.digest_of(body), body)
    cut = Fault("GET", "/blobs/", 5, cut_after=1_200_000)
    proxy.faults = [cut]
    assert quick(where).pull_blob(repository, documents.digest_of(body), tmp_path / "back").read_bytes() == body
    assert cut.seen == 5


def test_an_upload_that_the_registry_has_forgotten_is_begun_anew(door, repository: str):
    where, proxy = door
    proxy.faults = [Fault("PUT", "/uploads/", 1, 404, body=b'{"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]}')]
    registry = quick(where)
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.has_blob(repository, DIGEST)


def test_what_somebody_else_has_pushed_meanwhile_is_as_good(door, repository: str):
    where, proxy = door
    quick(proxy.registry).push_blob(repository, DIGEST, BLOB)
    proxy.faults = [Fault("PUT", "/uploads/", 1, 400, body=b'{"errors": [{"code": "LayerAlreadyExists"}]}')]
    quick(where).push_blob(repository, DIGEST, BLOB)


def test_bytes_that_were_spoiled_on_the_way_are_not_taken(registry_server: str, repository: str):
    with pytest.raises(ImageError, match=rf"got something else than {DIGEST}"):
        quick(registry_server).push_blob(repository, DIGEST, BLOB[::-1])
    assert not quick(registry_server).has_blob(repository, DIGEST)


@pytest.mark.parametrize(
    ("method", "status", "headers", "body"),
    [
        ("GET", 200, {"Content-Type": "text/html"}, b"<html>Please log in</html>"),
        ("GET", 200, {"Content-Type": "application/json"}, b"[]"),
        ("POST", 202, {}, b""),
        ("POST", 202, {"Location": "http://[nonsense"}, b""),
    ],
)
def test_what_is_no_registry_is_called_so(door, repository: str, method: str, status: int, headers, body: bytes):
    where, proxy = door
    proxy.faults = [Fault(method, "/v2/", 9, status, headers, body)]
    registry = quick(where)
    asked = {
        "GET": lambda: registry.manifest(repository, "latest"),
        "POST": lambda: registry.push_blob(repository, DIGEST, BLOB),
    }
    with pytest.raises(RegistryUnavailable, match="proxy"):
        asked[method]()


def test_a_file_that_has_gone_is_said(registry_server: str, repository: str, tmp_path: Path):
    with pytest.raises(ImageError, match="No such file"):
        quick(registry_server).push_blob(repository, DIGEST, tmp_path / "gone")


@pytest.mark.parametrize("where", ["/uploads/", "/manifests/sha256:", "/manifests/latest"])
def test_a_tag_is_seen_when_all_of_its_image_is_there_and_not_before(door, repository: str, where: str):
    """Whatever request of a push is the last to come through, the tag means a whole image or nothing."""
    host, proxy = door
    refused = Fault("PUT", where, 99, 503)
    proxy.faults = [refused]
    with pytest.raises(RegistryUnavailable):
        push_image(quick(host), repository)
    assert quick(proxy.registry).manifest(repository, "latest") is None
    proxy.faults = []
    again = quick(host)
    index = push_image(again, repository)
    assert refused.seen == 4
    assert again.uploaded < len(BLOB) or where == "/uploads/", "what was there is not sent again"
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    name = f"docker://{proxy.registry}/{repository}:latest"
    done = subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", name], check=True, capture_output=True)
    assert done.stdout == index.body


def push_image(registry: Registry, repository: str) -> documents.Manifest:
    """Push as builders do: blobs, what names them, and then what has the tag."""
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


# -- what docker left -----------------------------------------------------------------------------


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
def test_who_has_not_logged_in_comes_without_a_password(config: str, tmp_path: Path, monkeypatch):
    (tmp_path / "config.json").write_text(config)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert stored_credentials("127.0.0.1:5000")() is None


def test_dockers_own_hub_has_another_name_in_its_configuration(tmp_path: Path, monkeypatch):
    auth = base64.b64encode(b"me:secret").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"https://index.docker.io/v1/": {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    host = documents.Reference.parse("python:3.12").host
    assert stored_credentials(host)() == ("me", "secret")
