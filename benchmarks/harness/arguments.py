"""The arguments of benchmarks: an option has the same name and meaning in each that has it."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path


def parser(
    description: str | None,
    *,
    seeds: Sequence[int] = (),
    repeat: int | None = None,
    plot: bool = False,
    verbose: bool = False,
) -> argparse.ArgumentParser:
    """Return a parser with ``--smallest`` and the common options that a benchmark has.

    Parameters
    ----------
    description : str or None
        The docstring of the benchmark.
    seeds : sequence of int, optional
        The default of ``--seeds``: the seeds of AWS's simulated latencies, each of which is a run of its own.
    repeat : int, optional
        The default of ``--repeat``: how often each measurement is made, for a median or a minimum.
    plot : bool
        Whether it draws into the file ``--plot``.
    verbose : bool
        Whether it can log the events of clusters.
    """
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--smallest", action="store_true", help="run the smallest size, to check that it runs")
    if seeds:
        default = " ".join(map(str, seeds))
        made.add_argument("--seeds", type=int, nargs="+", default=seeds, help=f"one run for each (default: {default})")
    if repeat is not None:
        made.add_argument("--repeat", type=int, default=repeat, help="runs of each measurement (default: %(default)s)")
    if plot:
        made.add_argument("--plot", type=Path, help="draw into this file (needs matplotlib)")
    if verbose:
        made.add_argument("--verbose", action=_Log, nargs=0, help="log the events of clusters")
    return made


class _Log(argparse.Action):
    def __call__(self, *_: object) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
