"""Clusters in accounts whose vCPU quotas are too small for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dask_starburst import StarburstCluster
from dask_starburst.errors import QuotaExceeded
from dask_starburst.events import QuotaShort, QuotaUnknown
from dask_starburst.local import LocalAWS, faults
from tests.support.cluster_asserts import emitted, leftovers, objects, starburst, wait_until

LAUNCHES = ("autoscaling:SetDesiredCapacity", "ecs:RunTask", "ec2:RunInstances")


@pytest.fixture(autouse=True)
def calm(aws: LocalAWS) -> Iterator[None]:
    yield
    aws.play([faults.Clear()])


def local_cluster(aws: LocalAWS, **arguments: Any) -> StarburstCluster:
    return StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, quiet=True, **arguments)


def launches(aws: LocalAWS) -> int:
    return sum(aws.status().calls.get(action, 0) for action in LAUNCHES)


def refused(aws: LocalAWS, **arguments: Any) -> QuotaExceeded:
    before = launches(aws)
    with pytest.raises(QuotaExceeded) as caught:
        local_cluster(aws, **arguments)
    assert launches(aws) == before
    # The pool was not created, and its claim is freed.
    found = objects(aws) | {"parameters": leftovers(aws)["parameters"]}
    assert found == {kind: [] for kind in found}
    return caught.value


def test_a_scheduler_that_does_not_fit_is_refused_before_anything_is_launched(clean: LocalAWS) -> None:
    clean.play([faults.Quota(market="on-demand", vcpus=0)])
    error = refused(clean, n_workers=2)
    assert (error.quota, error.limit, error.used, error.workers) == ("L-1216C47A", 0.0, 0.0, 0)
    assert "the scheduler's m7g.medium" in str(error)
    assert "`starburst quota request 8 --on-demand`" in str(error)
    assert "Service Quotas, Amazon EC2, L-1216C47A" in str(error)


def test_a_launch_is_refused_if_no_worker_fits(clean: LocalAWS) -> None:
    clean.play([faults.Quota(market="spot", vcpus=3)])
    error = refused(clean, n_workers=2)
    assert (error.quota, error.limit, error.workers) == ("L-34B43A08", 3.0, 0)
    assert "none of 2 workers fits" in str(error)
    assert "Nothing was launched" in str(error)


def test_the_workers_that_fit_run_and_an_event_names_the_others(clean: LocalAWS) -> None:
    clean.play([faults.Quota(market="on-demand", vcpus=5), faults.Quota(market="spot", vcpus=5)])
    with local_cluster(clean, n_workers=2) as cluster:
        (event,) = emitted(cluster, QuotaShort)
        assert "only 1 of 2 workers fit" in event.message
        assert "`starburst quota request 8 --spot`" in event.message
        assert (event.workers, event.requested) == (1, 2)
        cluster.wait_for_workers(1, timeout=60)
        clean.play([faults.Clear()])
        clean.advance(200)  # the refusal is forgotten, and the other workers start
        cluster.wait_for_workers(2, timeout=60)
        cluster.adapt(
            minimum=0, maximum=50
        )  # a maximum that does not fit is not an error: `starburst quota status` shows it
        assert len(emitted(cluster, QuotaShort)) == 1


def test_unknown_quotas_do_not_prevent_a_launch(clean: LocalAWS) -> None:
    action = "servicequotas:GetServiceQuota"
    clean.inject(action, "AccessDeniedException", f"User: ann is not authorized to perform: {action}", times=2)
    with local_cluster(clean, n_workers=0) as cluster:
        (event,) = emitted(cluster, QuotaUnknown)
        assert f"not authorized to perform: {action}" in event.message


def test_warm_instances_do_not_count_against_the_cluster_that_reuses_them(clean: LocalAWS) -> None:
    clean.play([faults.Quota(market="on-demand", vcpus=1), faults.Quota(market="spot", vcpus=4)])
    assert "3 of 3" not in starburst(clean, "pool", "warm", "1", "--yes")
    with local_cluster(clean, n_workers=1) as cluster:
        assert emitted(cluster, QuotaShort) == []
        cluster.wait_for_workers(1, timeout=60)
        with pytest.raises(QuotaExceeded, match="the scheduler's"):  # a second scheduler does not fit
            local_cluster(clean, n_workers=1)
    wait_until(lambda: not any(leftovers(clean).values()), 60, "everything is gone")


def test_prewarming_more_than_fits_is_reported(clean: LocalAWS) -> None:
    clean.play([faults.Quota(market="on-demand", vcpus=0)])
    with pytest.raises(AssertionError, match="QuotaExceeded"):
        starburst(clean, "pool", "warm", "1", "--yes")
