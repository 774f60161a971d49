"""The patience of adaptive scaling: of our class, of Dask's, and of a user's class."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from distributed.deploy.adaptive import Adaptive

from dask_starburst.cluster.adaptive import CloudAdaptive, adapting, check_keywords, mark_calls, with_patience
from dask_starburst.cluster.cloud import _faster
from dask_starburst.errors import BadArgument
from dask_starburst.plan.loop.adaptive import Patience
from dask_starburst.settings import AdaptiveSettings, Settings

SETTINGS = AdaptiveSettings()


class Other(Adaptive):
    pass


class OfAUser:
    """A cluster with the attributes that the patience depends on."""

    loop = status = None
    settings = Settings.load(adaptive={"scale_down_after": "30 s"})


def test_a_patience_set_by_the_user_overrides_the_startup_time():
    assert CloudAdaptive(OfAUser(), interval=0).scale_down_after == 30


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({}, 90.0),
        ({"wait_count": 3}, 10.0),
        ({"wait_count": 1}, 0.0),
        ({"wait_count": 3, "scale_down_after": "7 s"}, 7),
        ({"scale_down_after": 0}, 0.0),
    ],
    ids=str,
)
def test_the_patience_is_a_duration_and_wait_count_still_works(given: dict[str, Any], seconds: float):
    assert CloudAdaptive(None, interval="5 s", **given).scale_down_after == seconds


def test_another_adaptive_class_gets_the_patience_as_wait_count():
    adaptive = with_patience(Other, None, SETTINGS, Patience(), {"interval": "5 s"})(None, interval="5 s")
    assert adaptive.wait_count == 19
    assert adaptive._workers_to_close_kwargs == {}
    assert with_patience(Other, None, SETTINGS, Patience(), {})(None, wait_count=2).wait_count == 2


def test_the_embedded_aws_is_faster_unless_the_user_chose():
    assert _faster(SETTINGS) == AdaptiveSettings(interval=1.0)
    chosen = AdaptiveSettings(interval=2.0, scale_down_after=30.0)
    assert _faster(chosen) == chosen


@pytest.mark.parametrize("kind", [CloudAdaptive, Adaptive, Other])
def test_unknown_keywords_are_refused_with_a_suggestion(kind: Any):
    with pytest.raises(
        BadArgument, match=r"adapt\(minimum_jobs=…\) is an argument of dask-jobqueue.*give minimum=… in workers"
    ):
        check_keywords(kind, ["minimum_jobs"])
    with pytest.raises(BadArgument, match=r"no argument 'maximun'.* Did you mean maximum?"):
        check_keywords(kind, ["maximun"])
    check_keywords(kind, ["interval", "wait_count", "worker_key", "maximum_memory", "memory_ratio", "scale_down_after"])


def test_a_users_adaptive_class_may_take_other_keywords():
    class Theirs(CloudAdaptive):
        def __init__(self, cluster: Any, colour: str = "", **kwargs: Any) -> None:
            super().__init__(cluster, **kwargs)

    check_keywords(Theirs, ["colour"])


def test_calls_of_adaptive_scaling_are_recognized_as_its_own():
    seen = []

    class Seen(CloudAdaptive):
        async def adapt(self) -> None:
            seen.append(adapting.get())

    adaptive = mark_calls(Seen(None, interval=0))
    asyncio.run(adaptive.adapt())
    assert seen == [adaptive]
    assert adapting.get() is None
