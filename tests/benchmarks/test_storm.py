"""The model beneath the storm benchmark."""

from __future__ import annotations

from random import Random

from benchmarks.storm import DEAF, JOIN, StormyAWS


def test_workers_join_and_are_missed_after_the_stated_seconds() -> None:
    aws = StormyAWS(Random(0))
    assert aws.join_time() == JOIN
    assert aws.detection_time() == DEAF
