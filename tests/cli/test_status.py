"""``starburst status``: what runs, what is kept, what both cost."""

from __future__ import annotations

import json

import pytest

from dask_starburst import StarburstCluster
from dask_starburst.local import LocalAWS
from tests.evidence import starburst


def test_it_shows_what_runs_with_its_price_and_then_nothing_but_the_idle_bill(aws: LocalAWS) -> None:
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
    for what in ("images in ECR", "volumes of stopped instances", "logs in CloudWatch", "free of charge"):
        assert what in text
