"""The demo's job on the user's files."""

from __future__ import annotations

import glob
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dask_starburst import extras
from dask_starburst.demo.job import Frames, Job, Question
from dask_starburst.errors import BadArgument

CHECKABLE_BYTES = 2_000_000_000
"""Larger data are not read into pandas to check the results."""

PARTITIONS = 8
"""Minimum number of partitions, so that each of four workers has work."""

SAMPLE_ROWS = 10_000
"""Number of rows from which the column to group by is chosen."""

MOST_GROUPS = 1_000
"""A column with more distinct values in the sample counts as an identifier, not a category."""

SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv"}


def own_job(path: str) -> Job:
    """Return the job for the user's parquet or CSV files.

    Parameters
    ----------
    path : str
        A file, a folder or a glob pattern.

    Returns
    -------
    Job

    Raises
    ------
    BadArgument
        There are no files, or they cannot be read. Nothing was started.
    """
    files, kind = find_files(path)
    size = sum(file.stat().st_size for file in files)
    whole = _attempt(path, lambda: _read_pandas(files, kind)) if size < CHECKABLE_BYTES else None
    frame = _attempt(path, lambda: _read_dask(files, kind, size, whole))
    sample = whole.head(SAMPLE_ROWS) if whole is not None else _attempt(path, lambda: frame.head(SAMPLE_ROWS))
    if whole is not None and not len(whole):
        raise BadArgument(f"{path} has columns but no rows.")
    title = f"{path}: {len(files)} {kind} file{'s' if len(files) > 1 else ''}, {size / 1e6:,.1f} MB"
    expected = None if whole is None else (lambda: {"data": whole})
    return Job(title, {"data": frame}, _questions(sample), expected)


def find_files(path: str) -> tuple[list[Path], str]:
    """Find the data files of a path.

    Parameters
    ----------
    path : str
        A file, a folder (searched recursively) or a glob pattern.

    Returns
    -------
    files : list of Path
    kind : {"parquet", "csv"}

    Raises
    ------
    BadArgument
        There are no files, or files of both kinds.
    """
    place = Path(path).expanduser()
    if place.is_dir():
        candidates = [file for file in sorted(place.rglob("*")) if file.is_file()]
    elif place.is_file():
        candidates = [place]
    else:
        candidates = [Path(match) for match in sorted(glob.glob(str(place), recursive=True))]
    if not candidates:
        raise BadArgument(f"There are no files at {path}. Give a parquet or CSV file, a folder of them, or a glob.")
    files = [file for file in candidates if file.suffix.lower() in SUFFIXES and file.is_file()]
    if not files:
        raise BadArgument(f"There is no .parquet or .csv file at {path}, only {candidates[0].name}.")
    kinds = {SUFFIXES[file.suffix.lower()] for file in files}
    if len(kinds) > 1:
        raise BadArgument(f"{path} has both parquet and CSV files. Name one kind, as in '{place / '*.parquet'}'.")
    return [file.resolve() for file in files], kinds.pop()


def _attempt(path: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except BadArgument:
        raise
    except ImportError as error:
        raise BadArgument(extras.explain("The demo", error, "demo")) from error
    except Exception as error:  # parsers raise many types of errors
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BadArgument(f"{path} cannot be read: {first}") from error


def _read_pandas(files: list[Path], kind: str) -> Any:
    import pandas as pd

    read = pd.read_parquet if kind == "parquet" else pd.read_csv
    return pd.concat([read(file) for file in files], ignore_index=True)


def _read_dask(files: list[Path], kind: str, size: int, whole: Any) -> Any:
    import dask.dataframe as dd

    names = [str(file) for file in files]
    if kind == "parquet":
        frame = dd.read_parquet(names)
    else:
        # Dask infers types from the head of the first file; pandas has read all files.
        types = {"assume_missing": True} if whole is None else {"dtype": dict(whole.dtypes)}
        frame = dd.read_csv(names, blocksize=max(1_000_000, min(64_000_000, size // PARTITIONS)), **types)
    return frame.repartition(npartitions=PARTITIONS) if frame.npartitions < PARTITIONS else frame


def _questions(sample: Any) -> tuple[Question, ...]:
    numeric = list(sample.select_dtypes("number").columns)
    category = most_category_like(sample)
    questions = [Question("number of rows", lambda frames: frames["data"].index.size, _as_count)]
    if numeric:
        questions.append(
            Question("summary of the numeric columns", lambda frames: _moments(frames, numeric), _as_columns)
        )
    values = [column for column in numeric if column != category]
    if category is not None and values:
        questions.append(
            Question(
                f"mean by {category}",
                lambda frames: frames["data"].groupby(category, observed=True)[values].mean(),
                lambda result: result.sort_index().reset_index(),
            )
        )
    if numeric:
        first = numeric[0]
        questions.append(
            Question(
                f"top ten by {first}",
                lambda frames: _sorted_head(frames, first),
                lambda result: result.reset_index(drop=True),
            )
        )
    return tuple(questions)


def most_category_like(sample: Any) -> str | None:
    """Return the column to group by: text before numbers, few values before many.

    Parameters
    ----------
    sample : pandas.DataFrame

    Returns
    -------
    str or None
        None if every column has only one value, or too many.
    """
    counted = []
    for position, column in enumerate(sample.columns):
        values = sample[column].nunique()
        is_float = sample[column].dtype.kind == "f"
        if 1 < values <= min(MOST_GROUPS, len(sample) / 2) and not is_float:
            counted.append((sample[column].dtype.kind in "iu", values, position, column))
    return min(counted)[-1] if counted else None


STATISTICS = ("count", "mean", "std", "min", "max")  # quartiles are left out: Dask estimates them


def _moments(frames: Frames, columns: list[str]) -> dict[str, Any]:
    return {name: getattr(frames["data"][columns], name)() for name in STATISTICS}


def _as_columns(result: dict[str, Any]) -> Any:
    import pandas as pd

    return pd.DataFrame(result).rename_axis("column").reset_index()


def _as_count(result: Any) -> Any:
    import pandas as pd

    return pd.DataFrame({"rows": [int(result)]})


def _sorted_head(frames: Frames, column: str) -> Any:
    ordered = frames["data"][[column]].dropna().sort_values(column, ascending=False)
    return ordered.head(10, npartitions=-1, compute=False) if hasattr(ordered, "npartitions") else ordered.head(10)
