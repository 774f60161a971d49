"""The critical path of a start."""

from __future__ import annotations

from benchmarks.harness.timeline import FIRST_CAPACITY, Span, before_capacity, critical_path

SPANS = [
    Span("sts:GetCallerIdentity", 0, 1),
    Span("iam:GetRole", 1, 2),
    Span("ec2:DescribeSubnets", 1, 4),
    Span("ssm:PutParameter", 4, 5),
    Span("ecs:DescribeClusters", 5, 9),
    Span(FIRST_CAPACITY, 5.5, 6),
    Span(FIRST_CAPACITY, 7, 8),
]


def test_calls_that_end_after_the_first_capacity_do_not_count():
    assert before_capacity(SPANS) == [*SPANS[:4], SPANS[5]]
    assert before_capacity(SPANS[:4]) == []


def test_the_critical_path_has_the_calls_of_which_each_waited_for_the_one_before():
    path = [span.name for span in critical_path(before_capacity(SPANS))]
    assert path == ["sts:GetCallerIdentity", "ec2:DescribeSubnets", "ssm:PutParameter", FIRST_CAPACITY]
    assert critical_path([]) == []
