"""Build wheels of packages that are not on an index: editable and local packages, and those installed from git."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import Distribution
from pathlib import Path

from packaging.utils import canonicalize_name

from dask_starburst.environment.capture.model import LocalWheel
from dask_starburst.environment.tools import uv
from dask_starburst.errors import ImageError
from dask_starburst.paths import private_folder, write_atomic

#: Folders of a source tree that are not part of a wheel.
_SKIPPED = {".git", ".hg", ".venv", "venv", "node_modules", "__pycache__", ".tox", ".nox", "build", "dist"}
#: Limits of a source tree (files, bytes): hashing a larger one at every launch would be slow.
_MOST_FILES, _MOST_BYTES = 20_000, 512 << 20
#: The time of every file in a wheel: the earliest that a zip file supports.
_EPOCH = "315532800"
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)


def of_folder(folder: Path, cache: Path, origin: str) -> LocalWheel:
    """Return the wheel of a source tree, rebuilt only when the tree has changed.

    Parameters
    ----------
    folder : Path
        The folder of its ``pyproject.toml`` or ``setup.py``.
    cache : Path
        Cache folder.
    origin : str
        Where the package comes from, for messages.

    Raises
    ------
    ImageError
        The build failed; the message contains uv's output.
    """
    note = cache / "wheels" / f"{_tree_digest(folder)}.json"
    if (kept := _kept(note)) is not None:
        return kept
    with tempfile.TemporaryDirectory() as name:
        done = uv.run(["build", "--wheel", "--out-dir", name, str(folder)], {"SOURCE_DATE_EPOCH": _EPOCH})
        built = list(Path(name).glob("*.whl"))
        if done.returncode != 0 or not built:
            raise ImageError(f"building a wheel of {folder} failed; uv says:\n{uv.words(done)}")
        return _keep(built[0], note, origin)


def of_file(wheel: Path, cache: Path, origin: str) -> LocalWheel:
    """Return an existing wheel, copied to the cache in case the original is deleted."""
    note = cache / "wheels" / f"{hashlib.sha256(wheel.read_bytes()).hexdigest()[:32]}.json"
    return _kept(note) or _keep(wheel, note, origin)


def of_installed(distribution: Distribution, cache: Path, origin: str) -> LocalWheel:
    """Return a wheel made of the files of an installed package, whose source may no longer exist.

    Raises
    ------
    ImageError
        The list of its files is missing, or a file is.
    """
    listed = [path for path in _listed(distribution) if _belongs(path)]
    files = {path: Path(str(distribution.locate_file(path))) for path in listed}
    name, version = canonicalize_name(distribution.metadata["Name"]), distribution.version
    if not files or not all(path.is_file() for path in files.values()):
        raise ImageError(f"{name} {version} ({origin}) lacks its files or their list; reinstall or exclude it.")
    contents = {name: path.read_bytes() for name, path in files.items()}
    digest = hashlib.sha256(repr(sorted((n, hashlib.sha256(b).hexdigest()) for n, b in contents.items())).encode())
    note = cache / "wheels" / f"{digest.hexdigest()[:32]}.json"
    if (kept := _kept(note)) is not None:
        return kept
    with tempfile.TemporaryDirectory() as folder:
        tag = _tag(distribution)
        path = Path(folder) / f"{re.sub('[-_.]+', '_', name)}-{version}-{tag}.whl"
        _pack(path, contents)
        return _keep(path, note, origin)


def _listed(distribution: Distribution) -> list[str]:
    """Return all recorded files, including missing ones, which `files` omits since Python 3.12."""
    record = distribution.read_text("RECORD")
    if record is None:  # an installer that predates wheels
        return [str(path) for path in distribution.files or ()]
    return [row[0] for row in csv.reader(record.splitlines()) if row]


def _keep(built: Path, note: Path, origin: str) -> LocalWheel:
    folder = note.with_suffix("")
    private_folder(folder)
    path = folder / built.name
    with tempfile.TemporaryDirectory(dir=folder) as here:  # replace atomically: another process may be reading it
        copy = shutil.copyfile(built, Path(here) / built.name)
        copy.chmod(0o600)
        os.replace(copy, path)
    name, version = built.name.split("-")[:2]
    wheel = LocalWheel(
        canonicalize_name(name), version, path, _content_digest(path), built.stem.endswith("-none-any"), origin
    )
    write_atomic(note, json.dumps(asdict(wheel), default=str).encode())
    return wheel


def _kept(note: Path) -> LocalWheel | None:
    try:
        facts = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    wheel = LocalWheel(**facts | {"path": Path(facts["path"])})
    return wheel if wheel.path.exists() else None


def _content_digest(wheel: Path) -> str:
    """Return a hash of the names and contents of a wheel's files: zip files differ in times and order."""
    with zipfile.ZipFile(wheel) as archive:
        # RECORD lists the other files; its order depends on the build tool.
        names = sorted(name for name in archive.namelist() if not name.endswith((".dist-info/RECORD", "/")))
        found = [(name, hashlib.sha256(archive.read(name)).hexdigest()) for name in names]
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _tree_digest(folder: Path) -> str:
    hashed, total = hashlib.sha256(), 0
    for number, path in enumerate(sorted(_sources(folder))):
        total += path.stat().st_size
        if number >= _MOST_FILES or total > _MOST_BYTES:
            raise ImageError(
                f"{folder} is too large for a package: more than {_MOST_FILES} files or {_MOST_BYTES >> 20} MB. Move"
                " data out of it, or add it to .gitignore."
            )
        hashed.update(f"{path.relative_to(folder).as_posix()}\0{os.access(path, os.X_OK)}\0".encode())
        hashed.update(hashlib.sha256(path.read_bytes()).digest())
    hashed.update(uv.version().encode())
    return hashed.hexdigest()[:32]


def _sources(folder: Path) -> Iterable[Path]:
    """Return the files that a wheel may contain: those git does not ignore, or all but the usual build artifacts."""
    command = ["git", "-C", str(folder), "ls-files", "-co", "--exclude-standard", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return _walk(folder)
    paths = [folder / name for name in done.stdout.split("\0") if name]
    found = [path for path in paths if path.suffix != ".pyc" and path.is_file()]
    # Empty: an enclosing repository ignores the folder.
    return found or _walk(folder)


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir():
            # A link may lead out of the tree or form a loop.
            if path.name not in _SKIPPED and not path.is_symlink() and not path.name.endswith(".egg-info"):
                yield from _walk(path)
        elif path.is_file() and path.suffix != ".pyc":
            yield path


def _belongs(name: str) -> bool:
    """Whether a file of an installed package was in its wheel; scripts are created on installation."""
    last = name.rpartition("/")[2]
    left = last in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")
    return not (left or name.startswith("..") or name.endswith(".pyc"))


def _tag(distribution: Distribution) -> str:
    """Return the tag of a package's wheel, preferring a pure one."""
    text = distribution.read_text("WHEEL") or ""
    tags = re.findall(r"^Tag: (\S+)", text, re.MULTILINE)
    return next((tag for tag in tags if tag.endswith("-none-any")), tags[0] if tags else "py3-none-any")


def _pack(path: Path, contents: dict[str, bytes]) -> None:
    info = next(name.split("/")[0] for name in contents if ".dist-info/" in name)
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    for name, data in sorted(contents.items()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        writer.writerow([name, f"sha256={digest}", len(data)])
    writer.writerow([f"{info}/RECORD", "", ""])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in [*sorted(contents.items()), (f"{info}/RECORD", rows.getvalue().encode())]:
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), data)
