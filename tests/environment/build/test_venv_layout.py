"""The layout of packages that uv installed."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import io
import marshal
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dask_starburst.environment.build.tar import Entry
from dask_starburst.environment.build.bytecode import Bytecode
from dask_starburst.environment.capture.model import Environment, LocalWheel
from dask_starburst.environment.build.layer_groups import OWN, LayerGroup, group_packages
from dask_starburst.environment.resolve.lock import Lock
from dask_starburst.environment.build.venv_layout import packages, skeleton

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SITE = f"opt/venv/lib/python{PYTHON}/site-packages"
FILES = {
    "made_up/__init__.py": "def main() -> None:\n    print('made up')\n",
    "made_up/template.py": "this is {{ no }} Python\n",
    "made_up/tests/test_it.py": "assert True\n",
    "made_up-1.0.data/scripts/old-style": "#!python\nprint('old style')\n",
    "made_up-1.0.data/scripts/of-the-shell": "#!/bin/sh\necho\necho shell\n",
    "made_up-1.0.data/data/share/made-up/notes.txt": "notes\n",
    "made_up-1.0.data/data/etc/made-up.conf": "conf\n",
    "made_up-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n",
    "made_up-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "made_up-1.0.dist-info/entry_points.txt": "[console_scripts]\nmade-up = made_up:main\n",
}


def a_wheel(folder: Path) -> LocalWheel:
    """A wheel with all kinds of files that wheels support."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "made_up-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)
        archive.writestr("made_up-1.0.dist-info/RECORD", "".join(f"{name},,\n" for name in FILES))
    return LocalWheel("made-up", "1.0", path, "digest", True, "editable")


def a_group(folder: Path) -> LayerGroup:
    wheel = a_wheel(folder)
    lock = Lock("linux/arm64", "", ((wheel.name, wheel.version),))
    (group,) = group_packages(lock, Environment(PYTHON, (), (), wheels=(wheel,)))
    assert group.name == OWN
    return group


def layer_entries(folder: Path) -> dict[str, Entry]:
    work = folder / "work"
    work.mkdir(parents=True)
    entries = packages(a_group(folder / "wheels"), PYTHON, work, Bytecode(folder / "bytecode"))
    return {entry.path: entry for entry in entries}


def content(entry: Entry) -> bytes:
    assert entry.content is not None
    return entry.content if isinstance(entry.content, bytes) else entry.content.read_bytes()


@pytest.fixture(scope="module")
def entries(tmp_path_factory) -> dict[str, Entry]:
    return layer_entries(tmp_path_factory.mktemp("site"))


def test_scripts_name_the_images_python(entries):
    for name in ("made-up", "old-style"):
        script = entries[f"opt/venv/bin/{name}"]
        assert content(script).splitlines()[0] == b"#!/opt/venv/bin/python"
        assert script.executable
    assert b"from made_up import main" in content(entries["opt/venv/bin/made-up"])
    assert content(entries["opt/venv/bin/of-the-shell"]) == b"#!/bin/sh\necho\necho shell\n"


def test_data_files_are_outside_of_site_packages(entries):
    assert content(entries["opt/venv/share/made-up/notes.txt"]) == b"notes\n"
    assert content(entries["opt/venv/etc/made-up.conf"]) == b"conf\n"
    assert not [path for path in entries if path.startswith((f"{SITE}/share", f"{SITE}/etc", f"{SITE}/bin"))]


def test_the_record_of_a_package_is_correct(entries):
    rows = list(csv.reader(io.StringIO(content(entries[f"{SITE}/made_up-1.0.dist-info/RECORD"]).decode())))
    for name, digest, size in rows:
        path = os.path.normpath(f"{SITE}/{name}")
        data = content(entries[path])
        if digest:
            assert digest == f"sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')}"
            assert int(size) == len(data)
    listed = {os.path.normpath(f"{SITE}/{name}") for name, _, _ in rows}
    assert {path for path in entries if not path.endswith(".pyc")} == listed


def test_no_file_mentions_the_computer_that_built_it(entries, tmp_path_factory):
    here = str(tmp_path_factory.getbasetemp()).encode()
    for path, entry in entries.items():
        assert here not in content(entry), path
        assert sys.executable.encode() not in content(entry), path


def test_two_folders_yield_equal_files(entries, tmp_path):
    again = layer_entries(tmp_path / "another")
    assert {path: content(entry) for path, entry in entries.items()} == {p: content(e) for p, e in again.items()}


def test_compiled_modules_have_their_path_in_the_image(entries):
    compiled = entries[f"{SITE}/made_up/__pycache__/__init__.{sys.implementation.cache_tag}.pyc"]
    data = content(compiled)
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert int.from_bytes(data[4:8], "little") == 1  # by the hash of the source, which is not checked (PEP 552)
    assert marshal.loads(data[16:]).co_filename == f"/{SITE}/made_up/__init__.py"


def test_tests_are_not_compiled_and_invalid_files_are_skipped(entries):
    compiled = [path for path in entries if path.endswith(".pyc")]
    assert [path.rpartition("/")[2].partition(".")[0] for path in compiled] == ["__init__"]
    assert {f"{SITE}/made_up/template.py", f"{SITE}/made_up/tests/test_it.py"} <= entries.keys()


def test_a_compiled_file_is_cached_by_its_source(tmp_path):
    bytecode = Bytecode(tmp_path / "kept")
    for name, text in (("one", "a = 1\n"), ("two", "a = 1\n"), ("three", "a = 2\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text(text)
        bytecode.compile(tmp_path / name, "/opt/venv", lambda path: True)
    made = [next((tmp_path / name / "__pycache__").iterdir()).read_bytes() for name in ("one", "two", "three")]
    assert made[0] == made[1] != made[2]
    assert len([path for path in (tmp_path / "kept").rglob("*") if path.is_file()]) == 2


def test_the_virtual_environment_uses_the_images_python():
    entries = {entry.path: entry for entry in skeleton("3.12", "/usr/local/bin/python3.12")}
    assert b"home = /usr/local/bin\n" in content(entries["opt/venv/pyvenv.cfg"])
    assert entries["opt/venv/bin/python"].link == "/usr/local/bin/python3.12"
    assert entries["opt/venv/bin/python3.12"].link == entries["opt/venv/bin/python3"].link == "python"


def test_python_accepts_the_layout_as_a_virtual_environment(entries, tmp_path):
    """Here it uses this computer's Python, at another path than in the image."""
    root = tmp_path / "opt" / "venv"
    # PYTHONHOME and similar variables are ignored: a virtual environment is found by its pyvenv.cfg.
    base = os.path.realpath(sys.executable)
    for entry in (*skeleton(PYTHON, base), *entries.values()):
        path = tmp_path / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.link:
            path.symlink_to(entry.link)
        elif entry.content is not None:
            path.write_bytes(content(entry))
            path.chmod(stat.S_IRWXU if entry.executable else stat.S_IRUSR)
    code = "import made_up, sys; made_up.main(); print(sys.prefix)"
    done = subprocess.run([root / "bin" / "python", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["made up", str(root)]
