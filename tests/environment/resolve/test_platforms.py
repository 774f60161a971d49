"""Resolution for each platform with uv, on an index of files that the tests write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dask_starburst.environment.capture.model import Environment
from dask_starburst.environment.capture.wheels import of_folder
from dask_starburst.environment.resolve.lock import install, resolve
from dask_starburst.environment.resolve.platforms import explain, from_source, resolve_platforms
from dask_starburst.environment.tools.uv import own_platform
from dask_starburst.errors import ImageError
from tests.support.packages import project, source, wheel

ARM, AMD = "linux/arm64", "linux/amd64"
BOTH = (ARM, AMD)
TAGS = {ARM: "py3-none-manylinux_2_17_aarch64", AMD: "py3-none-manylinux_2_17_x86_64"}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    (folder / "simple").mkdir(parents=True)
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX"):
        monkeypatch.setenv(name, (folder / "simple").as_uri())
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def asking(*requirements: str, pins: tuple[str, ...] = ()) -> Environment:
    return Environment("3.11", requirements, pins, origin="requirements.txt")


def test_each_platform_gets_its_packages_at_the_pinned_versions(index: Path, cache: Path):
    wheel(
        index, "app", needs=["common", "onlyarm ; platform_machine == 'aarch64'", "notlinux ; sys_platform == 'win32'"]
    )
    for version in ("1.0", "2.0"):
        wheel(index, "common", version)
    wheel(index, "onlyarm")
    found = resolve_platforms(asking("app", pins=("common==1.0", "notlinux==1.0")), BOTH, cache)
    assert found.locks[AMD].packages == (("app", "1.0"), ("common", "1.0"))
    assert found.locks[ARM].packages == (("app", "1.0"), ("common", "1.0"), ("onlyarm", "1.0"))


def test_the_error_names_every_package_without_a_wheel_and_what_to_do(index: Path, cache: Path):
    for name in ("fast", "faster"):
        wheel(index, name, tag=TAGS[AMD])
    source(index, "compiled", compiled=True)
    wheel(index, "fine")
    found = resolve_platforms(asking("fast==1.0", "faster==1.0", "compiled==1.0", "fine"), BOTH, cache)
    assert {each.name for each in found.missing[ARM]} == {"fast", "faster", "compiled"}
    assert {each.name for each in found.missing[AMD]} == {"compiled"}
    said = explain(found.missing[ARM], ARM, "requirements.txt")
    assert "requirements.txt has packages that cannot be installed on linux/arm64" in said
    assert 'arch="x86_64"' in said
    assert "buildx" in said


def test_a_pure_source_distribution_becomes_a_wheel_for_both_platforms(index: Path, cache: Path):
    source(index, "pure")
    found = resolve_platforms(asking("pure==1.0"), BOTH, cache)
    assert found.missing == {}
    assert [each.name for each in found.environment.wheels] == ["pure"]
    for platform in BOTH:
        install(found.locks[platform], found.environment, cache / platform)
        assert (cache / platform / "pure.py").read_text() == "VERSION = '1.0'\n"


def test_a_local_package_with_compiled_parts_is_only_for_this_computers_architecture(
    index: Path, cache: Path, tmp_path: Path
):
    wheel(index, "app")
    here = own_platform()
    other = next(platform for platform in BOTH if platform != here)
    local = of_folder(project(tmp_path / "fast", "fast", compiled=True), cache, "editable")
    environment = replace(asking("app"), wheels=(local,))
    found = resolve_platforms(environment, BOTH, cache)
    assert found.locks.keys() == {here}
    assert ("fast", "1.0") in found.locks[here].packages
    assert "fast 1.0 (compiled on this computer" in explain(found.missing[other], other, "")
    assert from_source(found, cache).locks.keys() == {here}


def test_additions_to_a_lock_are_installed(index: Path, cache: Path):
    wheel(index, "locked")
    wheel(index, "added", "3.0")
    environment = Environment("3.11", ("added",), (), lock=f"locked==1.0 --hash=sha256:{'0' * 64}")
    lock = resolve(environment, ARM, cache)
    assert lock.packages == (("added", "3.0"), ("locked", "1.0"))
    assert "0" * 64 in lock.text


def test_a_second_resolution_uses_the_cache(index: Path, cache: Path):
    wheel(index, "app")
    source(index, "pure")
    first = resolve_platforms(asking("app", "pure==1.0"), BOTH, cache)
    for path in index.iterdir():
        path.unlink() if path.is_file() else None
    assert resolve_platforms(asking("app", "pure==1.0"), BOTH, cache) == first


def test_each_platform_gets_its_own_files(index: Path, cache: Path):
    for tag in TAGS.values():
        wheel(index, "fast", tag=tag)
    environment = asking("fast")
    for platform, tag in TAGS.items():
        install(resolve(environment, platform, cache), environment, cache / "site" / platform)
        (info,) = (cache / "site" / platform).glob("*.dist-info")
        assert f"Tag: {tag}" in (info / "WHEEL").read_text()


def test_the_error_for_conflicting_versions_contains_uvs_output(index: Path, cache: Path):
    wheel(index, "app", needs=["common>=2"])
    for version in ("1.0", "2.0"):
        wheel(index, "common", version)
    with pytest.raises(ImageError, match=r"(?s)requirements\.txt cannot be installed.*common"):
        resolve_platforms(asking("app", "common<2"), BOTH, cache)


def test_a_wheel_missing_from_the_index_is_an_error(index: Path, cache: Path):
    made = wheel(index, "gone")
    environment = asking("gone")
    lock = resolve(environment, ARM, cache)
    made.unlink()
    with pytest.raises(ImageError, match=r"(?s)installing packages for linux/arm64 failed.*gone"):
        install(lock, environment, cache / "site")


def test_the_hashes_of_the_users_lock_are_enforced(index: Path, cache: Path):
    wheel(index, "locked")
    lock = f"locked==1.0 --hash=sha256:{'0' * 64}"
    environment = Environment("3.11", (), (), lock=lock)
    with pytest.raises(ImageError, match=r"(?is)hash mismatch"):
        install(resolve(environment, ARM, cache), environment, cache / "site")


def test_errors_do_not_contain_passwords_of_an_index(index: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:s3cret-word@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "1")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ImageError) as caught:
        resolve(asking("nowhere"), ARM, cache)
    assert "127.0.0.1:9" in str(caught.value)
    assert "s3cret-word" not in str(caught.value)
