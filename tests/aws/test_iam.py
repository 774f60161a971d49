"""Roles created by an older version get the current policy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from dask_starburst.aws.iam import ensure_instance_profile, ensure_role, ensure_service_linked_role
from dask_starburst.aws.session import AWS
from dask_starburst.errors import PermissionDenied
from dask_starburst.local import LocalAWS, faults
from dask_starburst.plan.requests.policies import NAMESPACE, Role, instance_role, scheduler_role

ROLE = scheduler_role("123456789012")
WITHOUT = Role(ROLE.name, ROLE.service, ())
#: A foreign policy.
OLD = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
PUT, GET = "iam:PutRolePolicy", "iam:GetRolePolicy"


def seen(role: str, refusal: PermissionDenied) -> None:
    raise AssertionError(f"{role} was not seen: {refusal}")


@pytest.fixture
def ensure(aws: LocalAWS) -> Callable[[Role], Any]:
    def run(role: Role) -> Any:
        ours = AWS(session=aws.session())
        asyncio.run(ensure_role(ours, role, {"starburst:pool": NAMESPACE}, seen))
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
        return [await ensure_instance_profile(ours, one, {"starburst:pool": NAMESPACE}, seen) for one in (older, role)]

    assert asyncio.run(ensure()) == [role.name, role.name]
    ours.close()
    found = aws.client("iam").get_role_policy(RoleName=role.name, PolicyName=role.name)["PolicyDocument"]
    assert found == role.policy


def test_a_profile_whose_role_was_added_concurrently_is_used(aws: LocalAWS) -> None:
    role, ours = replace(instance_role("123456789012"), name="starburst-at-once"), AWS(session=aws.session())
    text = "Cannot exceed quota for InstanceSessionsPerInstanceProfile: 1"
    aws.inject("iam:AddRoleToInstanceProfile", "LimitExceeded", text, status=409)
    assert asyncio.run(ensure_instance_profile(ours, role, {}, seen)) == role.name
    assert ours.calls["iam:AddRoleToInstanceProfile"] == 1
    ours.close()


class NoAdministrator:
    """Denies looking at roles, and creating them, on an account where they exist."""

    def __init__(self, aws: LocalAWS) -> None:
        self.aws = aws
        self.unseen: dict[str, PermissionDenied] = {}

    def deny(self, *actions: str) -> None:
        for action in actions:
            text = f"User: ann is not authorized to perform: {action} on resource: *"
            self.aws.inject(action, "AccessDenied", text, status=403, times=10)

    def on_unseen(self, role: str, refusal: PermissionDenied) -> None:
        self.unseen[role] = refusal


@pytest.fixture
def denied(aws: LocalAWS) -> Iterator[NoAdministrator]:
    yield NoAdministrator(aws)
    aws.play([faults.Clear()])


def test_who_may_not_look_at_roles_uses_those_of_the_administrator(aws: LocalAWS, denied: NoAdministrator) -> None:
    ours = AWS(session=aws.session())
    role = replace(instance_role("123456789012"), name="starburst-unseen")

    async def ensure() -> tuple[str, str]:
        profile = await ensure_instance_profile(ours, role, {}, denied.on_unseen)
        return profile, await ensure_role(ours, role, {}, denied.on_unseen)

    before = asyncio.run(ensure())
    assert denied.unseen == {}
    denied.deny("iam:GetRole", "iam:GetInstanceProfile", "iam:CreateRole", "iam:CreateInstanceProfile")
    assert asyncio.run(ensure()) == before
    assert denied.unseen.keys() == {role.name}
    ours.close()


def test_who_may_create_roles_but_not_look_at_them_can_set_up_an_account(
    aws: LocalAWS, denied: NoAdministrator
) -> None:
    ours = AWS(session=aws.session())
    role = replace(instance_role("123456789012"), name="starburst-blind")
    denied.deny("iam:GetRole", "iam:GetInstanceProfile")
    for _ in range(2):
        assert asyncio.run(ensure_instance_profile(ours, role, {}, denied.on_unseen)) == role.name
    ours.close()
    aws.play([faults.Clear()])
    profile = aws.client("iam").get_instance_profile(InstanceProfileName=role.name)["InstanceProfile"]
    assert [each["RoleName"] for each in profile["Roles"]] == [role.name]
    assert denied.unseen == {}


def test_a_service_linked_role_that_may_not_be_looked_at_is_taken_for_granted(
    aws: LocalAWS, denied: NoAdministrator
) -> None:
    ours = AWS(session=aws.session())
    denied.deny("iam:GetRole", "iam:CreateServiceLinkedRole")
    asyncio.run(ensure_service_linked_role(ours, "ecs.amazonaws.com", "AWSServiceRoleForECS", denied.on_unseen))
    assert denied.unseen.keys() == {"AWSServiceRoleForECS"}
    ours.close()


def test_a_missing_service_linked_role_that_may_not_be_created_ends_the_start(
    aws: LocalAWS, denied: NoAdministrator
) -> None:
    ours = AWS(session=aws.session())
    denied.deny("iam:CreateServiceLinkedRole")
    with pytest.raises(PermissionDenied, match="iam:CreateServiceLinkedRole"):
        asyncio.run(ensure_service_linked_role(ours, "ecs.amazonaws.com", "AWSServiceRoleForECS", denied.on_unseen))
    ours.close()
