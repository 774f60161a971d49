"""The costs of closed clusters, stored on this computer as one line of JSON each."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from dask_starburst.cost.bill import Cost
from dask_starburst.paths import private_folder, private_opener, state_dir

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """The final bill of one cluster.

    Times are seconds since the epoch, amounts US dollars. ``source`` is the source of the prices. ``boot_seconds`` is
    the median time from the request of an instance until its worker was up; 0 if no worker was started.
    """

    name: str
    pool: str
    region: str
    opened: float
    closed: float
    usd: float
    saved: float
    instance_hours: float
    by_group: Mapping[str, float] = field(default_factory=dict)
    by_cause: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    simulated: bool = False
    boot_seconds: float = 0.0


def record_of(name: str, pool: str, opened: float, closed: float, cost: Cost, boots: Sequence[float] = ()) -> Record:
    """Return the record of a closed cluster."""
    return Record(
        name=name,
        pool=pool,
        region=cost.region,
        opened=opened,
        closed=closed,
        usd=cost.usd,
        saved=cost.saved,
        instance_hours=cost.instance_hours,
        by_group=dict(cost.by_group),
        by_cause=dict(cost.by_cause),
        source=cost.source,
        simulated=cost.simulated,
        boot_seconds=median(boots) if boots else 0.0,
    )


def records_path() -> Path:
    """Return the path of the file with the records. It may be deleted at any time."""
    return state_dir() / "costs.jsonl"


def save_record(record: Record) -> None:
    """Append a record. A failure is logged; only the cost report depends on it."""
    line = json.dumps({name: getattr(record, name) for name in Record.__dataclass_fields__})
    try:
        private_folder(records_path().parent)
        with open(records_path(), "a", encoding="utf-8", opener=private_opener) as out:
            out.write(line + "\n")
    except OSError as error:
        logger.warning("the cost of the cluster is not stored for `starburst cost report`: %s", error)


def load_records(since: float = 0.0) -> list[Record]:
    """Return the records of clusters that were closed after `since` (seconds), newest first."""
    try:
        lines = records_path().read_text("utf-8").splitlines()
    except OSError:
        return []
    found = [record for line in lines if (record := _read(line)) is not None]
    return sorted((r for r in found if r.closed >= since), key=lambda r: -r.closed)


def _read(line: str) -> Record | None:
    try:
        values: dict[str, Any] = json.loads(line)
        return Record(**{name: value for name, value in values.items() if name in Record.__dataclass_fields__})
    except (ValueError, TypeError, AttributeError):
        return None  # a truncated line, or one of another version
