"""Plots of one look. matplotlib is imported if one is drawn: only the extra ``bench`` has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def figure(width: float, height: float, title: str) -> Any:
    """Return an empty figure, in inches."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height), layout="constrained")
    made.suptitle(title, fontsize=11)
    return made


def legend(axes: Any, **place: Any) -> None:
    """Draw the legend without a frame."""
    axes.legend(fontsize=8, frameon=False, **place)


def save(drawn: Any, path: Path) -> None:
    """Write a figure, without upper and right spines and without a date, so that equal figures are equal files."""
    for axes in drawn.axes:
        axes.spines[["top", "right"]].set_visible(False)
    drawn.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
