"""The types of the package are there for the programs that use it (PEP 561)."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import pytest

PROGRAM = """
from dask_starburst import Settings, StarburstCluster, quote
reveal_type(StarburstCluster.report)
reveal_type(Settings.load)
Settings(n_workers="two")
StarburstCluster(spot={"policy": "cheap"})
quote(keep={"idle_timeout": "1 hour", "wram": 3})
"""


def test_the_marker_of_types_comes_with_the_package() -> None:
    assert resources.files("dask_starburst").joinpath("py.typed").is_file()
    ignored = Path(__file__).parent.parent.joinpath(".gitignore").read_text()
    assert "py.typed" not in ignored, "the wheel has what git does not ignore"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed: make check installs it")
def test_mypy_sees_the_types_in_a_program_of_a_user(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", str(program)]
    checked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert "py.typed" not in checked.stdout, checked.stdout
    assert "ClusterReport" in checked.stdout, checked.stdout
    assert '"Settings" has incompatible type "str"' in checked.stdout, checked.stdout
    assert 'Argument "spot" to "StarburstCluster" has incompatible type' in checked.stdout, checked.stdout
    assert 'Argument "keep" to "quote" has incompatible type' in checked.stdout, checked.stdout
