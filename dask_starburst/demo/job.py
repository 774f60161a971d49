"""A piece of work for the demo: questions that pandas and Dask answer alike, so that one can check the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Frames = Mapping[str, Any]
"""Tables by name: Dask's to compute with, pandas' to check with."""

TOLERANCE = 1e-9
"""Relative. Dask adds floats partition by partition, so that the last digits of a mean differ from pandas'."""


@dataclass(frozen=True)
class Question:
    """One thing to find out.

    Attributes
    ----------
    title : str
        What it asks, for people.
    ask : callable
        Frames to what is to be computed: one collection, or a dict of them. Works on Dask's and on pandas' tables.
    finish : callable, optional
        From the computed result to one pandas DataFrame.
    show_highest : str, optional
        The column by whose highest values the rows to show are picked; the first rows if not given.
    """

    title: str
    ask: Callable[[Frames], Any]
    finish: Callable[[Any], Any] = field(default=lambda result: result)
    show_highest: str | None = None


@dataclass(frozen=True)
class Job:
    """What the demo computes.

    Attributes
    ----------
    title : str
        What it is about, for people.
    frames : mapping of str to dask.dataframe.DataFrame
        The tables as Dask reads them.
    questions : tuple of Question
    expected : callable or None
        Gives the same tables in pandas; None if they are too large for one computer's memory.
    """

    title: str
    frames: Frames
    questions: tuple[Question, ...]
    expected: Callable[[], Frames] | None


def difference(question: Question, answer: Any, expected: Frames) -> str | None:
    """Compare an answer with what pandas makes of the same question.

    Parameters
    ----------
    question : Question
    answer : pandas.DataFrame
        What the cluster found.
    expected : mapping of str to pandas.DataFrame
        The same tables, whole.

    Returns
    -------
    str or None
        What differs, or None where they agree: same rows, same order, numbers equal up to `TOLERANCE`.
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
