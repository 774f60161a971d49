"""``starburst status``: running and stored resources, and their cost."""

from __future__ import annotations

import json

import pytest

from dask_starburst import StarburstCluster
from dask_starburst.local import LocalAWS
from dask_starburst.local.faults.events import Error
from tests.support.cluster_asserts import starburst


def test_status_shows_running_pools_with_their_cost_and_later_only_the_idle_bill(aws: LocalAWS) -> None:
    url = aws.endpoint_url
    with StarburstCluster(cloud="local", endpoint_url=url, n_workers=0, quiet=True) as cluster:
        said = json.loads(starburst(aws, "status", "--json"))
        assert said["running"] == 1
        assert said["usd_per_hour"] == pytest.approx(0.0408 + 0.005)
        assert [pool["state"] for pool in said["pools"]] == ["in use"]
        assert cluster._session is not None
        assert said["pools"][0]["name"] in starburst(aws, "status")
    text = starburst(aws, "status")
    assert "Nothing runs in us-east-1. 1 empty pool, free of charge." in text
    for what in ("images in ECR", "logs in CloudWatch", "free of charge"):
        assert what in text


def test_without_permission_a_size_is_unknown_and_the_rest_is_shown(aws: LocalAWS) -> None:
    denied = "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: logs:DescribeLogGroups"
    aws.play([Error(action="logs:DescribeLogGroups", code="AccessDeniedException", message=denied, status=400)])
    text = " ".join(starburst(aws, "status").split())
    assert "logs in CloudWatch │ unknown" in text
    assert "at least" in text
    assert "logs:DescribeLogGroups" in text
    assert "images in ECR │ 0 images" in text
