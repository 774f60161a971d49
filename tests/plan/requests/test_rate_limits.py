"""Rate limits: calls wait instead of being throttled."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dask_starburst.local.http import throttle
from dask_starburst.plan.requests.rate_limits import LIMITS, Level, Limit, bucket_of, take

limits = st.builds(Limit, st.floats(1, 100), st.floats(0.5, 50))


@given(limits, st.lists(st.floats(0, 5), min_size=1, max_size=300))
def test_a_bucket_with_the_published_refill_rate_is_never_empty(limit: Limit, pauses: list[float]):
    level: Level | None = None
    now, sent = 0.0, []
    for pause in pauses:
        now += pause
        level, seconds = take(limit, level, now)
        sent.append(now + seconds)
    tokens, at = limit.burst, 0.0
    assert sent == sorted(sent)
    for when in sent:
        tokens, at = min(limit.burst, tokens + (when - at) * limit.refill), when
        assert tokens >= 1 - 1e-6
        tokens -= 1


def test_calls_within_a_burst_do_not_wait_and_later_ones_queue():
    level, waits = None, []
    for _ in range(92):
        level, seconds = take(LIMITS["ecs cluster resource modify"], level, 0.0)
        waits.append(seconds)
    assert waits[:90] == [0.0] * 90
    assert 0 < waits[90] < waits[91] < 0.1


def test_the_limits_of_ecs_match_those_of_the_embedded_aws():
    for name, limit in throttle.LIMITS.items():
        if name in LIMITS:
            assert (LIMITS[name].burst, LIMITS[name].refill) == (limit.burst, limit.refill)
    for call, name in throttle.BUCKET_OF.items():
        assert bucket_of("ecs", call.removeprefix("ecs:")) in (name, None)


def test_operations_of_a_limited_service_have_a_bucket():
    assert bucket_of("autoscaling", "DescribeAutoScalingGroups") == "autoscaling"
    assert bucket_of("ec2", "DescribeInstances") == "ec2 read"
    assert bucket_of("ssm", "PutParameter") == "ssm modify"
    assert bucket_of("iam", "GetRole") is None
