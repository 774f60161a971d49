"""A fake docker command for tests without Docker."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from dask_starburst.environment.buildx.docker import Docker

# A docker command that stores its builder in a file, and records every command in another one.
DOCKER = """#!{python}
import json, os, shutil, sys, time
state = {state!r}
words = sys.argv[1:]
with open(state + "/said", "a") as said:
    said.write(json.dumps(words) + "\\n")
builder = state + "/builder"

def inspect():
    if not os.path.exists(builder):
        sys.exit('ERROR: no builder "starburst-builder" found')
    status = open(builder).read()
    print(f"Name: starburst-builder\\nDriver: docker-container\\n\\nNodes:\\nStatus: {{status}}")
    print("Platforms: linux/amd64*, linux/amd64/v2, linux/arm64")

def create():
    time.sleep(0.2)
    try:
        open(builder, "x").write("running")
    except FileExistsError:
        sys.exit('ERROR: existing instance for "starburst-builder" but no append mode, specify the node name')

if words[:2] == ["buildx", "version"] and not {buildx}:
    sys.exit("docker: 'buildx' is not a docker command.")
if words[0] == "version" and not {engine}:
    sys.exit("Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?")
if words[:2] == ["buildx", "inspect"]:
    inspect()
if words[:2] == ["buildx", "create"]:
    create()
if words[:2] == ["buildx", "rm"]:
    os.unlink(builder)
if words[:2] == ["buildx", "build"]:
    given = dict(zip(words, words[1:]))
    shutil.copyfile(given["--file"], state + "/Dockerfile")
    json.dump({{"containerimage.digest": "sha256:" + "0" * 64}}, open(given["--metadata-file"], "w"))
"""


class FakeDocker:
    """A fake docker command with a builder, and a record of its commands."""

    def __init__(self, folder: Path, buildx: bool = True, engine: bool = True) -> None:
        self.state = folder / "state"
        self.programs = folder / "bin"
        for made in (self.state, self.programs):
            made.mkdir()
        program = self.programs / "docker"
        program.write_text(DOCKER.format(python=sys.executable, state=str(self.state), buildx=buildx, engine=engine))
        program.chmod(0o755)
        self.docker = Docker({**os.environ, "PATH": str(self.programs)})
        self.lock = folder / "lock"

    @property
    def commands(self) -> list[str]:
        return [words[1] for words in self.said]

    @property
    def said(self) -> list[list[str]]:
        """The arguments of every command."""
        return [json.loads(line) for line in (self.state / "said").read_text().splitlines()]

    @property
    def dockerfile(self) -> str:
        """The Dockerfile of the last build."""
        return (self.state / "Dockerfile").read_text()
