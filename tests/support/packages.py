"""Write packages for tests: wheels, source distributions and project folders."""

from __future__ import annotations

import base64
import hashlib
import io
import sys
import tarfile
import textwrap
import zipfile
from collections.abc import Iterable
from pathlib import Path

#: The running Python's version and its wheel tag: the direct builder compiles with this Python.
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
CPYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"


def wheel(folder: Path, name: str, version: str = "1.0", tag: str = "py3-none-any", needs: Iterable[str] = ()) -> Path:
    """Write a wheel with one module."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": _metadata(name, version, needs),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    rows = [f"{path},sha256={_hash(text)},{len(text)}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(inside, text)
    return path


def source(folder: Path, name: str, version: str = "1.0", *, compiled: bool = False) -> Path:
    """Write a source distribution without build dependencies."""
    tree = project(folder / f"tree-{name}", name, version, compiled=compiled)
    path = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(tree.rglob("*")):
            archive.add(file, f"{name}-{version}/{file.relative_to(tree)}", recursive=False)
        body = _metadata(name, version, ()).encode()
        info = tarfile.TarInfo(f"{name}-{version}/PKG-INFO")
        info.size = len(body)
        archive.addfile(info, io.BytesIO(body))
    return path


def project(folder: Path, name: str, version: str = "1.0", *, compiled: bool = False) -> Path:
    """Write a project folder with its own build backend, which needs no index."""
    folder.mkdir(parents=True, exist_ok=True)
    tag = f"{CPYTHON}-{CPYTHON}-linux_x86_64" if compiled else "py3-none-any"
    (folder / f"{name}.py").write_text(f"VERSION = {version!r}\n")
    (folder / "pyproject.toml").write_text(
        f'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        f'[project]\nname = "{name}"\nversion = "{version}"\n'
    )
    (folder / "backend.py").write_text(
        textwrap.dedent(
            f"""
            import pathlib, zipfile
            INFO = "{name}-{version}.dist-info"

            def build_wheel(directory, config_settings=None, metadata_directory=None):
                file = "{name}-{version}-{tag}.whl"
                with zipfile.ZipFile(pathlib.Path(directory) / file, "w") as archive:
                    archive.writestr("{name}.py", pathlib.Path("{name}.py").read_text())
                    archive.writestr(INFO + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
                    archive.writestr(INFO + "/WHEEL", "Wheel-Version: 1.0\\nTag: {tag}\\nRoot-Is-Purelib: true\\n")
                    names = ["{name}.py", INFO + "/METADATA", INFO + "/WHEEL", INFO + "/RECORD"]
                    archive.writestr(INFO + "/RECORD", "".join(each + ",,\\n" for each in names))
                return file

            build_editable = build_wheel
            """
        )
    )
    return folder


def _metadata(name: str, version: str, needs: Iterable[str]) -> str:
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {n}" for n in needs)]
    return "\n".join(lines) + "\n"


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
