"""A client and an image with incompatible versions, with real processes on the embedded AWS."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dask_starburst import StarburstCluster
from dask_starburst.errors import VersionMismatch
from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import leftovers

OTHER = "3.1.1"


@pytest.fixture(scope="module")
def other_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Python like this one, but with another cloudpickle."""
    folder = tmp_path_factory.mktemp("image")
    packages = folder / "packages"
    install = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
    subprocess.run([*install, "--target", str(packages), f"cloudpickle=={OTHER}"], check=True)
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def aws(other_python: Path) -> Iterator[LocalAWS]:
    with LocalAWS(images={"team/": str(other_python)}) as running:
        yield running


def test_an_image_with_another_cloudpickle_is_an_error_before_the_first_task_and_leaves_nothing(aws: LocalAWS):
    with pytest.raises(VersionMismatch) as caught:
        StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, image="team/dask:1", n_workers=1, quiet=True)
    said = str(caught.value)
    assert "the image team/dask:1 is incompatible with this client" in said
    assert f"pip install cloudpickle=={OTHER}" in said
    assert leftovers(aws) == {kind: [] for kind in leftovers(aws)}
