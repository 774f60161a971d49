"""Lay out packages as a virtual environment at ``/opt/venv`` in the image.

An installer writes files for a folder on this computer: scripts name the wrong Python, data files are among the
packages, and some metadata names a local path. This module corrects that while it lists the members of the layer. The
files themselves are not changed, as they may be links to the installer's cache.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

from dask_starburst.environment.build.tar import Entry
from dask_starburst.environment.build.bytecode import Bytecode
from dask_starburst.environment.capture.model import OwnModule
from dask_starburst.environment.build.layer_groups import LayerGroup
from dask_starburst.environment.resolve.lock import install

#: Path of the virtual environment in the image.
VENV = "opt/venv"
#: Data folders of wheels, which an installer with ``--target`` puts among the packages.
_DATA = ("bin", "etc", "include", "share")
#: Metadata that says how this computer installed a package.
_NOTES = ("direct_url.json", "uv_build.json", "uv_cache.json")
_NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def site_packages(python: str) -> str:
    """Return the folder of the packages in the image."""
    return f"{VENV}/lib/python{python}/site-packages"


def skeleton(python: str, interpreter: str) -> Iterator[Entry]:
    """Yield the virtual environment without packages.

    Parameters
    ----------
    python : str
        The minor version.
    interpreter : str
        Path of the base image's Python.
    """
    home = interpreter.rpartition("/")[0]
    settings = f"home = {home}\ninclude-system-site-packages = false\nversion = {python}\n"
    yield Entry(f"{VENV}/pyvenv.cfg", settings.encode())
    yield Entry(f"{VENV}/bin/python", link=interpreter)
    yield Entry(f"{VENV}/bin/python3", link="python")
    yield Entry(f"{VENV}/bin/python{python}", link="python")
    yield Entry(site_packages(python))


def packages(group: LayerGroup, python: str, work: Path, bytecode: Bytecode) -> Iterator[Entry]:
    """Install a group, and yield its files as members of the layer.

    Parameters
    ----------
    group : LayerGroup
        The packages and their platform.
    python : str
        The minor version.
    work : Path
        An empty folder.
    bytecode : Bytecode
        Compiles the modules, except tests.
    """
    folder = work / "site"
    folder.mkdir()
    if group.lock.packages:
        install(group.lock, group.environment, folder)
    for module in group.environment.modules:
        _copy(module, folder)
    bytecode.compile(folder, f"/{site_packages(python)}", _is_imported)
    yield from image_entries(folder, python)


def image_entries(folder: Path, python: str) -> Iterator[Entry]:
    """Yield the files of a folder with installed packages as members of the layer."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    moved: dict[str, tuple[str, Path | bytes]] = {}
    for name, path in files.items():
        if _is_data(name, files):
            moved[name] = f"{VENV}/{name}", _script(path) if name.startswith("bin/") else path
    for name, path in sorted(files.items()):
        executable = bool(path.stat().st_mode & 0o100)
        if name in moved:
            yield Entry(moved[name][0], moved[name][1], executable=executable)
        elif name.endswith(".dist-info/RECORD"):
            yield Entry(f"{site_packages(python)}/{name}", _record(path, moved))
        elif not _is_note(name):
            yield Entry(f"{site_packages(python)}/{name}", path, executable=executable)


def _copy(module: OwnModule, folder: Path) -> None:
    if module.path.is_dir():
        shutil.copytree(module.path, folder / module.path.name, ignore=_NOT_SHIPPED, dirs_exist_ok=True)
    else:
        shutil.copyfile(module.path, folder / module.path.name)


def _is_imported(name: str) -> bool:
    folders = name.split("/")[:-1]
    return not ({"test", "tests"}.intersection(folders) or (folders and folders[0] in _DATA))


def _is_data(name: str, files: dict[str, Path]) -> bool:
    top, slash, _ = name.partition("/")
    return bool(slash) and top in _DATA and f"{top}/__init__.py" not in files


def _is_note(name: str) -> bool:
    folder, _, last = name.rpartition("/")
    return name == ".lock" or (folder.endswith(".dist-info") and last in _NOTES)


def _script(path: Path) -> bytes:
    """Return a script with the path of the image's Python."""
    data = path.read_bytes()
    lines = data.split(b"\n")
    if not data.startswith(b"#!") or len(lines) < 3:
        return data
    if lines[1].startswith(b"'''exec'"):  # the form for a path that is too long for the first line
        del lines[1:3]
    elif b"python" not in lines[0]:
        return data
    lines[0] = f"#!/{VENV}/bin/python".encode()
    return b"\n".join(lines)


def _record(path: Path, moved: dict[str, tuple[str, Path | bytes]]) -> bytes:
    """Return a package's RECORD (PEP 627) with the new paths and hashes of moved files."""
    rows = []
    for name, *facts in csv.reader(io.StringIO(path.read_text(encoding="utf-8"))):
        if name in moved:
            content = moved[name][1]
            data = content if isinstance(content, bytes) else content.read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.append([f"../../../{name}", f"sha256={digest}", str(len(data))])
        elif not _is_note(name):
            rows.append([name, *facts])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(sorted(rows))
    return text.getvalue().encode()
