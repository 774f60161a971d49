"""The Dockerfiles in ``images/``: both have the same properties; one needs NVIDIA's registry to be built."""

from __future__ import annotations

import re
import subprocess

import pytest

from benchmarks.harness.images.fixtures import ROOT

IMAGES = sorted(path.parent.name for path in (ROOT / "images").glob("*/Dockerfile"))


def instructions(name: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile and their arguments."""
    lines = (ROOT / "images" / name / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_unprivileged_and_its_first_process_receives_sigterm(name: str):
    last = dict(instructions(name))
    expected = {"USER": "1000:1000", "WORKDIR": "/home/dask", "STOPSIGNAL": "SIGTERM", "ENTRYPOINT": "[]"}
    assert {word: last[word] for word in expected} == expected
    assert last["CMD"] == '["python3"]'  # exec form, without a shell


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_has_a_configurable_base_and_a_compiled_standard_library(name: str):
    found = instructions(name)
    assert ("FROM", "${BASE}") in found
    assert re.search(r"(?m)^BASE=", "\n".join(what for word, what in found if word == "ARG"))
    variables = " ".join(what for word, what in found if word == "ENV").split()
    assert {"HOME=/home/dask", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"} <= set(variables)
    # Slim images omit compiled files; Debian's and Ubuntu's packages compile Python on installation.
    assert any("compileall" in what or "install -y -q --no-install-recommends python3" in what for _, what in found)


@pytest.mark.parametrize("name", IMAGES)
def test_shell_instructions_are_valid_scripts(name: str):
    for word, what in instructions(name):
        if word == "RUN" and not what.startswith("["):
            subprocess.run(["sh", "-n", "-c", what], check=True)
