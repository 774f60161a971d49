"""Which grants and key policies let Auto Scaling use a customer managed key."""

from __future__ import annotations

from typing import Any

import pytest

from dask_starburst.plan.requests.volume_keys import may_use

ROLE = "arn:aws:iam::123456789012:role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"
ROOT = "arn:aws:iam::123456789012:root"


def allow(principal: Any, effect: str = "Allow") -> dict[str, Any]:
    return {"Effect": effect, "Principal": principal, "Action": "kms:*", "Resource": "*"}


@pytest.mark.parametrize(
    ("grantees", "statements", "expected"),
    [
        ([], [allow({"AWS": ROOT})], False),
        ([ROLE], [allow({"AWS": ROOT})], True),
        (["arn:aws:iam::123456789012:role/other"], [], False),
        ([], [allow({"AWS": ROOT}), allow({"AWS": [ROOT, ROLE]})], True),
        ([], allow({"AWS": ROLE}), True),
        ([], [allow({"AWS": ROLE}, "Deny")], False),
        ([], [allow("*")], True),
        ([], [allow({"AWS": "*"})], True),
        ([], [allow({"Service": "logs.amazonaws.com"})], False),
    ],
)
def test_a_grant_or_a_statement_for_the_role_is_needed(grantees: list[str], statements: Any, expected: bool):
    assert may_use(grantees, {"Version": "2012-10-17", "Statement": statements}) is expected
