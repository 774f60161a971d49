"""A base image: Debian's Python for both platforms, extracted by mmdebstrap without running any of it."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.unavailable import Unavailable, require
from dask_starburst.environment.build.layers import Layer
from dask_starburst.environment.registry.documents import LAYER_GZIP

PLATFORMS = {"linux/amd64": "amd64", "linux/arm64": "arm64"}
_SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
#: Files that Python does not need; omitting them makes the base a fifth smaller.
_LEFT_OUT = ("dev/", "etc/apt", "usr/share/", "var/")
#: Links since Debian 12; the package scripts that create them are not run here.
_MERGED = ("bin", "sbin", "lib", "lib64")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}
_LINKS = {**{name: f"usr/{name}" for name in _MERGED}, "usr/bin/sh": "dash"}


@dataclass(frozen=True)
class Rootfs:
    """The single gzip layer of a base, with its digests."""

    platform: str
    layer: Path
    digest: str
    diff_id: str

    @property
    def as_layer(self) -> Layer:
        """The layer, as builders push it."""
        return Layer(self.diff_id, self.digest, self.layer.stat().st_size, LAYER_GZIP, self.layer)


def why_no_rootfs() -> str:
    """Return why the base cannot be built on this computer, or an empty string."""
    if shutil.which("mmdebstrap") is None:
        return "mmdebstrap is not installed"
    if os.geteuid() != 0:
        return "mmdebstrap requires root"
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        done = subprocess.run(["/usr/bin/python3", "-V"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "Debian's Python is not installed"
    debian = done.stdout.split()[1]
    if debian.rpartition(".")[0] != ours:
        return f"Debian's Python is {debian}, but the tests run with {ours}"
    return "" if any(path.exists() for path in _SOURCES) else "Debian's package sources are not configured"


def rootfs(folder: Path) -> dict[str, Rootfs]:
    """Build the base for both platforms, or return the one that another process has built."""
    require(why_no_rootfs())
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"), ThreadPoolExecutor(2) as pool:
        made = pool.map(lambda platform: _rootfs(platform, folder), PLATFORMS)
        return {each.platform: each for each in made}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _rootfs(platform: str, folder: Path) -> Rootfs:
    arch = PLATFORMS[platform]
    layer, note = folder / f"{arch}.tar.gz", folder / f"{arch}.json"
    if not note.exists():
        diff_id = _pack(_extract(arch, folder), layer)
        digest = f"sha256:{hashlib.sha256(layer.read_bytes()).hexdigest()}"
        note.write_text(json.dumps({"digest": digest, "diff_id": diff_id}))
    facts = json.loads(note.read_text())
    return Rootfs(platform, layer, facts["digest"], facts["diff_id"])


def _extract(arch: str, folder: Path) -> Path:
    path = folder / f"{arch}.tar"
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    sources = next(str(path) for path in _SOURCES if path.exists())
    command = ["mmdebstrap", "--variant=extract", "--include=python3,dash", f"--architectures={arch}", "--quiet"]
    command += [release["VERSION_CODENAME"].strip('"'), str(path), sources]
    done = subprocess.run(
        command, env={**os.environ, "SOURCE_DATE_EPOCH": "0"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Unavailable(f"mmdebstrap could not build a base for {arch}: {done.stderr.strip().splitlines()[-1:]}")
    return path


def _pack(source: Path, layer: Path) -> str:
    """Write the files that Python needs as a layer; return the digest of its contents."""
    plain = layer.with_suffix("")
    with tarfile.open(source, "r:") as whole, tarfile.open(f"{plain}.partial", "w:") as lean:
        for member in whole:
            member.name = _merged(member.name.removeprefix("./"))
            if member.islnk():
                member.linkname = _merged(member.linkname.removeprefix("./"))
            if member.name in ("", ".", *_MERGED) or member.name.startswith(_LEFT_OUT):
                continue
            lean.addfile(member, whole.extractfile(member) if member.isreg() else None)
        for name, text in _FILES.items():
            _add(lean, name, text)
        for name, target in _LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            lean.addfile(link)
        for name, mode in (("tmp", 0o1777), ("proc", 0o755), ("dev", 0o755), ("sys", 0o755), ("root", 0o700)):
            place = tarfile.TarInfo(name)
            place.type, place.mode = tarfile.DIRTYPE, mode
            lean.addfile(place)
    data = Path(f"{plain}.partial").read_bytes()
    with layer.open("wb") as raw, gzip.GzipFile("", "wb", 1, raw, mtime=0) as file:
        file.write(data)
    for path in (source, Path(f"{plain}.partial")):
        path.unlink(missing_ok=True)
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _merged(name: str) -> str:
    return f"usr/{name}" if name.split("/")[0] in _MERGED and "/" in name.rstrip("/") else name


def _add(archive: tarfile.TarFile, name: str, text: str) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(text), 0o644
    archive.addfile(member, io.BytesIO(text.encode()))
