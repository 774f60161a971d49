"""Wheels of folders, wheel files and installed packages."""

from __future__ import annotations

import json
import subprocess
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from dask_starburst.environment.capture.running import local_wheel
from dask_starburst.environment.capture.wheels import of_file, of_folder, of_installed
from dask_starburst.environment.tools.uv import run
from dask_starburst.errors import ImageError
from tests.support.packages import project, wheel


def git(folder: Path, *arguments: str) -> None:
    author = ["-c", "user.name=t", "-c", "user.email=t@test.invalid"]
    subprocess.run(["git", *author, "-C", str(folder), *arguments], check=True, capture_output=True)


def test_equal_packages_in_two_folders_make_equal_wheels(tmp_path: Path):
    one = of_folder(project(tmp_path / "a" / "x", "same"), tmp_path / "cache-1", "editable")
    other = of_folder(project(tmp_path / "b" / "y", "same"), tmp_path / "cache-2", "editable")
    assert one.digest == other.digest


def test_an_unchanged_folder_is_not_rebuilt(tmp_path: Path):
    tree = project(tmp_path / "x", "mine")
    first = of_folder(tree, tmp_path / "cache", "editable")
    made = first.path.stat().st_mtime_ns
    (tree / "__pycache__").mkdir(exist_ok=True)  # Python may have created it for the build
    (tree / "__pycache__" / "mine.pyc").write_bytes(b"whatever")
    assert of_folder(tree, tmp_path / "cache", "editable") == first
    assert first.path.stat().st_mtime_ns == made


def test_a_new_file_makes_another_wheel_unless_git_ignores_it(tmp_path: Path):
    tree = project(tmp_path / "x", "mine")
    git(tree, "init", "--quiet")
    (tree / ".gitignore").write_text("*.csv\n")
    first = of_folder(tree, tmp_path / "cache", "editable")
    (tree / "data.csv").write_text("1,2\n")
    (tree / "__pycache__").mkdir(exist_ok=True)
    (tree / "__pycache__" / "mine.pyc").write_bytes(b"whatever")
    assert of_folder(tree, tmp_path / "cache", "editable").path == first.path
    (tree / "new.py").write_text("")
    assert of_folder(tree, tmp_path / "cache", "editable").path != first.path


def test_packages_in_an_ignored_folder_have_different_wheels(tmp_path: Path):
    git(tmp_path, "init", "--quiet")
    (tmp_path / ".gitignore").write_text("vendor/\n")
    for name in ("one", "other"):
        assert of_folder(project(tmp_path / "vendor" / name, name), tmp_path / "cache", "editable").name == name


def test_symlink_loops_are_skipped(tmp_path: Path):
    tree = project(tmp_path / "x", "mine")
    (tree / "again").symlink_to(tree)
    assert of_folder(tree, tmp_path / "cache", "editable").name == "mine"


def test_a_folder_with_too_much_data_is_an_error(tmp_path: Path):
    tree = project(tmp_path / "x", "mine")
    with (tree / "data.bin").open("wb") as file:
        file.truncate(513 << 20)  # a sparse file
    with pytest.raises(ImageError, match="is too large for a package"):
        of_folder(tree, tmp_path / "cache", "editable")


def test_a_wheel_file_is_copied_to_the_cache(tmp_path: Path):
    path = wheel(tmp_path, "mine")
    kept = of_file(path, tmp_path / "cache", "local wheel")
    path.unlink()
    assert kept.path.exists()
    assert kept.pure


def test_a_wheel_for_one_platform_is_not_pure(tmp_path: Path):
    path = wheel(tmp_path, "mine", tag="cp311-cp311-linux_x86_64")
    assert not of_file(path, tmp_path / "cache", "local wheel").pure


def installed(folder: Path, path: Path) -> PathDistribution:
    done = run(["pip", "install", "--quiet", "--offline", "--no-deps", "--target", str(folder), str(path)])
    assert done.returncode == 0, done.stderr
    return PathDistribution(next(folder.glob("*.dist-info")))


def test_an_installed_package_becomes_an_equivalent_wheel(tmp_path: Path):
    first = installed(tmp_path / "site", wheel(tmp_path, "mine", "1.5"))
    made = of_installed(first, tmp_path / "cache", "git+https://example.test/mine@1234")
    assert (made.name, made.version, made.pure) == ("mine", "1.5", True)
    with zipfile.ZipFile(made.path) as archive:
        assert not [name for name in archive.namelist() if name.endswith("direct_url.json")]
    installed(tmp_path / "again", made.path)
    assert (tmp_path / "again" / "mine.py").read_text() == (tmp_path / "site" / "mine.py").read_text()


def test_an_installed_package_with_missing_files_is_an_error(tmp_path: Path):
    found = installed(tmp_path / "site", wheel(tmp_path, "mine"))
    (tmp_path / "site" / "mine.py").unlink()
    with pytest.raises(ImageError, match=r"mine 1\.0 \(git\) lacks its files or their list; reinstall or exclude"):
        of_installed(found, tmp_path / "cache", "git")


def direct(site: Path, facts: object) -> None:
    (next(site.glob("*.dist-info")) / "direct_url.json").write_text(json.dumps(facts))


def test_an_editable_package_with_a_missing_folder_is_an_error(tmp_path: Path):
    found = installed(tmp_path / "site", wheel(tmp_path, "mine"))
    direct(tmp_path / "site", {"url": (tmp_path / "gone").as_uri(), "dir_info": {"editable": True}})
    with pytest.raises(ImageError, match=r"mine is installed editable from .*gone, which is missing"):
        local_wheel(found, tmp_path / "cache")


def test_the_origin_of_a_git_package_has_its_commit_and_no_password(tmp_path: Path):
    found = installed(tmp_path / "site", wheel(tmp_path, "mine"))
    url = "https://me:s3cret-word@example.test/mine"
    direct(tmp_path / "site", {"url": url, "vcs_info": {"vcs": "git", "commit_id": "1234"}})
    made = local_wheel(found, tmp_path / "cache")
    assert made is not None
    assert made.origin == "git+https://***@example.test/mine@1234"
