"""Unpack an image from a registry, and run it with runc as an engine does: with its user and environment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.harness.unavailable import require
from dask_starburst.environment.build.tar import open_layer
from dask_starburst.environment.registry.client import Registry

_QEMU = "qemu-aarch64-static"
_MOUNTS = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "nodev", "mode=1777"]},
]


def unpack(registry: Registry, repository: str, digest: str, folder: Path) -> dict[str, Any]:
    """Extract the layers of a manifest in order; return the image's configuration."""
    manifest = registry.manifest(repository, digest)
    assert manifest is not None
    blobs = folder / "blobs"
    blobs.mkdir(parents=True)

    def blob(descriptor: dict[str, Any]) -> Path:
        return registry.pull_blob(repository, descriptor["digest"], blobs / descriptor["digest"].partition(":")[2])

    for layer in manifest.document["layers"]:
        path = blob(layer)
        with open_layer(path, layer["mediaType"]) as file, tarfile.open(fileobj=file, mode="r|") as archive:
            archive.extractall(folder / "rootfs", filter="fully_trusted", numeric_owner=True)
        path.unlink()
    config: dict[str, Any] = json.loads(blob(manifest.document["config"]).read_bytes())
    return config


class Container:
    """A running container, with its output as `log`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """Its output so far."""
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> None:
        """Signal its first process, as ECS does to stop a task."""
        subprocess.run(["runc", "kill", self.name, number.name.removeprefix("SIG")], check=True, capture_output=True)

    def wait(self, seconds: float) -> int:
        """Wait for its end; return its status."""
        return self.process.wait(seconds)


def run(folder: Path, config: dict[str, Any], arguments: Sequence[str]) -> tuple[int, str]:
    """Run a command in the image to completion; return its status and output."""
    with started(folder, config, arguments) as container:
        return container.wait(90), container.log


@contextmanager
def started(folder: Path, config: dict[str, Any], arguments: Sequence[str]) -> Iterator[Container]:
    """Run a command in the image for the duration of the context, with the host's network."""
    require(why_not(config["architecture"]))
    name = f"starburst-{uuid.uuid4().hex[:12]}"
    bundle = folder / name
    bundle.mkdir()
    (bundle / "config.json").write_text(json.dumps(_bundle(folder, config, list(arguments))))
    log = bundle / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["runc", "run", "--bundle", str(bundle), name],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Container(name, process, log)
        finally:
            subprocess.run(["runc", "kill", name, "KILL"], check=False, capture_output=True)
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()
            subprocess.run(["runc", "delete", "--force", name], check=False, capture_output=True)


def why_not(architecture: str) -> str:
    """Return why an image cannot run on this computer, or an empty string."""
    if os.geteuid() != 0 or shutil.which("runc") is None:
        return "runc is not installed, or this is not root"
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)
    if architecture != machine and (architecture != "arm64" or shutil.which(_QEMU) is None):
        return f"{_QEMU} is not installed, so {architecture} cannot be emulated"
    return ""


def _bundle(folder: Path, config: dict[str, Any], arguments: list[str]) -> dict[str, Any]:
    """Return the OCI runtime configuration for an image configuration."""
    image, mounts = config["config"], list(_MOUNTS)
    environment = dict(pair.split("=", 1) for pair in image["Env"])
    if config["architecture"] == "arm64" and os.uname().machine != "aarch64":
        # The emulator runs the process directly; this needs no binfmt registration in the kernel.
        qemu = {"destination": "/qemu", "type": "bind", "source": shutil.which(_QEMU), "options": ["bind", "ro"]}
        mounts.append(qemu)
        arguments = ["/qemu", _found(folder, environment["PATH"], arguments[0]), *arguments[1:]]
    uid, _, gid = image["User"].partition(":")
    namespaces = ("mount", "pid", "ipc", "uts")
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(folder / "rootfs"), "readonly": False},
        "mounts": mounts,
        "process": {
            "args": [*(image.get("Entrypoint") or []), *arguments],
            "cwd": image["WorkingDir"],
            "env": image["Env"],
            "user": {"uid": int(uid), "gid": int(gid)},
            "noNewPrivileges": True,
        },
        "linux": {"namespaces": [{"type": kind} for kind in namespaces]},
    }


def _found(folder: Path, path: str, command: str) -> str:
    """Return the path of a command, as an engine finds it."""
    names = [f"{place}/{command}" for place in path.split(":")]
    return next(name for name in names if os.path.lexists(folder / "rootfs" / name.lstrip("/")))
