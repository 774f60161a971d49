"""``starburst status``: running and stored resources, and their cost."""

from __future__ import annotations

import json
import time

import pytest

from dask_starburst import StarburstCluster
from dask_starburst.cost.record import Record, save_record
from dask_starburst.fleet.pool.pool import user_name
from dask_starburst.local import LocalAWS
from dask_starburst.local.faults.events import Error
from tests.support.cluster_asserts import starburst


def test_status_shows_running_pools_with_their_cost_and_later_only_the_idle_bill(aws: LocalAWS) -> None:
    url = aws.endpoint_url
    with StarburstCluster(cloud="local", endpoint_url=url, n_workers=0, quiet=True) as cluster:
        said = json.loads(starburst(aws, "status", "--json"))
        assert said["running"] == 1
        assert said["usd_per_hour"] == pytest.approx(0.0408 + 0.005)
        [pool] = said["pools"]
        assert (pool["state"], pool["owner"]) == ("in use", user_name())
        assert pool["lease"] > aws.now()
        assert {each["used"] for each in said["quotas"]} == {0, 1}, "the scheduler is on demand"
        assert cluster._session is not None
        assert said["pools"][0]["name"] in starburst(aws, "status")
    text = starburst(aws, "status")
    assert "Nothing runs in us-east-1 of account 123456789012. 1 empty pool, free of charge." in text
    assert "Standard, Spot 0 of 1,000,000 vCPUs (`starburst quota status`)" in text
    for what in ("images in ECR", "logs in CloudWatch", "free of charge"):
        assert what in text


def test_the_money_of_this_month_is_that_of_real_clusters_in_the_region(aws: LocalAWS) -> None:
    now = time.time()
    past = now - 40 * 86400
    kinds = ((now, "us-east-1", False), (now, "us-east-1", True), (now, "eu-west-1", False), (past, "us-east-1", False))
    for closed, region, simulated in kinds:
        save_record(Record("c", "p", region, closed - 60, closed, 1.25, 0.0, 1.0, simulated=simulated))
    assert json.loads(starburst(aws, "status", "--json"))["spent_this_month"] == {"usd": 1.25, "clusters": 1}
    assert "this month: $1.25 for 1 cluster closed on this computer" in starburst(aws, "status")


def test_without_permission_a_size_is_unknown_and_the_rest_is_shown(aws: LocalAWS) -> None:
    denied = "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: logs:DescribeLogGroups"
    aws.play([Error(action="logs:DescribeLogGroups", code="AccessDeniedException", message=denied, status=400)])
    text = " ".join(starburst(aws, "status").split())
    assert "logs in CloudWatch │ unknown" in text
    assert "at least" in text
    assert "logs:DescribeLogGroups" in text
    assert "images in ECR │ 0 images" in text
