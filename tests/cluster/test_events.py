"""The output of clusters: progress, warnings, events."""

from __future__ import annotations

from tests.support.cluster_asserts import script_process

SCRIPT = """
import asyncio, logging
from dask_starburst import StarburstCluster
from dask_starburst.events import HookMessage

async def main():
    for quiet in (False, True):
        cluster = StarburstCluster(cloud="local", asynchronous=True, quiet=quiet)
        for level in (logging.INFO, logging.WARNING):
            text = f"quiet={quiet} {logging.getLevelName(level)}"
            cluster.events.emit(HookMessage(kind="thing-happened", subject="it", text=text, level=level))
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
