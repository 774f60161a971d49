"""The registry client against Debian's docker-registry, also with failing pushes and pulls."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.harness.images.registry import registry_without_pause, serving, why_no_registry
from dask_starburst.environment.registry import documents
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.registry.docker_credentials import stored_credentials
from dask_starburst.errors import ImageError, RegistryDenied, RegistryUnavailable
from tests.support.registry_proxy import Fault, Proxy, proxied

BLOB = os.urandom(3_000_000)
DIGEST = documents.digest_of(BLOB)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if why := why_no_registry():
        pytest.skip(why)
    with serving(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def proxied_registry(host: str) -> Iterator[tuple[str, Proxy]]:
    with proxied(host) as found:
        yield found


@pytest.fixture
def repository() -> str:
    return f"test/{uuid.uuid4().hex[:12]}"


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(BLOB)
    return path


def image(registry: Registry, repository: str, architecture: str = "arm64") -> documents.Manifest:
    """Push an image of one layer, without a tag."""
    config = documents.canonical(
        {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    )
    registry.push_blob(repository, documents.digest_of(config), config)
    registry.push_blob(repository, DIGEST, BLOB)
    described = documents.Descriptor(documents.CONFIG, documents.digest_of(config), len(config))
    made = documents.manifest(described, [documents.Descriptor(documents.LAYER_ZSTD, DIGEST, len(BLOB))])
    registry.put_manifest(repository, made.digest, made)
    return made


# -- without faults -------------------------------------------------------------------------------


def test_a_pushed_blob_is_pulled_unchanged_and_counted(host: str, repository: str, blob: Path, tmp_path: Path):
    registry = registry_without_pause(host)
    heard: list[int] = []
    assert not registry.has_blob(repository, DIGEST)
    registry.push_blob(repository, DIGEST, blob, heard.append)
    assert registry.has_blob(repository, DIGEST)
    assert registry.uploaded == heard[-1] == len(BLOB)
    assert registry.pull_blob(repository, DIGEST, tmp_path / "back").read_bytes() == BLOB


def test_a_layer_is_mounted_from_another_repository_of_the_same_registry(host: str, repository: str):
    registry = registry_without_pause(host)
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.mount_blob(f"{repository}-2", DIGEST, repository)
    assert registry.has_blob(f"{repository}-2", DIGEST)
    assert not registry.mount_blob(f"{repository}-3", documents.digest_of(b"missing"), repository)


def test_an_index_for_both_platforms_is_readable_by_skopeo(host: str, repository: str):
    registry = registry_without_pause(host)
    parts = {f"linux/{name}": image(registry, repository, name) for name in ("amd64", "arm64")}
    index = documents.index([documents.Descriptor(m.media_type, m.digest, len(m.body), p) for p, m in parts.items()])
    assert registry.put_manifest(repository, "both", index) == index.digest
    found = registry.manifest(repository, "both")
    assert found is not None
    assert documents.choose(found, "linux/arm64").digest == parts["linux/arm64"].digest
    assert registry.manifest(repository, "neither") is None
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{host}/{repository}:both"]
    assert subprocess.run(command, check=True, capture_output=True).stdout == index.body


def test_concurrent_pushes_succeed(host: str, repository: str):
    registry = registry_without_pause(host)
    blobs = [os.urandom(200_000) for _ in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda body: registry.push_blob(repository, documents.digest_of(body), body), blobs))
    assert all(registry.has_blob(repository, documents.digest_of(body)) for body in blobs)
    assert registry.uploaded == sum(map(len, blobs))


# -- credentials ----------------------------------------------------------------------------------


def header(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def test_credentials_that_expire_during_a_push_are_requested_again(proxied_registry, repository: str, blob: Path):
    where, proxy = proxied_registry
    valid = [header("AWS", "first")]
    proxy.password = lambda given: given == valid[0]
    passwords = iter(["first", "second"])
    registry = registry_without_pause(where, lambda: ("AWS", next(passwords)))
    registry.push_blob(repository, DIGEST, blob)
    valid[0] = header("AWS", "second")
    image(registry, repository)
    assert registry.has_blob(repository, DIGEST)


def test_an_error_for_a_wrong_password_does_not_show_it(proxied_registry, repository: str):
    where, proxy = proxied_registry
    proxy.password = lambda given: False
    registry = registry_without_pause(where, lambda: ("someone", "s3cret-word"))
    with pytest.raises(RegistryDenied) as caught:
        registry.push_blob(repository, DIGEST, BLOB)
    said = str(caught.value)
    assert "as someone" in said
    assert f"docker login {where}" in said
    assert "s3cret-word" not in said + repr(registry) + repr(caught.value.__cause__)


def test_credentials_of_docker_login_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    auth = base64.b64encode(b"me:pass:word").decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"127.0.0.1:5000": {"auth": auth}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert stored_credentials("127.0.0.1:5000")() == ("me", "pass:word")
    assert stored_credentials("127.0.0.1:5001")() is None


def test_a_credential_helper_reads_the_host_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    helper = tmp_path / "docker-credential-played"
    helper.write_text(
        f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(dict(Username=sys.stdin.read(), Secret='x')))\n"
    )
    helper.chmod(0o755)
    (tmp_path / "config.json").write_text(json.dumps({"credHelpers": {"127.0.0.1:5000": "played"}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert stored_credentials("127.0.0.1:5000")() == ("127.0.0.1:5000", "x")


# -- with faults ----------------------------------------------------------------------------------


def test_an_interrupted_push_restarts_and_completes(proxied_registry, repository: str, blob: Path):
    where, proxy = proxied_registry
    cut = Fault("PUT", "/blobs/uploads/", cut_after=500_000)
    proxy.faults = [cut]
    registry = registry_without_pause(where)
    registry.push_blob(repository, DIGEST, blob)
    assert cut.seen == 1
    assert registry.has_blob(repository, DIGEST)
    assert registry.uploaded == len(BLOB)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_error_is_retried(proxied_registry, repository: str, status: int):
    where, proxy = proxied_registry
    proxy.faults = [Fault("POST", "/blobs/uploads/", status=status), Fault("HEAD", "/blobs/", status=status)]
    registry = registry_without_pause(where)
    registry.push_blob(repository, DIGEST, BLOB)
    assert registry.has_blob(repository, DIGEST)


def test_an_interrupted_pull_is_resumed(proxied_registry, host: str, repository: str, tmp_path: Path):
    where, proxy = proxied_registry
    registry_without_pause(host).push_blob(repository, DIGEST, BLOB)
    cut = Fault("GET", "/blobs/", cut_after=1_500_000)
    proxy.faults = [cut]
    assert registry_without_pause(where).pull_blob(repository, DIGEST, tmp_path / "back").read_bytes() == BLOB
    assert cut.seen == 1
    assert [path.name for path in tmp_path.iterdir()] == ["back"]


def test_a_blob_with_a_wrong_digest_is_discarded(proxied_registry, host: str, repository: str, tmp_path: Path):
    where, proxy = proxied_registry
    registry_without_pause(host).push_blob(repository, DIGEST, BLOB)
    proxy.faults = [Fault("GET", "/blobs/", spoil=lambda body: b"X" + body[1:])]
    with pytest.raises(ImageError, match="does not match sha256"):
        registry_without_pause(where).pull_blob(repository, DIGEST, tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_with_a_wrong_digest_is_rejected(proxied_registry, host: str, repository: str):
    where, proxy = proxied_registry
    made = image(registry_without_pause(host), repository)
    proxy.faults = [Fault("GET", "/manifests/", spoil=lambda body: body + b" ")]
    with pytest.raises(ImageError, match="does not match sha256"):
        registry_without_pause(where).manifest(repository, made.digest)


def test_an_unavailable_registry_is_an_error_after_four_attempts(repository: str):
    with pytest.raises(RegistryUnavailable, match=r"failed 4 times"):
        registry_without_pause("127.0.0.1:9").push_blob(repository, DIGEST, BLOB)


def test_a_manifest_with_missing_blobs_is_not_tagged(host: str, repository: str):
    registry = registry_without_pause(host)
    described = documents.Descriptor(documents.CONFIG, DIGEST, len(BLOB))
    with pytest.raises(ImageError, match="refused it"):
        registry.put_manifest(repository, "half", documents.manifest(described, []))
    assert registry.manifest(repository, "half") is None


def test_a_full_disk_is_an_error_and_leaves_no_file(host: str, repository: str, tmp_path: Path):
    registry_without_pause(host).push_blob(repository, DIGEST, BLOB)
    full = tmp_path / "full"
    full.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(full)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        with pytest.raises(ImageError, match="No space left on device"):
            registry_without_pause(host).pull_blob(repository, DIGEST, full / "back")
        assert list(full.iterdir()) == []
    finally:
        subprocess.run(["umount", str(full)], check=True)
