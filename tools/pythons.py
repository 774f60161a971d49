"""Run what has to work on every Python on the oldest and the newest that there is, beside the one that `make` uses.

    python3 tools/pythons.py test-essential

Interpreters are looked for on PATH, as ``python3.12``, and among those of pyenv. What is not there is said and skipped.
Needs nothing but the standard library.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: What an interpreter is asked: its version, and whether it can make an environment.
ASK = "import ensurepip, sys, venv; print(*sys.version_info[:3], sys.version_info.releaselevel)"
MOST = 40


def candidates(oldest: int) -> Iterator[str]:
    """Name what may be an interpreter of Python 3."""
    yield from filter(None, (shutil.which(f"python3.{minor}") for minor in range(oldest, MOST)))
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(pyenv.glob("versions/3.*/bin/python")))


def interpreters(oldest: int) -> dict[int, str]:
    """Find the interpreters that work, by minor version; of several the newest, no release candidates."""
    found: dict[int, tuple[int, str]] = {}
    for path in candidates(oldest):
        done = subprocess.run([path, "-c", ASK], capture_output=True, text=True, check=False)
        if done.returncode or not done.stdout.endswith("final\n"):
            continue  # a shim of a version that is not chosen, or one without venv
        _, minor, patch = map(int, done.stdout.split()[:3])
        if minor >= oldest:
            found[minor] = max(found.get(minor, (-1, "")), (patch, path))
    return {minor: path for minor, (_, path) in sorted(found.items())}


def oldest_supported() -> int:
    """Read the oldest minor version that pyproject.toml allows."""
    allowed = re.search(r'requires-python = ">=3\.(\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert allowed is not None
    return int(allowed[1])


def main() -> int:
    """Make each target on the oldest and the newest; return 1 if one fails."""
    oldest, here = oldest_supported(), sys.version_info.minor
    found = interpreters(oldest) | {here: sys.executable}
    print("found:", ", ".join(f"3.{minor} ({path})" for minor, path in sorted(found.items())), flush=True)
    if oldest not in found:
        print(f"skipped: 3.{oldest}, the oldest that is supported, is neither on PATH nor in pyenv")
    failed = []
    for minor in sorted({min(found), max(found)}):
        if minor == here:
            print(f"skipped: 3.{minor} is the Python of `make test`", flush=True)
            continue
        print(f"Python 3.{minor}", flush=True)
        command = ["make", f"PYTHON={found[minor]}", f"VENV=.venv-3.{minor}", *sys.argv[1:]]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(f"3.{minor}")
    if failed:
        print("failed on", ", ".join(failed))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
