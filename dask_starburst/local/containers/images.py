"""What stands in for container images: a Python environment of this computer.

By default that is the one that the embedded AWS itself runs in, and a container reads its address from its metadata.
A foreign image does not do that: its Dask processes would listen on every address of the computer, as they may in the
network that they are made for. So they are told which address is theirs, also for their HTTP servers.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_SERVERS = ("dask_scheduler", "dask_worker")
_SPEC = "dask_spec"
_SCHEDULER_HTTP = 8787  # Dask's default; a worker takes any


class Images:
    """Which Python runs the containers of which images.

    Parameters
    ----------
    pythons : mapping of str to str
        Path of a Python by the beginning of an image's name, such as ``"daskdev/"``.
    missing : callable, optional
        Whether an image is one of our own registry, and not there; by default none is.

    Attributes
    ----------
    missing : callable
        The same.
    """

    def __init__(self, pythons: Mapping[str, str], missing: Callable[[str], bool] = lambda image: False) -> None:
        self._folders = {prefix: Path(python).parent for prefix, python in pythons.items()}
        self.missing = missing

    def dress(
        self, image: str, argv: Sequence[str], environment: Mapping[str, str], address: str
    ) -> tuple[list[str], dict[str, str]]:
        """Return command and environment as the image's own Python needs them.

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
    """Take ``env A=b`` off the front of a command."""
    words, extra = list(argv), {}
    if words[0] == "env":
        words = words[1:]
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            extra[name] = value
    return words, extra


def _at(words: list[str], address: str) -> list[str]:
    """Tell a Dask process its address, unless it was told one."""
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
        # An address alone would be taken for the wish to have a dashboard.
        own |= {"dashboard_address": f"{address}:{_SCHEDULER_HTTP}", "dashboard": False}
    return {**spec, "opts": {**own, **options}}
