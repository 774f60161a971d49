"""A teardown removes everything of ours, whenever it is interrupted, and nothing of anyone else."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from dask_starburst.aws.session import AWS
from dask_starburst.fleet.pool import inventory, teardown
from dask_starburst.fleet.pool.pool import claim, user_name
from dask_starburst.local import LocalAWS
from dask_starburst.local.faults import Clear, Error
from dask_starburst.plan.requests.pool import PoolNames
from dask_starburst.plan.requests.teardown import STEPS, Resource, choose
from tests.support.cluster_asserts import objects
from tests.support.furnished import ask, furnish

REPOSITORY = "starburst/worker"
#: Operations that change nothing.
READS = ("Describe", "List", "Get", "BatchGet")


class Killed(BaseException):
    """The process ends here."""


def found(account: LocalAWS) -> inventory.Inventory:
    return ask(account, lambda aws: inventory.find(aws, REPOSITORY))


def kinds(resources: tuple[Resource, ...]) -> set[str]:
    return {each.kind for each in resources}


async def tear_down(aws: AWS, **options: bool) -> tuple[teardown.Outcome, ...]:
    seen = await inventory.find(aws, REPOSITORY)
    gone, _ = choose(seen.resources, seen.pools, roles=True, **options)
    return await teardown.remove(aws, gone, lambda outcome: None, **options)


def killed_at(account: LocalAWS, call: int) -> bool:
    """Tear down in a process that ends at a number of changes; return whether it ended before the teardown did."""
    session = account.session()
    changes = itertools.count()

    def count(model: Any, **_: Any) -> None:
        if not model.name.startswith(READS) and next(changes) >= call:
            raise Killed

    session.events.register("before-call", count)
    aws = AWS(session=session)
    try:
        asyncio.run(tear_down(aws))
    except Killed:
        return True
    finally:
        aws.close()
    return False


def assert_nothing_is_left(account: LocalAWS) -> None:
    seen = found(account)
    assert seen.resources == ()
    assert seen.unknown == ()
    assert objects(account) == {kind: [] for kind in objects(account)}
    roles = [role["RoleName"] for role in account.client("iam").list_roles()["Roles"]]
    assert not [name for name in roles if name.startswith("starburst")]
    assert account.client("logs").describe_log_groups()["logGroups"] == []
    assert account.client("ecr").describe_repositories()["repositories"] == []


@pytest.fixture
def furnished(new_aws: LocalAWS) -> LocalAWS:
    furnish(new_aws)
    return new_aws


def test_every_kind_of_resource_is_found_and_removed(furnished: LocalAWS) -> None:
    made = kinds(found(furnished).resources)
    assert made == {kind for _, kind in STEPS} - {"instance", "task"}
    outcomes = ask(furnished, tear_down)
    assert [each.error for each in outcomes if each.error] == []
    assert_nothing_is_left(furnished)
    assert ask(furnished, tear_down) == ()


@pytest.mark.parametrize("changes", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_teardown_killed_again_and_again_ends_with_nothing_left(furnished: LocalAWS, changes: int) -> None:
    kills = 0
    while killed_at(furnished, changes):
        kills += 1
        assert kills < 100
    assert kills > 20 / changes
    assert_nothing_is_left(furnished)


def test_a_pool_in_use_is_kept_with_what_it_needs_unless_forced(furnished: LocalAWS) -> None:
    used = furnish(furnished, in_use=True)
    seen = found(furnished)
    gone, kept = choose(seen.resources, seen.pools, roles=True)
    assert {each.pool for each in gone} == {pool.name for pool in seen.pools} - {used}
    assert {each.resource.pool for each in kept} == {used, "starburst"}
    ask(furnished, tear_down)
    assert {each.pool for each in found(furnished).resources} == {used, "starburst"}
    ask(furnished, lambda aws: tear_down(aws, force=True))
    assert_nothing_is_left(furnished)


def test_a_pool_that_a_cluster_claims_meanwhile_is_left_alone(furnished: LocalAWS) -> None:
    seen = found(furnished)
    gone, _ = choose(seen.resources, seen.pools)
    used = furnish(furnished, in_use=True)
    [name] = {each.pool for each in gone if not each.is_shared}
    claimed = ask(furnished, lambda aws: claim(aws, PoolNames(name), "another", "arn"))
    assert claimed
    outcomes = ask(furnished, lambda aws: teardown.remove(aws, gone, lambda outcome: None))
    assert {each.error for each in outcomes} == {
        f"pool {name} is in use by {user_name()} since this moment.",
        f"{name}, {used} needs it",
    }
    assert {each.name for each in found(furnished).resources} >= {each.name for each in gone}


def test_what_aws_denies_is_told_and_the_rest_is_removed(furnished: LocalAWS) -> None:
    denied = "User: ann is not authorized to perform: {}"
    for action in ("ecs:DeleteCapacityProvider", "iam:DeleteRole"):
        play(furnished, action, denied.format(action))
    outcomes = ask(furnished, tear_down)
    failed = {each.resource.kind: each.error for each in outcomes if each.error}
    assert failed.keys() == {"capacity provider", "role", "claim"}
    assert denied.format("ecs:DeleteCapacityProvider") in failed["capacity provider"]
    assert denied.format("iam:DeleteRole") in failed["role"]
    assert kinds(found(furnished).resources) == {"capacity provider", "role", "claim"}
    furnished.play([Clear()])
    ask(furnished, tear_down)
    assert_nothing_is_left(furnished)


def test_what_may_not_be_listed_is_named(furnished: LocalAWS) -> None:
    play(furnished, "iam:ListRoles", "User: ann is not authorized to perform: iam:ListRoles")
    seen = found(furnished)
    assert "role" not in kinds(seen.resources)
    assert len(seen.unknown) == 1
    assert "iam:ListRoles" in seen.unknown[0]


def test_instances_without_a_group_are_terminated(furnished: LocalAWS) -> None:
    """As after a group was deleted by hand, or an instance detached from it."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "starburst:pool", "Value": "starburst-00000000-0"}]}]
    ec2 = furnished.client("ec2")
    image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
    for specification in (tags, []):
        ec2.run_instances(
            ImageId=image, InstanceType="c7g.xlarge", MinCount=1, MaxCount=1, TagSpecifications=specification
        )
    [lone] = [each for each in found(furnished).resources if each.kind == "instance"]
    assert lone.usd_per_hour is not None
    assert lone.usd_per_hour > 0.1
    ask(furnished, tear_down)
    assert_nothing_is_left(furnished)
    assert furnished.status().instances_pending + furnished.status().instances_running == 1


def test_what_is_not_ours_is_never_touched(furnished: LocalAWS) -> None:
    ecs, ecr = furnished.client("ecs"), furnished.client("ecr")
    ecs.create_cluster(clusterName="starburst-trino")
    ecr.create_repository(repositoryName="starburst/trino")
    furnished.client("ssm").put_parameter(Name="/starburst/trino", Value="x", Type="String")
    furnished.client("iam").create_role(RoleName="starburst-trino", AssumeRolePolicyDocument="{}")
    assert "starburst/trino does not have our tag" in found(furnished).unknown[0]
    ask(furnished, tear_down)
    assert ecs.list_clusters()["clusterArns"]
    assert ecr.describe_repositories()["repositories"]
    assert furnished.client("ssm").get_parameter(Name="/starburst/trino")
    assert furnished.client("iam").get_role(RoleName="starburst-trino")


def play(account: LocalAWS, action: str, message: str) -> None:
    account.play([Error(action=action, code="AccessDeniedException", message=message, status=403, count=1000)])
