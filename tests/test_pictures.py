"""The pictures in the documentation are what the commands print."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOOL = runpy.run_path(str(ROOT / "tools" / "pictures.py"))


@pytest.mark.parametrize("name", TOOL["PICTURES"])
def test_a_picture_agrees_with_the_output_of_the_command(name: str) -> None:
    kept = (ROOT / "docs" / "pictures" / f"{name}.svg").read_text(encoding="utf-8")
    assert kept == TOOL["draw"](name), "run: python tools/pictures.py"


def test_no_picture_fetches_anything_from_elsewhere() -> None:
    for picture in (ROOT / "docs" / "pictures").glob("*.svg"):
        text = picture.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "http" not in text
