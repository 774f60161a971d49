"""Roles created by an older version get the current policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from dask_starburst.aws.iam import ensure_instance_profile, ensure_role
from dask_starburst.aws.session import AWS
from dask_starburst.local import LocalAWS
from dask_starburst.plan.requests.policies import NAMESPACE, Role, instance_role, scheduler_role

ROLE = scheduler_role("123456789012")
WITHOUT = Role(ROLE.name, ROLE.service, ())
#: A foreign policy.
OLD = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
PUT, GET = "iam:PutRolePolicy", "iam:GetRolePolicy"


@pytest.fixture
def ensure(aws: LocalAWS) -> Callable[[Role], Any]:
    def run(role: Role) -> Any:
        ours = AWS(session=aws.session())
        asyncio.run(ensure_role(ours, role, {"starburst:pool": NAMESPACE}))
        ours.close()
        return ours.calls

    return run


def policy(aws: LocalAWS) -> Any:
    return aws.client("iam").get_role_policy(RoleName=ROLE.name, PolicyName=ROLE.name)["PolicyDocument"]


def test_a_role_without_the_policy_gets_it_once(aws: LocalAWS, ensure: Callable[[Role], Any]) -> None:
    ensure(WITHOUT)
    assert ensure(ROLE)[PUT] == 1
    assert policy(aws) == ROLE.policy
    again = ensure(ROLE)
    assert (again[GET], again[PUT]) == (1, 0)


def test_a_role_with_an_outdated_policy_is_updated(aws: LocalAWS, ensure: Callable[[Role], Any]) -> None:
    ensure(ROLE)
    aws.client("iam").put_role_policy(RoleName=ROLE.name, PolicyName=ROLE.name, PolicyDocument=OLD)
    assert ensure(ROLE)[PUT] == 1
    assert policy(aws) == ROLE.policy


@pytest.mark.parametrize("action", [GET, PUT])
def test_without_permission_to_change_roles_the_existing_role_is_used(
    aws: LocalAWS, ensure: Callable[[Role], Any], action: str, caplog: pytest.LogCaptureFixture
) -> None:
    ensure(ROLE)
    aws.client("iam").put_role_policy(RoleName=ROLE.name, PolicyName=ROLE.name, PolicyDocument=OLD)
    aws.inject(action, "AccessDenied", f"User: ann is not authorized to perform: {action}", status=403)
    ensure(ROLE)
    assert f"not authorized to perform: {action}" in caplog.text


def test_the_role_of_an_existing_instance_profile_is_updated(aws: LocalAWS) -> None:
    role = instance_role("123456789012")
    ours = AWS(session=aws.session())

    async def ensure() -> list[str]:
        older = Role(role.name, role.service, role.statements[:1])
        return [await ensure_instance_profile(ours, one, {"starburst:pool": NAMESPACE}) for one in (older, role)]

    assert asyncio.run(ensure()) == [role.name, role.name]
    ours.close()
    found = aws.client("iam").get_role_policy(RoleName=role.name, PolicyName=role.name)["PolicyDocument"]
    assert found == role.policy


def test_a_profile_whose_role_was_added_concurrently_is_used(aws: LocalAWS) -> None:
    role, ours = replace(instance_role("123456789012"), name="starburst-at-once"), AWS(session=aws.session())
    text = "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1"
    aws.inject("iam:AddRoleToInstanceProfile", "LimitExceeded", text, status=409)
    assert asyncio.run(ensure_instance_profile(ours, role, {})) == role.name
    assert ours.calls["iam:AddRoleToInstanceProfile"] == 1
    ours.close()
