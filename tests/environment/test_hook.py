"""A Python without the extra `image`."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys
sys.modules["{name}"] = None  # what an import finds that is not installed
from dask_starburst import StarburstCluster
from dask_starburst.environment.hook import part
try:
    part("making")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("name", ["httpx", "uv"])
def test_without_the_extra_everything_imports_and_an_image_says_what_to_install(name: str):
    done = subprocess.run([sys.executable, "-c", WITHOUT.format(name=name)], capture_output=True, text=True, check=True)
    assert f"ImageError building an image needs {name}" in done.stdout
    assert 'pip install "dask-starburst[image]"' in done.stdout
    assert "give image=" in done.stdout
