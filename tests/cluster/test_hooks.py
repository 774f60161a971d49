"""Lifecycle hooks, on the embedded AWS."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.errors import BadArgument, StarburstError
from dask_starburst.events import HookFailed, HookMessage
from dask_starburst.hooks import Launch, LifecycleHook
from dask_starburst.local import LocalAWS


class Diary(LifecycleHook):
    """Records its calls."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def on_before_launch(self, launch: Launch) -> None:
        self.seen.append(f"before a launch in {launch.aws.region}, simulated: {launch.simulated}")
        launch.settings = replace(launch.settings, tags={**launch.settings.tags, "team": "research"})
        launch.emit(HookMessage(kind="diary-written", subject="diary", text="the diary is written"))

    async def on_ready(self, cluster: Any) -> None:
        self.seen.append(f"ready: {cluster.scheduler_comm.address == cluster.scheduler_address}")

    async def on_close(self, cluster: Any) -> None:
        self.seen.append(f"closing with {len(cluster.scheduler_info['workers'])} worker")


class Plain:
    """Not a LifecycleHook: it has one method, which is not a coroutine."""

    called = 0

    def on_ready(self, cluster: Any) -> None:
        type(self).called += 1


class Broken(LifecycleHook):
    async def on_ready(self, cluster: Any) -> None:
        raise RuntimeError("the door bell is broken")

    async def on_close(self, cluster: Any) -> None:
        raise RuntimeError("the door is stuck")


class Refuses:
    def on_before_launch(self, launch: Launch) -> None:
        raise StarburstError(f"{launch.settings.arch} is not what this company runs; give arch='x86_64'.")


def test_hooks_run_at_each_stage_change_settings_and_their_failure_does_not_stop_a_cluster(clean: LocalAWS):
    diary, before = Diary(), Plain.called
    hooks = [Broken(), diary, Plain]
    with StarburstCluster(
        cloud="local", endpoint_url=clean.endpoint_url, n_workers=1, quiet=True, hooks=hooks
    ) as cluster:
        with Client(cluster) as client:
            assert client.submit(sum, [1, 2, 3]).result() == 6
        assert cluster.settings.tags["team"] == "research"
        assert Plain.called == before + 1
    assert diary.seen == [
        f"before a launch in {clean.region}, simulated: True",
        "ready: True",
        "closing with 1 worker",
    ]
    messages = [event.message for event in cluster.events if isinstance(event, HookFailed)]
    assert ["the door bell is broken" in messages[0], "the door is stuck" in messages[1]] == [True, True]
    assert "the diary is written" in [event.message for event in cluster.events if event.kind == "diary-written"]


def test_a_hook_can_refuse_a_launch_and_nothing_is_launched(clean: LocalAWS):
    before = clean.status().calls.get("autoscaling:CreateAutoScalingGroup", 0)
    with pytest.raises(StarburstError, match="not what this company runs"):
        StarburstCluster(cloud="local", endpoint_url=clean.endpoint_url, n_workers=1, quiet=True, hooks=Refuses())
    assert clean.status().calls.get("autoscaling:CreateAutoScalingGroup", 0) == before


@pytest.mark.parametrize("hook", ["no_such_module:Hook", "json:NoSuchHook", "json", 7, object()])
def test_an_invalid_hook_is_refused_before_anything_starts(hook: Any):
    with pytest.raises(BadArgument, match="hooks="):
        StarburstCluster(cloud="local", quiet=True, hooks=[hook])
