"""Debian's docker-registry, on a port of this computer."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from dask_starburst.environment.registry.auth import Credentials
from dask_starburst.environment.registry.client import Registry

_CONFIG = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: "{folder}/data"}}, delete: {{enabled: true}}}}
http: {{addr: "127.0.0.1:{port}"}}
{more}
"""


def why_no_registry() -> str:
    """What is missing on this computer to serve images, if anything is."""
    return "" if shutil.which("docker-registry") else "docker-registry is not installed"


def quick(host: str, credentials: Callable[[], Credentials | None] | None = None) -> Registry:
    """Return a registry that is asked again at once when something went wrong."""
    return Registry(host, credentials, pause=0.01)


@contextmanager
def serving(folder: Path, more: str = "") -> Iterator[str]:
    """Serve images from a folder while the context lasts; give the registry's host and port.

    What is to be added to the registry's configuration may be given, such as who is let in.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "registry.yml").write_text(_CONFIG.format(folder=folder, port=host.partition(":")[2], more=more))
    command = ["docker-registry", "serve", str(folder / "registry.yml")]
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _until_it_answers(f"http://{host}/v2/", process, folder / "registry.log")
        yield host
    finally:
        process.terminate()
        process.wait(10)


def _until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        try:
            httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"docker-registry does not answer: {log.read_text()[-500:]}")
