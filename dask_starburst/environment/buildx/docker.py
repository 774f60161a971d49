"""Docker's command line: its builder, and a configuration with credentials that is gone when the work is done."""

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

#: The builder's name. It is always given as a flag: neither ``BUILDX_BUILDER`` nor ``docker buildx use`` has a say,
#: and we change neither.
BUILDER = "starburst-builder"
#: The network of the host: a registry may be on this computer, or behind its VPN.
_CREATE = ("create", "--name", BUILDER, "--driver", "docker-container", "--driver-opt", "network=host")
_EXISTS = "existing instance for"
_NO_BUILDER = re.compile(r"no builder .* found")
_STATUS = re.compile(r"^Status:\s*(\S+)", re.M)
_FAULT = re.compile(r"^(?:Last )?Error:\s*(.+)", re.M | re.I)
_PLATFORMS = re.compile(r"^Platforms:\s*(.+)", re.M)
#: What would make docker or buildx do something else than what we say.
_NOT_OURS = ("BUILDX_BUILDER", "DOCKER_DEFAULT_PLATFORM", "BUILDX_NO_DEFAULT_LOAD", "DOCKER_AUTH_CONFIG")
#: Of docker's folder: where its engines are, and its commands.
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
        What it is run with; see `private`.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        program = shutil.which("docker", path=self.environment.get("PATH"))
        if program is None:
            raise ImageError(f"the buildx builder needs docker, which is not on PATH; install Docker. {_DIRECT}")
        self.program = program

    def check(self) -> None:
        """Make sure that there is buildx, and an engine.

        Raises
        ------
        ImageError
            There is not.
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
        """Run a command and return what it said; errors and all in `stdout`."""
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
            raise ImageError(f"`{what}` took longer than {seconds:g} s; is docker's engine well?") from error

    def builder(self, lock: Path) -> tuple[str, ...]:
        """Make sure that our builder is there and runs; return the platforms that it builds for.

        It is made once and used by all, whatever process and folder they are in. One that does not run any more, as
        its engine was set up anew, is made anew; its cache is lost with it.

        Parameters
        ----------
        lock : Path
            A file: two who come at one moment would make it twice.

        Raises
        ------
        ImageError
            It cannot be made, or does not start.
        """
        private_folder(lock.parent)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            found = self._inspect()
            if _fault(found):
                found = self._made_anew(known=not _NO_BUILDER.search(found.stdout))
        return platforms(found.stdout)

    def _inspect(self) -> subprocess.CompletedProcess[str]:
        return self.run("buildx", "inspect", "--builder", BUILDER, "--bootstrap", seconds=_BOOT_SECONDS)

    def _made_anew(self, *, known: bool) -> subprocess.CompletedProcess[str]:
        if known:
            self.run("buildx", "rm", "--builder", BUILDER, "--force")
        made = self.run("buildx", *_CREATE)
        if made.returncode and _EXISTS in made.stdout:
            # Somebody else has made it since we looked, on this computer but not with our lock; or it is a broken one
            # that only `create` can see.
            found = self._inspect()
            if not _fault(found):
                return found
            self.run("buildx", "rm", "--builder", BUILDER, "--force")
            made = self.run("buildx", *_CREATE)
        if made.returncode:
            raise ImageError(f"docker could not make the builder {BUILDER}: {last_line(made)}")
        found = self._inspect()
        if fault := _fault(found):
            raise ImageError(
                f"docker has made the builder {BUILDER}, but it does not start: {fault}. It is a container of"
                f" moby/buildkit, which is pulled from Docker Hub the first time. {_DIRECT}"
            )
        return found


def _fault(inspected: subprocess.CompletedProcess[str]) -> str:
    """Return what is wrong with a builder, or nothing."""
    if inspected.returncode:
        return last_line(inspected)
    if fault := _FAULT.search(inspected.stdout):
        return fault[1]
    states = _STATUS.findall(inspected.stdout)
    return "" if states and all(state == "running" for state in states) else f"it is {', '.join(states) or 'nowhere'}"


def platforms(inspected: str) -> tuple[str, ...]:
    """Return for which platforms a builder builds, of what ``docker buildx inspect`` said."""
    found = (name.strip().rstrip("*") for line in _PLATFORMS.findall(inspected) for name in line.split(","))
    return tuple(dict.fromkeys(found))


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last of what a command said, which is where it says what went wrong."""
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return lines[-1].removeprefix("ERROR: ").removeprefix("error: ") if lines else f"status {done.returncode}"


@contextmanager
def private(host: str, credentials: Credentials | None) -> Iterator[tuple[dict[str, str], Path]]:
    """Give the environment of a docker that may push to a registry, and a folder that nobody else reads.

    ``docker login`` would leave the password in the user's own configuration, or put it on a command line. So docker
    is given a configuration of its own: the user's, with the engines, builders and commands that belong to it, and the
    credentials. It is deleted at the end.

    Parameters
    ----------
    host : str
        The registry.
    credentials : tuple of str, optional
        User and password; None for what the user's own configuration has.
    """
    named = os.environ.get("DOCKER_CONFIG")
    home = Path(named) if named else Path.home() / ".docker"
    with tempfile.TemporaryDirectory(prefix="starburst-docker-") as name:  # made with mode 0700
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
        # An empty name: for this registry, look into the file and ask no helper.
        "credHelpers": {**users.get("credHelpers", {}), key: ""},
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found
