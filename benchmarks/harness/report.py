"""What a benchmark prints: a table while it runs, and one JSON object as its last line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


class Table:
    """Print rows under one header, as they come.

    Parameters
    ----------
    columns : mapping of str to str
        The format of each column by its title, with a width: ``">9.2f"``. Text takes the width of a number.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._formats = list(columns.values())
        self._widths = [_width(format) for format in self._formats]
        self.row(*columns)

    def row(self, *values: Any) -> None:
        """Print a row."""
        cells = [
            format(value, width if isinstance(value, str) else whole)
            for value, width, whole in zip(values, self._widths, self._formats, strict=True)
        ]
        print("".join(cells), flush=True)


def _width(format: str) -> str:
    found = re.match(r"[<>]\d+", format)
    assert found is not None, f"the format {format!r} has no width"
    return found.group()


def finish(benchmark: str, *, simulated: bool, **figures: Any) -> None:
    """Print the last line; `simulated` says whether figures depend on AWS's simulated latencies."""
    print(json.dumps({"benchmark": benchmark, "simulated": simulated, **figures}))
