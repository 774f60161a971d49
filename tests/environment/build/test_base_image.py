"""Base images: pinned, remembered, looked through once."""

from __future__ import annotations

import io
import sys
import tarfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from dask_starburst.environment.build.tar import opened
from dask_starburst.environment.build.base_image import MEMORY, BaseImage, resolve_base
from dask_starburst.environment.build.bytecode import Bytecode
from dask_starburst.environment.build.layers import Layer, Layers
from dask_starburst.environment.registry.client import Registry
from dask_starburst.errors import ImageError, RegistryUnavailable
from tests.support import packages
from tests.support.image_fixtures import layer_of, push_image
from tests.support.base_rootfs import PLATFORMS
from tests.support.docker_registry import quick

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
    return quick(registry_server)


@pytest.fixture
def repository() -> str:
    """A repository that no other test pushes to."""
    return f"bases/{uuid.uuid4().hex}"


def nobody(host: str) -> Registry:
    """A registry that is down."""
    return quick("127.0.0.1:9")


def test_what_a_tag_means_is_remembered_for_a_day_and_nobody_is_asked(registry, repository, tmp_path):
    name = push(registry, repository, tmp_path, [PYTHON])
    first = resolve_base(name, tmp_path, quick, now=NOW)
    push(registry, repository, tmp_path, [PYTHON, {"etc/motd": b"new"}])
    later = resolve_base(name, tmp_path, nobody, now=NOW + MEMORY - 1)
    assert later.reference == first.reference == f"{registry.host}/{repository}@{first.digest}"
    assert resolve_base(name, tmp_path, quick, now=NOW + MEMORY).digest != first.digest


def test_what_it_meant_earlier_is_taken_when_its_registry_is_down(registry, repository, tmp_path):
    name = push(registry, repository, tmp_path, [PYTHON])
    first = resolve_base(name, tmp_path, quick, now=NOW)
    later = NOW + 30 * MEMORY
    assert resolve_base(name, tmp_path, nobody, now=later).reference == first.reference
    with pytest.raises(RegistryUnavailable):
        resolve_base(name, tmp_path, nobody, now=later, refresh=True)


def test_a_refresh_asks_although_it_is_remembered(registry, repository, tmp_path):
    name = push(registry, repository, tmp_path, [PYTHON])
    first = resolve_base(name, tmp_path, quick, now=NOW)
    push(registry, repository, tmp_path, [PYTHON, {"etc/motd": b"new"}])
    assert resolve_base(name, tmp_path, quick, now=NOW, refresh=True).digest != first.digest


def test_a_base_with_a_digest_is_not_looked_up(tmp_path):
    digest = f"sha256:{'a' * 64}"
    found = resolve_base(f"127.0.0.1:9/some/python:3.11@{digest}", tmp_path, nobody)
    assert found.reference == f"127.0.0.1:9/some/python@{digest}"


def test_a_registry_that_is_down_is_said(tmp_path):
    with pytest.raises(RegistryUnavailable, match=r"127\.0\.0\.1:9"):
        resolve_base("127.0.0.1:9/some/python:3.11", tmp_path, nobody)


def test_a_base_that_does_not_exist_is_said(registry, tmp_path):
    with pytest.raises(ImageError, match=r"the base image .*/no/such:3.11 does not exist; name another with base="):
        resolve_base(f"{registry.host}/no/such:3.11", tmp_path, Registry)


def test_its_python_is_found_in_any_layer_and_then_never_again_looked_for(registry, repository, tmp_path):
    passwd = b"root:x:0:0::/root:/bin/sh\n"
    name = push(registry, repository, tmp_path, [{"etc/passwd": passwd}, PYTHON])
    found = resolve_base(name, tmp_path, Registry)
    ground = found.ground("linux/arm64", "3.11")
    assert (ground.python, ground.passwd, ground.group) == ("/usr/local/bin/python3.11", passwd.decode(), "")
    known = BaseImage(name, found.digest, nobody(""), tmp_path / "bases")
    assert known.ground("linux/arm64", "3.11") == ground


def test_a_base_without_the_python_says_what_it_has(registry, repository, tmp_path):
    name = push(registry, repository, tmp_path, [PYTHON])
    with pytest.raises(ImageError, match=r"has no Python 3.13, which is yours: it has /usr/local/bin/python3.11"):
        resolve_base(name, tmp_path, Registry).ground("linux/amd64", "3.13")


def test_a_python_that_an_upper_layer_has_removed_is_not_there(registry, repository, tmp_path):
    name = push(registry, repository, tmp_path, [PYTHON, {"usr/local/bin/.wh.python3.11": b""}])
    with pytest.raises(ImageError, match="no Python at all"):
        resolve_base(name, tmp_path, Registry).ground("linux/amd64", "3.11")


def test_a_base_for_one_platform_only_says_so_for_the_other(registry, repository, tmp_path):
    name = push(registry, repository, tmp_path, [PYTHON], platforms=("linux/amd64",))
    found = resolve_base(name, tmp_path, Registry)
    assert found.ground("linux/amd64", "3.11").python == "/usr/local/bin/python3.11"
    with pytest.raises(ImageError, match="not made for linux/arm64; it is for linux/amd64 only"):
        found.part("linux/arm64")


def test_of_the_standard_library_only_what_is_not_compiled_is(registry, repository, tmp_path):
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
    with opened(layer.path, layer.media_type) as file:
        return file.read()
