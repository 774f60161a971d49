"""The Python environments of this computer that run in place of container images.

The default is the environment of the embedded AWS, whose processes read their address from their metadata.
Other images do not: their Dask processes would listen on every address of the computer, which is fine in the
network of a real container. So they get their address as an option, also for their HTTP servers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_SERVERS = ("dask_scheduler", "dask_worker")
_SPEC = "dask_spec"
_SCHEDULER_HTTP = 8787  # Dask's default; a worker uses any port


class Images:
    """Maps images to the Python that runs their containers.

    Parameters
    ----------
    pythons : mapping of str to str
        Path of a Python by the prefix of an image's name, such as ``"daskdev/"``.
    missing : callable, optional
        Returns whether an image of the embedded registry is missing; by default none is.

    Attributes
    ----------
    missing : callable
        As the parameter.
    """

    def __init__(self, pythons: Mapping[str, str], missing: Callable[[str], bool] = lambda image: False) -> None:
        self._folders = {prefix: Path(python).parent for prefix, python in pythons.items()}
        self.missing = missing

    def dress(
        self, image: str, argv: Sequence[str], environment: Mapping[str, str], address: str
    ) -> tuple[list[str], dict[str, str]]:
        """Return command and environment for the image's Python.

        Parameters
        ----------
        image : str
            The name of the image.
        argv : sequence of str
            The container's command.
        environment : mapping of str to str
            The container's environment.
        address : str
            The container's address.
        """
        folder = next((folder for prefix, folder in self._folders.items() if image.startswith(prefix)), None)
        if folder is None:
            return list(argv), dict(environment)
        words, extra = _without_env(argv)
        own = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        path = os.pathsep.join((str(folder), own.get("PATH", os.defpath)))
        command = folder / words[0]
        if command.exists():
            words[0] = str(command)
        return _at(words, address), {**own, **extra, "PATH": path}


def _without_env(argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Strip ``env A=b`` from the front of a command."""
    words, extra = list(argv), {}
    if words[0] == "env":
        words = words[1:]
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            extra[name] = value
    return words, extra


def _at(words: list[str], address: str) -> list[str]:
    """Add the address options of a Dask process, unless it has them."""
    program = " ".join(os.path.basename(word) for word in words[:3]).replace("-", "_").replace(" ", "_")
    if any(server in program for server in _SERVERS):
        http = f"{address}:{_SCHEDULER_HTTP if 'dask_scheduler' in program else 0}"
        return _with(_with(words, "--host", address), "--dashboard-address", http)
    if _SPEC in program and "--spec" in words:
        at = words.index("--spec") + 1
        return [*words[:at], json.dumps(_spec_at(json.loads(words[at]), address)), *words[at + 1 :]]
    return words


def _with(words: list[str], option: str, value: str) -> list[str]:
    return words if option in words else [*words, option, value]


def _spec_at(spec: dict[str, object], address: str) -> dict[str, object]:
    options = spec.get("opts")
    if not isinstance(options, dict):
        return spec
    own: dict[str, object] = {"host": address, "dashboard_address": f"{address}:0"}
    if str(spec.get("cls")).endswith("Scheduler"):
        # A dashboard address alone would turn the dashboard on.
        own |= {"dashboard_address": f"{address}:{_SCHEDULER_HTTP}", "dashboard": False}
    return {**spec, "opts": {**own, **options}}
