"""`dask_starburst.estimate`: a sample is run here, nothing is launched, bad input is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import dask_starburst
from dask_starburst import StarburstCluster
from dask_starburst.cluster.estimate import startup_seconds
from dask_starburst.cost import Cost
from dask_starburst.cost.record import Record, load_records, record_of, save_record
from dask_starburst.errors import BadArgument
from dask_starburst.events import WorkerReady
from dask_starburst.local import LocalAWS
from dask_starburst.local.faults.events import Quota
from dask_starburst.plan.money.estimate import per_hour
from tests.support.cluster_asserts import wait_until


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def closed(*startups: float, simulated: bool = False) -> Record:
    return record_of("mine", "starburst-1-0", 0.0, 100.0, Cost(simulated=simulated), startups)


def test_a_sample_is_run_and_the_whole_work_is_estimated() -> None:
    tried: list[int] = []

    def work(item: int) -> None:
        tried.append(item)
        time.sleep(0.02)

    found = dask_starburst.estimate(work, range(3), 100_000, workers=(1, 20), region="us-east-1", arch="x86_64")
    assert tried == [0, 1, 2]
    assert [row.way.workers for row in found.rows] == [0, 0, 1, 20]
    assert all(seconds >= 0.02 for seconds in found.sample)
    assert found.rows[0].seconds >= 0.02 * 100_000
    assert found.rows[3].usd > 0
    assert "c7i.xlarge in us-east-1" in repr(found)
    assert "assumed" in repr(found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sample": []}, "the sample is empty"),
        ({"n": 1}, "n=1 is less than the 2 items"),
        ({"workers": (0,)}, "give positive numbers of workers"),
        ({"startup": -1.0}, "negative"),
        ({"speed": 0.0}, "not positive"),
        ({"workers": (1.5,)}, "give positive numbers of workers"),
        ({"n_workers": 5}, "give the numbers of workers as workers="),
        ({"arch": "vax"}, "arch='vax' is not valid"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(BadArgument) as caught:
        dask_starburst.estimate(**{"fn": len, "sample": ["a", "b"], "n": 10, **arguments})
    assert said in str(caught.value)


def test_the_startup_time_is_the_median_of_the_last_clusters_on_aws() -> None:
    assert startup_seconds([closed(60.0, 70.0, 500.0), closed(), closed(100.0), closed(110.0)])[0] == 100.0
    assert startup_seconds([closed(60.0)]) == (60.0, "measured: by your last cluster")
    seconds, whence = startup_seconds([closed(1.0, simulated=True)])
    assert seconds == 90.0
    assert whence.startswith("assumed")


def test_startup_times_measured_before_are_the_default() -> None:
    save_record(closed(64.0))
    found = dask_starburst.estimate(len, ["a"], 10, workers=2)
    assert found.rows[-1].way.startup == 64.0
    assert "Start-up 64 s, measured" in repr(found)
    assert dask_starburst.estimate(len, ["a"], 10, workers=2, startup=5).rows[-1].way.startup == 5


def test_one_quote_prices_clusters_of_every_size() -> None:
    asked = dask_starburst.quote(n_workers=50, region="us-east-1")
    for count in (1, 10):
        alone = dask_starburst.quote(n_workers=count, region="us-east-1").usd_per_hour
        assert per_hour(asked, count) == pytest.approx(alone)


def test_notes_warn_of_pure_python_large_data_and_short_items() -> None:
    found = dask_starburst.estimate(lambda item: item * 2, [b"x" * 1_000_000] * 2, 1000)
    assert "holds the interpreter lock" in repr(found)
    assert "in all; their transfer is not included" in repr(found)
    assert "process many items in one call" in repr(found)
    assert "2 sample items say little" in repr(found)
    assert "interpreter lock" not in repr(dask_starburst.estimate(len, ["a"], 10, worker={"nthreads": 1}))


def test_a_failing_item_is_named() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        dask_starburst.estimate(lambda item: 1 / item, [1, 0], 10)
    assert "item 1 of the sample: 0" in caught.value.__notes__[0]


def test_a_closed_cluster_records_its_startup_times_and_an_estimate_queries_aws_once(
    aws: LocalAWS,
) -> None:
    where: dict[str, Any] = {"cloud": "local", "endpoint_url": aws.endpoint_url}
    with StarburstCluster(n_workers=1, quiet=True, **where) as cluster:
        cluster.wait_for_workers(1)
        # Dask knows the worker before the control loop has seen that it is ready.
        wait_until(
            lambda: any(isinstance(event, WorkerReady) and event.subject == 0 for event in cluster.events),
            60,
            "the loop has seen it",
        )
    (record,) = load_records()
    assert record.simulated
    assert 0 < record.boot_seconds < record.closed - record.opened
    assert startup_seconds([record])[1].startswith("assumed")  # records of the embedded AWS are ignored
    before = aws.status().calls
    text = repr(dask_starburst.estimate(len, ["a"], 10, **where))
    after = aws.status().calls
    asked = {name: count - before.get(name, 0) for name, count in after.items()}
    assert "the embedded AWS" in text
    assert asked["ec2:DescribeSpotPriceHistory"] <= 2  # one for each product name


def test_an_estimate_mentions_quotas_and_caps_that_are_too_small(aws: LocalAWS) -> None:
    aws.play([Quota(market="spot", vcpus=9)])
    try:
        text = repr(dask_starburst.estimate(len, ["a"], 10, cloud="local", endpoint_url=aws.endpoint_url))
    finally:
        aws.play([Quota(market="spot", vcpus=None)])
    assert "Only 2 of 50 workers fit" in text
    assert "50 workers would be refused" in repr(
        dask_starburst.estimate(len, ["a"], 10, money={"max_hourly_cost": 0.5})
    )
