"""The Dockerfiles in ``images/``: both promise the same, though only one can be built without NVIDIA's registry."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.image_fixtures import ROOT

IMAGES = sorted(path.parent.name for path in (ROOT / "images").glob("*/Dockerfile"))


def instructions(name: str) -> list[tuple[str, str]]:
    """Return the words of a Dockerfile and what stands behind each."""
    lines = (ROOT / "images" / name / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_runs_as_nobody_special_and_its_first_process_hears_sigterm(name: str):
    last = dict(instructions(name))
    expected = {"USER": "1000:1000", "WORKDIR": "/home/dask", "STOPSIGNAL": "SIGTERM", "ENTRYPOINT": "[]"}
    assert {word: last[word] for word in expected} == expected
    assert last["CMD"] == '["python3"]'  # no shell in between


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_stands_on_a_base_that_can_be_given_and_leaves_nothing_to_compile_or_to_lose(name: str):
    found = instructions(name)
    assert ("FROM", "${BASE}") in found
    assert re.search(r"(?m)^BASE=", "\n".join(what for word, what in found if word == "ARG"))
    variables = " ".join(what for word, what in found if word == "ENV").split()
    assert {"HOME=/home/dask", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"} <= set(variables)
    # Slim images delete compiled files; Debian's and Ubuntu's packages bring Python and compile it.
    assert any("compileall" in what or "install -y -q --no-install-recommends python3" in what for _, what in found)


@pytest.mark.parametrize("name", IMAGES)
def test_what_a_shell_runs_is_a_script(name: str):
    for word, what in instructions(name):
        if word == "RUN" and not what.startswith("["):
            subprocess.run(["sh", "-n", "-c", what], check=True)
