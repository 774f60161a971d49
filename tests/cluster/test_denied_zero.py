"""Where AWS does not let the scheduler set its groups to zero, the lease ends soon instead."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import costs_nothing, wait_until

#: The most seconds by which Auto Scaling delays a scheduled action (aws-facts finding 8).
LATE = 120
SHORT = 60


@pytest.fixture
def strict(new_aws: LocalAWS) -> Iterator[LocalAWS]:
    """Let UpdateAutoScalingGroup ask for the rights of the launch template, which the scheduler does not have."""
    new_aws.enforce_iam("templates")
    yield new_aws
    new_aws.enforce_iam(False)


def leases(aws: LocalAWS) -> list[float]:
    """Return in how many seconds each lease ends."""
    actions = aws.client("autoscaling").describe_scheduled_actions()["ScheduledUpdateGroupActions"]
    return [action["StartTime"].timestamp() - aws.now() for action in actions]


def test_an_idle_cluster_whose_scheduler_may_not_empty_it_ends_with_a_short_lease(strict: LocalAWS) -> None:
    cluster = StarburstCluster(
        cloud="local",
        endpoint_url=strict.endpoint_url,
        n_workers=0,
        quiet=True,
        keep={"idle_timeout": 1},
        timeouts={"close": 5},
    )
    with cluster, Client(cluster):
        wait_until(lambda: leases(strict) and max(leases(strict)) <= SHORT, 60, "the scheduler shortens the lease")
        assert strict.status().desired == 1
        strict.advance(SHORT + LATE)
        wait_until(lambda: strict.status().desired == 0, 60, "AWS empties the groups")
        wait_until(lambda: cluster.status.name != "running", 60, "the client hears of it")
    wait_until(lambda: costs_nothing(strict), 60, "nothing is left")
