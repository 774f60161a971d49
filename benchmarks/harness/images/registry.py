"""Run Debian's docker-registry on a local port."""

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
    """Return why a registry cannot run on this computer, or an empty string."""
    return "" if shutil.which("docker-registry") else "docker-registry is not installed"


def registry_without_pause(host: str, credentials: Callable[[], Credentials | None] | None = None) -> Registry:
    """Return a registry client that retries almost without a pause."""
    return Registry(host, credentials, pause=0.01)


@contextmanager
def serving(folder: Path, more: str = "") -> Iterator[str]:
    """Run a registry with a folder for its data; yield its host and port.

    `more` is added to its configuration, for example authentication.
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
    raise AssertionError(f"docker-registry does not respond: {log.read_text()[-500:]}")
