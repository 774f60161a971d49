"""Steps of `worker.Dockerfile`, run by the Python of the image; they use its standard library only.

They do in a running image what `venv_layout`, `base_image` and `direct` do without one; the resulting images behave the
same.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

MOUNTED = Path("/starburst")
VENV = Path("/opt/venv")
HOME = Path("/home/dask")
USER = 1000
PYTHON = f"python{sys.version_info[0]}.{sys.version_info[1]}"
SITE = VENV / "lib" / PYTHON / "site-packages"
# Parts of the standard library that workers do not run.
NOT_COMPILED = {"test", "tests", "idlelib", "turtledemo", "tkinter", "lib2to3", "ensurepip"}
NOT_COMPILED |= {"site-packages", "dist-packages"}


def system() -> None:
    """Create the user and an empty virtual environment, and compile the standard library."""
    entry("/etc/passwd", f"dask:x:{USER}:{USER}::{HOME}:/bin/sh")
    entry("/etc/group", f"dask:x:{USER}:")
    HOME.mkdir(parents=True, exist_ok=True)
    os.chown(HOME, USER, USER)
    SITE.mkdir(parents=True)
    (VENV / "bin").mkdir()
    interpreter = os.path.realpath(sys.executable)
    settings = f"home = {os.path.dirname(interpreter)}\ninclude-system-site-packages = false\nversion = {PYTHON[6:]}\n"
    (VENV / "pyvenv.cfg").write_text(settings)
    (VENV / "bin" / "python").symlink_to(interpreter)
    for name in ("python3", PYTHON):
        (VENV / "bin" / name).symlink_to("python")
    library = Path(sysconfig.get_path("stdlib"))
    names = (path.relative_to(library) for path in library.rglob("*.py"))
    compile_all(library / name for name in names if not NOT_COMPILED.intersection(name.parts))


def entry(file: str, line: str) -> None:
    """Add a user or group, unless its name or ID is taken."""
    path = Path(file)
    lines = path.read_text().splitlines() if path.exists() else []
    if not any(each.split(":")[0] == "dask" or each.split(":")[2:3] == [str(USER)] for each in lines):
        path.write_text("".join(f"{each}\n" for each in [*lines, line]))


def packages() -> None:
    """Install the packages of the lock with their hashes; compile those without a wheel."""
    lock = MOUNTED / "lock.txt"
    if lock.stat().st_size:
        sources = MOUNTED / "sources.txt"
        own = ["-r", str(sources)] if sources.exists() else []
        uv("--require-hashes", "--no-deps", *own, "-r", str(lock))
        compile_packages()


def own() -> None:
    """Install local wheels, and copy the user's modules."""
    wheels = sorted(map(str, (MOUNTED / "own").glob("wheels/*.whl")))
    if wheels:
        uv("--no-deps", "--no-index", *wheels)
    modules = MOUNTED / "own" / "modules"
    if modules.is_dir():
        shutil.copytree(modules, SITE, dirs_exist_ok=True)
    compile_packages()


def uv(*arguments: str) -> None:
    """Run uv with the user's indexes, which appear neither on a command line nor in a layer."""
    environment = {**os.environ, "UV_LINK_MODE": "copy", "UV_NO_PROGRESS": "1", "UV_PYTHON_DOWNLOADS": "never"}
    index, authorities = MOUNTED / "index.json", MOUNTED / "authorities.pem"
    if index.exists():
        environment |= json.loads(index.read_text())
    if authorities.exists():
        environment["SSL_CERT_FILE"] = str(authorities)
    cache = MOUNTED / "cache"
    where = ["--cache-dir", str(cache)] if cache.is_dir() else ["--no-cache"]
    command = [str(MOUNTED / "uv"), "pip", "install", "--no-config", *where, "--python", str(VENV / "bin" / "python")]
    done = subprocess.run([*command, *arguments], env=environment, check=False)
    (VENV / ".lock").unlink(missing_ok=True)
    if done.returncode:
        sys.exit(f"starburst: installing packages failed with status {done.returncode}")


def compile_packages() -> None:
    """Compile the installed packages, except tests."""
    compile_all(path for path in SITE.rglob("*.py") if not {"test", "tests"}.intersection(path.relative_to(SITE).parts))


def compile_all(paths: Iterable[Path]) -> None:
    """Compile uncompiled files, with no check of the source at import (PEP 552)."""
    names = "\n".join(sorted(str(path) for path in paths if not compiled(path)))
    if names:
        command = [sys.executable, "-I", "-W", "ignore", "-m", "compileall", "-qq", "-j", "0"]
        done = subprocess.run([*command, "--invalidation-mode", "unchecked-hash", "-i", "-"], input=names, text=True)
        if done.returncode not in (0, 1):  # 1: a file was not valid Python of this version, as some templates are
            sys.exit(f"starburst: compiling Python files failed with status {done.returncode}")


def compiled(path: Path) -> bool:
    """Whether a file has a compiled file."""
    return (path.parent / "__pycache__" / f"{path.stem}.{sys.implementation.cache_tag}.pyc").exists()


if __name__ == "__main__":
    {"system": system, "packages": packages, "own": own}[sys.argv[1]]()
