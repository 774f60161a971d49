"""Tells a terminal what is going on while it goes on: stages with their times, what the cluster says, tables."""

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
"""How many rows of a result are shown."""


class Story:
    """Prints to one console.

    Parameters
    ----------
    console : rich.console.Console
        Where to print; without a terminal only whole lines are printed, no spinner.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._status: Status | None = None
        self._title = ""

    @property
    def elapsed(self) -> float:
        """Seconds since the story began."""
        return time.monotonic() - self._began

    @contextmanager
    def stage(self, title: str) -> Iterator[None]:
        """Show `title` as running, and with its time once it is done; a failure is shown as one and passed on."""
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
        """Show `text` beside the running stage, in place of the last one."""
        if self._status is not None:
            self._status.update(escape(f"{self._title}: {text}"))

    def line(self, text: str, style: str = "") -> None:
        """Print one line that stays."""
        self._console.print(escape(text), style=style, highlight=False)

    def heard(self, text: str) -> None:
        """Print what the cluster said, with the seconds since the start."""
        self.line(f"  {self.elapsed:6.1f} s  {text}", style="dim")

    def table(self, title: str, frame: Any, by: str | None = None) -> None:
        """Print a few rows of a pandas DataFrame: those with the highest `by`, else the first."""
        few = frame.nlargest(ROWS, by) if by else frame.head(ROWS)
        drawn = Table(title=escape(title), title_justify="left", caption=f"{len(few)} of {len(frame):,} rows")
        for column in few.columns:
            drawn.add_column(escape(str(column)), justify="left" if few[column].dtype == object else "right")
        for row in few.itertuples(index=False):
            drawn.add_row(*(escape(_cell(value)) for value in row))
        self._console.print(drawn)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Print everything that the package logs while the block runs."""
        logger = logging.getLogger("dask_starburst")
        handler = _Handler(self)
        before = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # or a configured root logger would say everything twice
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.level, logger.propagate = before


class _Handler(logging.Handler):
    def __init__(self, story: Story) -> None:
        super().__init__(logging.INFO)
        self._story = story

    def emit(self, record: logging.LogRecord) -> None:
        self._story.heard(record.getMessage())


def _cell(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
