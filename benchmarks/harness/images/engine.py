"""A real docker engine with buildx: Debian trixie's, extracted into a folder and run there as root.

Debian bookworm has no buildx, and BuildKit's image cannot be pulled here. So the engine is trixie's, whose image store
builds for several platforms, and the builder is one that docker derives from a context. It has our builder's name, so
it is found and used in the same way. The engine runs in its own mount namespace with another root: in a plain chroot,
runc cannot remount it. Arm64 runs under qemu-user, registered with the kernel.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.harness.images.rootfs import why_no_rootfs
from benchmarks.harness.unavailable import Unavailable, require
from dask_starburst.environment.buildx.docker import BUILDER

_PACKAGES = "docker.io,docker-cli,docker-buildx,ca-certificates"
_SOURCES = Path("/etc/apt/sources.list.d/debian.sources")
_QEMU = "/usr/lib/binfmt.d/qemu-aarch64.conf"
_PLUGIN = "usr/libexec/docker/cli-plugins/docker-buildx"
_BINFMT = "/proc/sys/fs/binfmt_misc"
_REGISTER = f"""
mountpoint -q {_BINFMT} || mount -t binfmt_misc binfmt_misc {_BINFMT}
test -e {_BINFMT}/qemu-aarch64 || cat {_QEMU} > {_BINFMT}/register
"""
_START = f"""
{_REGISTER}
mount --make-rprivate /
mount --bind "$1" "$1"
for place in proc sys dev; do mount --rbind /$place "$1/$place"; done
cp /etc/resolv.conf /etc/hosts "$1/etc/"
mount --bind "$2" "$1/engine"
cd "$1"
pivot_root . old
exec /usr/sbin/dockerd --config-file /engine/daemon.json
"""
_FORGET = f"""
mountpoint -q {_BINFMT} || mount -t binfmt_misc binfmt_misc {_BINFMT}
echo -1 > {_BINFMT}/qemu-aarch64
"""
_DAEMON = {
    "features": {"containerd-snapshotter": True},
    "bridge": "none",
    "iptables": False,
    "ip6tables": False,
    "data-root": "/engine/data",
    "exec-root": "/engine/exec",
    "pidfile": "/engine/docker.pid",
    "hosts": ["unix:///engine/docker.sock"],
}


@dataclass(frozen=True)
class Engine:
    """A running engine, and docker's environment variables for it, its buildx and our builder."""

    socket: Path
    environment: Mapping[str, str]
    #: The engine has no network of its own: builds use the host's.
    options: tuple[str, ...] = ("--network", "host", "--allow", "network.host")

    def docker(self, *words: str) -> str:
        """Run docker and return its output."""
        done = subprocess.run(
            ["docker", *words], env={**os.environ, **self.environment}, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr


def why_no_engine() -> str:
    """Return why the engine cannot run on this computer, or an empty string."""
    if why := why_no_rootfs():
        return why
    if not _SOURCES.exists():
        return f"{_SOURCES} does not exist"
    return "" if Path(_QEMU).exists() else "qemu-user-static is not installed"


@contextmanager
def running_engine(folder: Path) -> Iterator[Engine]:
    """Extract the engine into a folder and run it for the duration of the context."""
    require(why_no_engine())
    root, work = folder / "root", folder / "work"
    work.mkdir(parents=True)
    _unpack(root)
    (work / "daemon.json").write_text(json.dumps(_DAEMON))
    had_qemu = Path(_BINFMT, "qemu-aarch64").exists()
    with (folder / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "-m", "sh", "-ceu", _START, "sh", str(root), str(work)], stdout=log, stderr=log
        )
    try:
        _wait_for(work / "docker.sock", process, folder / "dockerd.log")
        yield Engine(work / "docker.sock", _environment(folder, root, work / "docker.sock"))
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()
            if not had_qemu:
                subprocess.run(["unshare", "-m", "sh", "-ceu", _FORGET], check=False, capture_output=True)
            shutil.rmtree(root, ignore_errors=True)
            shutil.rmtree(work, ignore_errors=True)


def _unpack(root: Path) -> None:
    release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    ours = release["VERSION_CODENAME"].strip('"')
    sources = root.with_name("trixie.sources")
    sources.write_text(_SOURCES.read_text().replace(ours, "trixie"))
    command = [
        "mmdebstrap",
        "--variant=extract",
        f"--include={_PACKAGES}",
        "--quiet",
        "trixie",
        str(root),
        str(sources),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"Debian trixie's docker could not be installed: {done.stderr.strip().splitlines()[-1:]}")
    for name in ("bin", "sbin", "lib", "lib64"):  # links that a package script creates, which is not run here
        (root / "usr" / name).mkdir(exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("proc", "sys", "dev", "run", "tmp", "root", "old", "engine"):
        (root / name).mkdir(exist_ok=True)


def _environment(folder: Path, root: Path, socket: Path) -> dict[str, str]:
    programs, config = folder / "bin", folder / "docker"
    programs.mkdir(exist_ok=True)
    (programs / "docker").symlink_to(root / "usr/bin/docker")
    (config / "cli-plugins").mkdir(parents=True)
    (config / "cli-plugins/docker-buildx").symlink_to(root / _PLUGIN)
    environment = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "DOCKER_CONFIG": str(config)}
    subprocess.run(
        ["docker", "context", "create", BUILDER, "--docker", f"host=unix://{socket}"],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    # Buildx uses a context as a builder only if it is the current one.
    (config / "config.json").write_text(json.dumps({"currentContext": BUILDER}))
    return environment


def _wait_for(socket: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > end:
            raise Unavailable(f"dockerd does not start here: {log.read_text()[-500:]}")
        time.sleep(0.1)
