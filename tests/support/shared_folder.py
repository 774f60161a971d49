"""A folder for what is expensive to build."""

from __future__ import annotations

from pathlib import Path

import pytest


def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker: str) -> Path:
    """A folder shared by all processes of this test run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker == "master" else base.parent) / "images"
    folder.mkdir(exist_ok=True)
    return folder
