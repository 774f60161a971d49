"""RunTask in batches: the placement of workers, and how containers and the client find it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from dask_starburst.plan.requests.tasks import (
    MOST_OVERRIDES,
    MOST_TASKS,
    WORKERS_VARIABLE,
    Launch,
    Place,
    place_of,
    places_of,
    run_request,
)
from tests.support.placements import SPOT

ARN = "arn:aws:ecs:us-east-1:123456789012:container-instance/pool/"


def place(n: int) -> Place:
    return Place(f"i-{n:017x}", f"{n:032x}", f"a-name-of-some-length-{n}", 3, 7 * 2**30)


def launch(places: Sequence[Place]) -> Launch:
    environment = {"STARBURST_SCHEDULER": "tls://10.0.0.1:8786"}
    return Launch("pool", "s" * 32, SPOT, "worker", "d:1", tuple(places), 4096, 7000, environment, {"k": "v"})


FULL = [place(n) for n in range(MOST_TASKS)]


def test_a_batch_lists_its_instances_with_one_task_each():
    request = run_request(launch([place(1), place(2)]))
    assert request["count"] == 2
    assert request["placementConstraints"] == [
        {"type": "distinctInstance"},
        {"type": "memberOf", "expression": f"ec2InstanceId in ['{place(1).instance}', '{place(2).instance}']"},
    ]
    assert (request["overrides"]["cpu"], request["overrides"]["memory"]) == ("4096", "7000")


def test_a_full_batch_is_within_the_limits_of_ecs():
    request = run_request(launch(FULL))
    assert len(json.dumps(request["overrides"])) < MOST_OVERRIDES / 2
    assert len(request["clientToken"]) <= 64


@pytest.mark.parametrize("places", [[*FULL, place(99)], [replace(FULL[0], worker="x" * MOST_OVERRIDES)]])
def test_a_batch_above_the_limits_of_ecs_is_rejected_before_it_is_sent(places: list[Place]):
    with pytest.raises(ValueError, match="too many for one RunTask"):
        run_request(launch(places))


@pytest.mark.parametrize("other", [{"worker": "b"}, {"launch": 4}, {"instance": "i-2"}])
def test_the_client_token_identifies_a_batch(other: dict):
    token = run_request(launch(FULL))["clientToken"]
    assert run_request(launch(FULL))["clientToken"] == token
    assert run_request(launch([replace(FULL[0], **other), *FULL[1:]]))["clientToken"] != token


def test_a_worker_name_survives_the_round_trip_through_aws():
    overrides = run_request(launch([replace(place(1), worker=1), replace(place(2), worker="scheduler")]))["overrides"]
    found = [place_of(overrides, ARN + place(n).container_instance) for n in (1, 2)]
    assert [own and own.worker for own in found] == [1, "scheduler"]


def test_a_container_and_a_described_task_yield_the_same_worker():
    overrides = run_request(launch(FULL))["overrides"]
    environment_of = {v["name"]: v["value"] for v in overrides["containerOverrides"][0]["environment"]}
    for own in places_of(environment_of[WORKERS_VARIABLE]):
        assert place_of(overrides, ARN + own.container_instance) == own
    assert place_of(overrides, ARN + "elsewhere") is None
    assert place_of(overrides, None) is None
    assert place_of({"containerOverrides": [{"name": "stranger"}]}, ARN) is None


def test_a_task_that_was_started_alone_is_known_before_it_is_placed():
    assert place_of(run_request(launch([place(1)]))["overrides"], None) == place(1)
