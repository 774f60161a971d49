"""A Python without the extra `image`."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys
from dask_starburst.environment.hook import part
for name in ("httpx", "uv"):
    sys.modules[name] = None  # what an import finds that is not installed
    try:
        part("making")
    except Exception as error:  # what it raises, whatever it is, is what the test looks at
        print(type(error).__name__, error)
    for done in [each for each in sys.modules if each == name or each.startswith("dask_starburst.environment.")]:
        del sys.modules[done]
from dask_starburst import StarburstCluster
"""


def test_without_the_extra_everything_imports_and_an_image_says_what_to_install():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    for name, said in zip(("httpx", "uv"), done.stdout.splitlines(), strict=True):
        assert f"ImageError building an image needs {name}" in said
        assert 'pip install "dask-starburst[image]"' in said
        assert "give image=" in said
