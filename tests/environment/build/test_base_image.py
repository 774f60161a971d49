"""Base images are pinned, cached, and read once."""

from __future__ import annotations

import io
import sys
import tarfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dask_starburst.environment.build.tar import open_layer
from dask_starburst.environment.build.base_image import MEMORY, BaseImage, resolve_base
from dask_starburst.environment.build.bytecode import Bytecode
from dask_starburst.environment.build.layers import Layer, Layers
from dask_starburst.environment.registry.client import Registry
from dask_starburst.errors import ImageError, RegistryUnavailable
from tests.support import packages
from benchmarks.harness.images.fixtures import layer_of, push_image
from benchmarks.harness.images.rootfs import PLATFORMS
from benchmarks.harness.images.registry import registry_without_pause

NOW = 1_800_000_000.0
PYTHON = {"usr/local/bin/python3.11": b"\x7fELF", "usr/local/lib/python3.11/json/decoder.py": b"a = 1\n"}


def push(
    registry: Registry,
    repository: str,
    folder: Path,
    layers: Sequence[Mapping[str, bytes]],
    platforms: Sequence[str] = tuple(PLATFORMS),
) -> str:
    """Push an image whose layers are the same for all platforms."""
    made = [layer_of(folder, files) for files in layers]
    return push_image(registry, repository, dict.fromkeys(platforms, made))


@pytest.fixture
def registry(registry_server) -> Registry:
    return registry_without_pause(registry_server)


@pytest.fixture
def repository() -> str:
    """A repository of this test only."""
    return f"bases/{uuid.uuid4().hex}"


def unavailable_registry(host: str) -> Registry:
    """A registry that is down."""
    return registry_without_pause("127.0.0.1:9")


def test_the_digest_of_a_tag_is_cached_for_a_day(registry, repository, tmp_path):
    name = push(registry, repository, tmp_path, [PYTHON])
    first = resolve_base(name, tmp_path, registry_without_pause, now=NOW)
    push(registry, repository, tmp_path, [PYTHON, {"etc/motd": b"new"}])
    later = resolve_base(name, tmp_path, unavailable_registry, now=NOW + MEMORY - 1)
    assert later.reference == first.reference == f"{registry.host}/{repository}@{first.digest}"
    assert resolve_base(name, tmp_path, registry_without_pause, now=NOW + MEMORY).digest != first.digest


def test_an_older_digest_is_used_when_the_registry_is_down(registry, repository, tmp_path):
    name = push(registry, repository, tmp_path, [PYTHON])
    first = resolve_base(name, tmp_path, registry_without_pause, now=NOW)
    later = NOW + 30 * MEMORY
    assert resolve_base(name, tmp_path, unavailable_registry, now=later).reference == first.reference
    with pytest.raises(RegistryUnavailable):
        resolve_base(name, tmp_path, unavailable_registry, now=later, refresh=True)


def test_a_refresh_bypasses_the_cache(registry, repository, tmp_path):
    name = push(registry, repository, tmp_path, [PYTHON])
    first = resolve_base(name, tmp_path, registry_without_pause, now=NOW)
    push(registry, repository, tmp_path, [PYTHON, {"etc/motd": b"new"}])
    assert resolve_base(name, tmp_path, registry_without_pause, now=NOW, refresh=True).digest != first.digest


def test_a_base_with_a_digest_needs_no_lookup(tmp_path):
    digest = f"sha256:{'a' * 64}"
    found = resolve_base(f"127.0.0.1:9/some/python:3.11@{digest}", tmp_path, unavailable_registry)
    assert found.reference == f"127.0.0.1:9/some/python@{digest}"


def test_an_unavailable_registry_without_a_cached_digest_is_an_error(tmp_path):
    with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1:9"):
        resolve_base("127.0.0.1:9/some/python:3.11", tmp_path, unavailable_registry)


def test_a_missing_base_is_an_error(registry, tmp_path):
    with pytest.raises(ImageError, match=r"the base image .*/no/such:3.11 does not exist; name another with base="):
        resolve_base(f"{registry.host}/no/such:3.11", tmp_path, Registry)


def test_the_python_is_found_in_any_layer_and_cached(registry, repository, tmp_path):
    passwd = b"root:x:0:0::/root:/bin/sh\n"
    name = push(registry, repository, tmp_path, [{"etc/passwd": passwd}, PYTHON])
    found = resolve_base(name, tmp_path, Registry)
    facts = found.facts("linux/arm64", "3.11")
    assert (facts.python, facts.passwd, facts.group) == ("/usr/local/bin/python3.11", passwd.decode(), "")
    known = BaseImage(name, found.digest, unavailable_registry(""), tmp_path / "bases")
    assert known.facts("linux/arm64", "3.11") == facts


def test_the_error_for_a_missing_python_lists_the_existing_ones(registry, repository, tmp_path):
    name = push(registry, repository, tmp_path, [PYTHON])
    with pytest.raises(ImageError, match=r"does not have Python 3.13, your version: it has /usr/local/bin/python3.11"):
        resolve_base(name, tmp_path, Registry).facts("linux/amd64", "3.13")


def test_a_python_removed_by_an_upper_layer_is_not_found(registry, repository, tmp_path):
    name = push(registry, repository, tmp_path, [PYTHON, {"usr/local/bin/.wh.python3.11": b""}])
    with pytest.raises(ImageError, match="it has no Python"):
        resolve_base(name, tmp_path, Registry).facts("linux/amd64", "3.11")


def test_a_base_for_one_platform_is_an_error_for_the_other(registry, repository, tmp_path):
    name = push(registry, repository, tmp_path, [PYTHON], platforms=("linux/amd64",))
    found = resolve_base(name, tmp_path, Registry)
    assert found.facts("linux/amd64", "3.11").python == "/usr/local/bin/python3.11"
    with pytest.raises(ImageError, match="not built for linux/arm64; it is for linux/amd64 only"):
        found.part("linux/arm64")


def test_only_uncompiled_files_of_the_standard_library_are_compiled(registry, repository, tmp_path):
    python, tag = packages.PYTHON, sys.implementation.cache_tag
    library = f"usr/local/lib/python{python}"
    files = {
        f"{library}/done.py": b"b = 2\n",
        f"{library}/__pycache__/done.{tag}.pyc": b"compiled",
        f"usr/local/bin/python{python}": b"\x7fELF",
        f"{library}/json/decoder.py": b"a = 1\n",
        f"{library}/test/test_json.py": b"c = 3\n",
        f"{library}/site-packages/pip/__init__.py": b"d = 4\n",
    }
    found = resolve_base(push(registry, repository, tmp_path, [files]), tmp_path, Registry)
    layers, bytecode = Layers(tmp_path / "layers"), Bytecode(tmp_path / "bytecode")
    layer, kept = found.standard_library("linux/amd64", python, layers, bytecode)
    assert not kept
    with tarfile.open(fileobj=io.BytesIO(_unpacked(layer))) as archive:
        compiled = [member.name for member in archive if member.isfile()]
    assert compiled == [f"{library}/json/__pycache__/decoder.{tag}.pyc"]
    assert found.standard_library("linux/amd64", python, layers, bytecode) == (layer, True)


def _unpacked(layer: Layer) -> bytes:
    with open_layer(layer.path, layer.media_type) as file:
        return file.read()
