"""The demo's work: questions that both Dask and pandas can compute, so that pandas can check Dask's results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Frames = Mapping[str, Any]
"""Tables by name: Dask's for the computation, pandas' for the check."""

TOLERANCE = 1e-9
"""Relative tolerance. Dask adds floats partition by partition, so the last digits of a mean differ from pandas'."""


@dataclass(frozen=True)
class Question:
    """One computation.

    Attributes
    ----------
    title : str
        Its title.
    ask : callable
        Takes the frames and returns a collection or a dict of collections. Works with Dask's and pandas' tables.
    finish : callable, optional
        Converts the computed result to a pandas DataFrame.
    show_highest : str, optional
        Show the rows with the highest values of this column. Default: the first rows.
    """

    title: str
    ask: Callable[[Frames], Any]
    finish: Callable[[Any], Any] = field(default=lambda result: result)
    show_highest: str | None = None


@dataclass(frozen=True)
class Job:
    """The demo's job.

    Attributes
    ----------
    title : str
        Its title.
    frames : mapping of str to dask.dataframe.DataFrame
        The Dask tables.
    questions : tuple of Question
    expected : callable or None
        Returns the same tables in pandas; None if they are too large for memory.
    """

    title: str
    frames: Frames
    questions: tuple[Question, ...]
    expected: Callable[[], Frames] | None


def difference(question: Question, answer: Any, expected: Frames) -> str | None:
    """Compare a result with that of pandas.

    Parameters
    ----------
    question : Question
    answer : pandas.DataFrame
        The cluster's result.
    expected : mapping of str to pandas.DataFrame
        The tables in pandas.

    Returns
    -------
    str or None
        The difference, or None if the rows and their order agree, and numbers are equal up to `TOLERANCE`.
    """
    import pandas as pd

    right = question.finish(question.ask(expected))
    try:
        pd.testing.assert_frame_equal(
            answer,
            right,
            check_dtype=False,
            check_categorical=False,
            check_index_type=False,
            rtol=TOLERANCE,
            atol=1e-12,
        )
    except AssertionError as error:
        return " ".join(str(error).split())
    return None
