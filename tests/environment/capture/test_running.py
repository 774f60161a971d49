"""Capture of the running Python, in separate Pythons with packages that the tests write."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from dask_starburst.environment.capture.running import capture
from dask_starburst.errors import BadArgument
from tests.support.packages import project, wheel

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with this dask_starburst and some test packages; it also sees this environment's packages."""
    folder = tmp_path_factory.mktemp("python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv" / "bin" / "python"
    site = next((folder / "venv").rglob("site-packages"))
    # This environment's packages, after those of the new one.
    (site / "ours.pth").write_text("\n".join([str(Path(pytest.__file__).parent.parent), str(ROOT)]))
    index = folder / "index"
    index.mkdir()
    wheel(index, "leaf", "1.5")
    wheel(index, "ring_a", needs=["ring-b"])
    wheel(index, "ring_b", needs=["ring-a"])
    wheel(index, "trunk", "2.0", needs=["leaf", "not-here ; sys_platform == 'win32'"])
    editable = project(folder / "src" / "worked_on", "worked_on", "0.3")
    local = project(folder / "src" / "from_folder", "from_folder", "0.4")
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(python)]
    offline = ["--offline", "--find-links", str(index), "--no-deps"]
    subprocess.run([*install, *offline, "trunk", "leaf", "ring-a", "ring-b"], check=True)
    subprocess.run([*install, "--no-deps", str(local)], check=True)
    _install_editable(site, editable)
    return python


def _install_editable(site: Path, folder: Path) -> None:
    """Write the files that an installer creates for an editable package."""
    info = site / "worked_on-0.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: worked-on\nVersion: 0.3\n")
    (info / "direct_url.json").write_text(json.dumps({"url": folder.as_uri(), "dir_info": {"editable": True}}))
    (info / "RECORD").write_text("")
    (site / "worked_on.pth").write_text(str(folder))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shared cache: wheels are built once."""
    return tmp_path_factory.mktemp("cache")


def run_in(python: Path, code: str, *arguments: str) -> Any:
    """Run code in a Python, and return its output as JSON."""
    done = subprocess.run(
        [str(python), "-c", textwrap.dedent(code), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


CAPTURE = """
import dataclasses, json, pathlib, sys
from dask_starburst.environment.capture.running import capture
found = capture(cache=pathlib.Path(sys.argv[1]))
print(json.dumps(dataclasses.asdict(found), default=str))
"""


def test_root_packages_are_requested_and_all_packages_are_pinned(other_python: Path, cache: Path):
    found = run_in(other_python, CAPTURE, str(cache))
    asked, pins = found["requirements"], found["constraints"]
    assert "trunk==2.0" in asked
    assert "leaf==1.5" not in asked
    assert {"trunk==2.0", "leaf==1.5", "ring-a==1.0", "ring-b==1.0"} <= set(pins)
    assert (
        len([name for name in asked if name.startswith("ring-")]) == 1
    )  # otherwise none of the cycle would be installed
    assert not [name for name in asked if name.startswith(("pip==", "uv=="))]


def test_packages_that_are_not_on_an_index_are_wheels(other_python: Path, cache: Path):
    found = run_in(other_python, CAPTURE, str(cache))
    wheels = {each["name"]: each for each in found["wheels"]}
    assert {"worked-on", "from-folder", "dask-starburst"} <= set(wheels)
    assert wheels["worked-on"]["origin"] == "editable"
    assert wheels["from-folder"]["origin"] == "local folder"
    assert all(each["pure"] for each in wheels.values())
    assert not [pin for pin in found["constraints"] if pin.startswith(("worked-on", "from-folder"))]


EXCLUDE = CAPTURE.replace("capture(cache", "capture(['trunk'], cache")


def test_dependencies_of_only_an_excluded_package_are_not_requested(other_python: Path, cache: Path):
    found = run_in(other_python, EXCLUDE, str(cache))
    assert not [name for name in found["requirements"] if name.startswith(("trunk", "leaf"))]
    assert "trunk==2.0" in found["constraints"]  # if others require it, the local version is installed


def test_only_a_change_in_an_editable_package_makes_another_wheel(other_python: Path, cache: Path):
    def digest() -> str:
        found = run_in(other_python, CAPTURE, str(cache))
        return str(next(each["digest"] for each in found["wheels"] if each["name"] == "worked-on"))

    before = digest()
    assert digest() == before
    module = next(other_python.parent.parent.parent.rglob("src/worked_on/worked_on.py"))
    text = module.read_text()
    try:
        module.write_text(text + "NEW = 1\n")
        assert digest() != before
    finally:
        module.write_text(text)


OWN = """
import json, sys
sys.path.insert(0, sys.argv[1])
import helpers, one_file, json
from dask_starburst.environment.capture.running import own_modules
print(json.dumps([(each.name, str(each.path)) for each in own_modules()]))
"""


def own_folder(folder: Path) -> Path:
    (folder / "helpers").mkdir(parents=True)
    (folder / "helpers" / "__init__.py").write_text("from helpers.deep import twice\n")
    (folder / "helpers" / "deep.py").write_text("def twice(x):\n    return 2 * x\n")
    (folder / "one_file.py").write_text(
        "import helpers\n\ndef four_times(x):\n    return helpers.twice(helpers.twice(x))\n"
    )
    return folder


def test_own_modules_are_those_outside_of_packages(other_python: Path, tmp_path: Path):
    folder = own_folder(tmp_path / "mine")
    found = run_in(other_python, OWN, str(folder))
    assert found == [["helpers", str(folder / "helpers")], ["one_file", str(folder / "one_file.py")]]


BY_VALUE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import cloudpickle, one_file
from dask_starburst.environment.capture.running import register_by_value
names = register_by_value()
open(sys.argv[2], "wb").write(cloudpickle.dumps(one_file.four_times))
print(json.dumps(names))
"""


def test_a_function_of_an_own_module_runs_without_the_module(other_python: Path, tmp_path: Path):
    folder = own_folder(tmp_path / "mine")
    pickled = tmp_path / "pickled"
    assert run_in(other_python, BY_VALUE, str(folder), str(pickled)) == ["helpers", "one_file"]
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb'))(3))"
    assert run_in(other_python, code, str(pickled)) == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"exclude": ["dask-starburst"]}, "which workers require"),
        (
            {"add": ["not a requirement"]},
            "build.add='not a requirement' is not a valid requirement; give one such as 's3fs",
        ),
        ({"add": ["-r more.txt"]}, "is an option, not a package"),
    ],
)
def test_an_invalid_exclusion_or_addition_is_an_error(tmp_path: Path, arguments: dict[str, Any], said: str):
    with pytest.raises(BadArgument, match=said):
        capture(cache=tmp_path, **arguments)
