"""Docker's command line: the builder, and a temporary configuration with credentials."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dask_starburst.environment.registry.auth import Credentials
from dask_starburst.environment.registry.documents import DOCKER_HUB
from dask_starburst.errors import ImageError
from dask_starburst.paths import private_folder

#: The builder's name. It is always given as a flag: ``BUILDX_BUILDER`` and ``docker buildx use`` have no effect and are
#: not changed.
BUILDER = "starburst-builder"
#: The host's network: a registry may be on this computer, or behind its VPN.
_CREATE = ("create", "--name", BUILDER, "--driver", "docker-container", "--driver-opt", "network=host")
_EXISTS = "existing instance for"
_NO_BUILDER = re.compile(r"no builder .* found")
_STATUS = re.compile(r"^Status:\s*(\S+)", re.M)
_FAULT = re.compile(r"^(?:Last )?Error:\s*(.+)", re.M | re.I)
_PLATFORMS = re.compile(r"^Platforms:\s*(.+)", re.M)
#: Variables that would override our arguments.
_NOT_OURS = ("BUILDX_BUILDER", "DOCKER_DEFAULT_PLATFORM", "BUILDX_NO_DEFAULT_LOAD", "DOCKER_AUTH_CONFIG")
#: Shared folders of docker's configuration: its contexts and plugins.
_SHARED = ("contexts", "cli-plugins")
_HUB = "https://index.docker.io/v1/"
_SECONDS = 60.0
#: BuildKit's own image is pulled the first time.
_BOOT_SECONDS = 600.0
_DIRECT = 'The builder that needs no Docker is the default: build={"builder": "direct"}.'


class Docker:
    """Docker's command line.

    Parameters
    ----------
    environment : mapping of str to str
        Its environment variables; see `private`.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        program = shutil.which("docker", path=self.environment.get("PATH"))
        if program is None:
            raise ImageError(f"the buildx builder needs docker, which is not on PATH; install Docker. {_DIRECT}")
        self.program = program

    def check(self) -> None:
        """Check that buildx is installed and the engine is running.

        Raises
        ------
        ImageError
            One of them is missing.
        """
        if self.run("buildx", "version").returncode:
            raise ImageError(
                f"{self.program} has no `buildx`; install it (Debian and Ubuntu: docker-buildx or docker-buildx-plugin;"
                f" others: https://github.com/docker/buildx#installing). {_DIRECT}"
            )
        engine = self.run("version", "--format", "{{.Server.Version}}")
        if engine.returncode:
            raise ImageError(f"docker's engine does not answer ({last_line(engine)}); start it. {_DIRECT}")

    def run(self, *words: str, seconds: float = _SECONDS) -> subprocess.CompletedProcess[str]:
        """Run a command and return the completed process; `stdout` includes its errors."""
        try:
            return subprocess.run(
                [self.program, *words],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            what = " ".join(("docker", *words[:2]))
            raise ImageError(
                f"`{what}` took longer than {seconds:g} s; check that docker's engine is healthy."
            ) from error

    def builder(self, lock: Path) -> tuple[str, ...]:
        """Ensure that our builder exists and runs; return its platforms.

        It is created once and shared by all processes. One that no longer runs, for example because its engine was
        reinstalled, is recreated; its cache is lost.

        Parameters
        ----------
        lock : Path
            A lock file: concurrent processes would create it twice.

        Raises
        ------
        ImageError
            The builder cannot be created, or does not start.
        """
        private_folder(lock.parent)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            found = self._inspect()
            if _fault(found):
                found = self._recreate(known=not _NO_BUILDER.search(found.stdout))
        return platforms(found.stdout)

    def _inspect(self) -> subprocess.CompletedProcess[str]:
        return self.run("buildx", "inspect", "--builder", BUILDER, "--bootstrap", seconds=_BOOT_SECONDS)

    def _recreate(self, *, known: bool) -> subprocess.CompletedProcess[str]:
        if known:
            self.run("buildx", "rm", "--builder", BUILDER, "--force")
        made = self.run("buildx", *_CREATE)
        if made.returncode and _EXISTS in made.stdout:
            # It was created meanwhile by a process without our lock, or it is a broken one that only `create` sees.
            found = self._inspect()
            if not _fault(found):
                return found
            self.run("buildx", "rm", "--builder", BUILDER, "--force")
            made = self.run("buildx", *_CREATE)
        if made.returncode:
            raise ImageError(f"docker could not create the builder {BUILDER}: {last_line(made)}")
        found = self._inspect()
        if fault := _fault(found):
            raise ImageError(
                f"docker created the builder {BUILDER}, but it does not start: {fault}. It is a container of"
                f" moby/buildkit, which is pulled from Docker Hub on first use. {_DIRECT}"
            )
        return found


def _fault(inspected: subprocess.CompletedProcess[str]) -> str:
    """Return the fault of a builder, or an empty string."""
    if inspected.returncode:
        return last_line(inspected)
    if fault := _FAULT.search(inspected.stdout):
        return fault[1]
    states = _STATUS.findall(inspected.stdout)
    return (
        ""
        if states and all(state == "running" for state in states)
        else f"its status is {', '.join(states) or 'unknown'}"
    )


def platforms(inspected: str) -> tuple[str, ...]:
    """Return a builder's platforms from the output of ``docker buildx inspect``."""
    found = (name.strip().rstrip("*") for line in _PLATFORMS.findall(inspected) for name in line.split(","))
    return tuple(dict.fromkeys(found))


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of a command's output, which contains the error."""
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ").removeprefix("error: ") if lines else f"status {done.returncode}"


@contextmanager
def private(host: str, credentials: Credentials | None) -> Iterator[tuple[dict[str, str], Path]]:
    """Yield docker's environment variables with credentials for a registry, and a private folder.

    ``docker login`` would store the password in the user's configuration, or put it on a command line. So docker gets a
    temporary configuration: the user's, with its contexts, builders and plugins, plus the credentials.

    Parameters
    ----------
    host : str
        The registry.
    credentials : tuple of str, optional
        User and password; None to use the user's configuration.
    """
    named = os.environ.get("DOCKER_CONFIG")
    home = Path(named) if named else Path.home() / ".docker"
    with tempfile.TemporaryDirectory(prefix="starburst-docker-") as name:  # has mode 0700
        folder = Path(name)
        text = json.dumps(configuration(_read(home / "config.json"), host, credentials))
        (folder / "config.json").touch(0o600)
        (folder / "config.json").write_text(text, encoding="utf-8")
        for shared in _SHARED:
            if (home / shared).exists():
                (folder / shared).symlink_to((home / shared).resolve())
        environment = {key: value for key, value in os.environ.items() if key not in _NOT_OURS}
        environment.setdefault("BUILDX_CONFIG", str(home / "buildx"))
        yield environment | {"DOCKER_CONFIG": name}, folder


def configuration(users: Mapping[str, Any], host: str, credentials: Credentials | None) -> dict[str, Any]:
    """Return docker's configuration with credentials for a registry."""
    if credentials is None:
        return dict(users)
    key = _HUB if host == DOCKER_HUB else host
    auth = base64.b64encode(":".join(credentials).encode()).decode()
    return {
        **users,
        "auths": {**users.get("auths", {}), key: {"auth": auth}},
        # An empty name disables the credential helper for this registry.
        "credHelpers": {**users.get("credHelpers", {}), key: ""},
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
