"""The output of clusters: progress, warnings, events."""

from __future__ import annotations

import logging

from dask_starburst.events import REMEMBERED, Event, EventLog
from tests.support.cluster_asserts import script_process

SCRIPT = """
import asyncio, logging
from dask_starburst import StarburstCluster
from dask_starburst.events import Event

async def main():
    for quiet in (False, True):
        cluster = StarburstCluster(cloud="local", asynchronous=True, quiet=quiet)
        for level in (logging.INFO, logging.WARNING):
            event = Event(0.0, "thing-happened", "it", f"quiet={quiet} {logging.getLevelName(level)}", level)
            cluster.events.emit(event)
        print("REMEMBERED", len(cluster.events), flush=True)
        await cluster.close()

asyncio.run(main())
"""


def test_a_quiet_cluster_prints_no_progress_beside_one_that_does() -> None:
    with script_process(SCRIPT) as process:
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    assert "quiet=False INFO" in output
    assert "quiet=True INFO" not in output
    assert output.count("WARNING") == 2, "warnings are printed by a quiet cluster too"
    assert output.count("REMEMBERED 2") == 2


def test_an_event_log_keeps_its_start_time_after_its_first_events_were_dropped():
    log = EventLog(quiet=True)
    for second in range(REMEMBERED + 5):
        log.emit(Event(float(second), "tick", "x", "a second", logging.DEBUG))
    assert len(log) == REMEMBERED
    assert (log.began, log[0].time) == (0.0, 5.0)
