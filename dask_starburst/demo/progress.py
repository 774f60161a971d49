"""Show the progress of the demo in a terminal: stages with their times, the cluster's events, tables."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

ROWS = 5
"""Number of rows of a result to show."""


class Progress:
    """Prints progress to a console.

    Parameters
    ----------
    console : rich.console.Console
        The console. Without a terminal there is no spinner.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._status: Status | None = None
        self._title = ""

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Show `title` with a spinner, then with its time and whether it succeeded. Errors are passed on."""
        began = time.monotonic()
        self._title = title
        mark = "[red]✗[/red]"
        try:
            with self._console.status(escape(title)) as self._status:
                yield
            mark = "[green]✓[/green]"
        finally:
            self._status = None
            self._console.print(
                f"{mark} {escape(title)} [cyan]{time.monotonic() - began:.1f} s[/cyan]", highlight=False
            )

    def detail(self, text: str) -> None:
        """Show `text` next to the running stage."""
        if self._status is not None:
            self._status.update(escape(f"{self._title}: {text}"))

    def line(self, text: str, style: str = "") -> None:
        """Print one line."""
        self._console.print(escape(text), style=style, highlight=False)

    def event(self, text: str) -> None:
        """Print an event of the cluster with the seconds since the start."""
        self.line(f"  {self.elapsed:6.1f} s  {text}", style="dim")

    def table(self, title: str, frame: Any, by: str | None = None) -> None:
        """Print a few rows of a pandas DataFrame: those with the highest `by`, or the first."""
        few = frame.nlargest(ROWS, by) if by else frame.head(ROWS)
        drawn = Table(title=escape(title), title_justify="left", caption=f"{len(few)} of {len(frame):,} rows")
        for column in few.columns:
            drawn.add_column(escape(str(column)), justify="left" if few[column].dtype == object else "right")
        for row in few.itertuples(index=False):
            drawn.add_row(*(escape(_cell(value)) for value in row))
        self._console.print(drawn)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Print the log messages of the package while the block runs."""
        logger = logging.getLogger("dask_starburst")
        handler = _Handler(self)
        before = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # else a configured root logger prints each message again
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.level, logger.propagate = before


class _Handler(logging.Handler):
    def __init__(self, progress: Progress) -> None:
        super().__init__(logging.INFO)
        self._progress = progress

    def emit(self, record: logging.LogRecord) -> None:
        self._progress.event(record.getMessage())


def _cell(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
