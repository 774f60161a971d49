"""Boot of an instance without ECS: the ``docker run`` commands of its cloud-config user data.

Nothing else of user data is executed. The settings of the ECS agent are read in ``instances.py``; the rest is ignored.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

import yaml

_HEADER = "#cloud-config"
_WITHOUT_VALUE = frozenset({"-d", "-i", "-t", "-it", "--detach", "--init", "--privileged", "--rm"})


@dataclass(frozen=True)
class DockerRun:
    """One container: image, command and environment."""

    image: str
    argv: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True)
class Boot:
    """The commands of user data.

    Attributes
    ----------
    installs_docker : bool
        Whether it installs Docker first, which takes time.
    runs : tuple of DockerRun
        The containers, run one after the other.
    shuts_down : bool
        Whether it shuts the instance down after the last container.
    """

    installs_docker: bool
    runs: tuple[DockerRun, ...]
    shuts_down: bool


def parse(user_data: str) -> Boot | None:
    """Parse user data; None if it runs no container."""
    if not user_data.startswith(_HEADER):
        return None
    try:
        document = yaml.safe_load(user_data)
    except yaml.YAMLError:
        return None  # as on a real instance, where the error is only in a log
    requested = document.get("runcmd") if isinstance(document, dict) else None
    commands = [one if isinstance(one, str) else shlex.join(map(str, one)) for one in requested or []]
    runs = tuple(_docker_run(command) for command in commands if command.startswith("docker run "))
    if not runs:
        return None
    installs = any("install" in command and "docker" in command for command in commands)
    return Boot(installs, runs, any(command.startswith("shutdown ") for command in commands))


def _docker_run(command: str) -> DockerRun:
    words = shlex.split(command)[2:]
    environment: dict[str, str] = {}
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option in ("-e", "--env"):
            environment.update(_pairs([words.pop(0)]))
        elif "=" not in option and option not in _WITHOUT_VALUE:
            words.pop(0)
    return DockerRun(words[0], tuple(words[1:]), environment)


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    return dict(text.split("=", 1) for text in texts if "=" in text)
