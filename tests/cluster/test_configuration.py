"""The client's Dask configuration and the environment variables of the settings, on real processes."""

from __future__ import annotations

import os
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

from dask_starburst import StarburstCluster
from dask_starburst.errors import BadArgument
from dask_starburst.local import LocalAWS

CONFIG = {
    "distributed.scheduler.allowed-failures": 7,
    "distributed.worker.memory.spill": 0.55,
    "my-package.level": [1, 2],
    "my-package.api-key": "hidden",
}


def value(key: str) -> Any:
    return dask.config.get(key, None)


def allowed_failures(dask_scheduler: Any) -> int:
    return int(dask_scheduler.allowed_failures)


def seen(client: Client) -> list[Any]:
    (worker,) = client.run(lambda: [dask.config.get(key, None) for key in list(CONFIG)[1:3]]).values()
    return [client.run_on_scheduler(allowed_failures), *worker]


def test_the_configuration_of_the_client_holds_on_scheduler_and_workers_as_on_a_local_cluster(aws: LocalAWS) -> None:
    with dask.config.set(CONFIG):
        cluster = StarburstCluster(
            cloud="local",
            endpoint_url=aws.endpoint_url,
            n_workers=1,
            quiet=True,
            env={"OMP_NUM_THREADS": "3", "MY_MODE": "fast"},
        )
    with cluster, Client(cluster) as client:
        client.wait_for_workers(1)
        ours = seen(client)
        (environment,) = client.run(lambda: [os.environ.get(name) for name in ("OMP_NUM_THREADS", "MY_MODE")]).values()
        assert environment == ["3", "fast"]
        (secret,) = client.run(value, "my-package.api-key").values()
        assert secret is None
        (event,) = [event for event in cluster.events if event.kind == "configuration-left-out"]
        assert "my-package.api-key" in event.message
        assert "hidden" not in str(list(cluster.events))
    with dask.config.set(CONFIG):
        local = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
    with local, Client(local) as client:
        client.wait_for_workers(1)
        assert seen(client) == ours == [7, 0.55, [1, 2]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"env": {"MY_API_TOKEN": "x"}}, "looks like a secret"),
        ({"env": {"AWS_PROFILE": "x"}}, "names with AWS_ are set by the cluster"),
        ({"env": {"no name": "x"}}, "not a valid environment variable"),
        ({"worker_groups": {"big": {"env": {"A=B": "x"}}}}, r"worker_groups\.big\.env"),
        ({"env": {"LONG": "x" * 40_000}}, r"env of the group default has 40004 bytes .* give fewer or shorter"),
    ],
)
def test_variables_that_cannot_be_sent_are_refused_before_anything_is_launched(
    aws: LocalAWS, arguments: dict[str, Any], message: str
) -> None:
    before = len(aws.instances())
    with pytest.raises(BadArgument, match=message):
        StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, quiet=True, **arguments)
    assert len(aws.instances()) == before


def test_a_configuration_that_is_too_large_is_refused_with_what_to_type(aws: LocalAWS) -> None:
    too_large = pytest.raises(BadArgument, match="give send_dask_config=False, or a smaller configuration")
    with dask.config.set({"my-package.table": ["row"] * 9000}), too_large:
        StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, quiet=True)
