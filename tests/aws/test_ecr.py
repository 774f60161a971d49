"""Our ECR repository on the embedded AWS: creation, listing, refresh, deletion, expiring passwords."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dask_starburst.aws import ecr
from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError, ImageError, PermissionDenied
from dask_starburst.local import LocalAWS
from dask_starburst.plan.images.lifetime import REFRESHED, lifecycle_policy, prunable
from tests.support.ecr_repository import EcrRepository

DAY = 86_400.0
RECIPE = "0123456789abcdef" * 2
Run = Callable[[Callable[[AWS], Awaitable[Any]]], Any]


@pytest.fixture
def name() -> str:
    return f"starburst/{uuid.uuid4().hex[:10]}"


@pytest.fixture
def calls() -> Counter[str]:
    return Counter()


@pytest.fixture
def run(aws: LocalAWS, calls: Counter[str]) -> Run:
    def run(work: Callable[[AWS], Awaitable[Any]]) -> Any:
        async def ask() -> Any:
            ours = AWS(session=aws.session())
            try:
                return await work(ours)
            finally:
                ours.close()
                calls.clear()
                calls.update(ours.calls)

        return asyncio.run(ask())

    return run


def test_a_repository_is_created_once_with_its_settings(
    aws: LocalAWS, run: Run, name: str, calls: Counter[str]
) -> None:
    uri = run(lambda ours: ecr.ensure_repository(ours, name, {"team": "a"}, 14))
    assert uri == f"{aws.endpoint_url.removeprefix('http://')}/{name}"
    client = aws.client("ecr")
    (made,) = client.describe_repositories(repositoryNames=[name])["repositories"]
    assert made["imageTagMutability"] == "IMMUTABLE"
    assert made["imageScanningConfiguration"] == {"scanOnPush": True}
    assert made["encryptionConfiguration"] == {"encryptionType": "AES256"}
    tags = client.list_tags_for_resource(resourceArn=made["repositoryArn"])["tags"]
    assert tags == [{"Key": "team", "Value": "a"}]
    policy = json.loads(client.get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"])
    assert policy == lifecycle_policy(14)
    assert run(lambda ours: ecr.ensure_repository(ours, name, {"team": "a"}, 14)) == uri
    assert calls == {"ecr:DescribeRepositories": 1, "ecr:GetLifecyclePolicy": 1}, "the second call changes nothing"


def test_another_ttl_replaces_the_first(run: Run, name: str) -> None:
    async def change(ours: AWS) -> list[int | None]:
        seen = []
        for days in (14, 30, None, 7):
            await ecr.ensure_repository(ours, name, {}, days)
            seen.append(await ecr.ttl_days(ours, name))
        return seen

    assert run(change) == [14, 30, None, 7]


def test_two_concurrent_creations_both_succeed(run: Run, name: str) -> None:
    async def both(ours: AWS) -> set[str]:
        return set(await asyncio.gather(*(ecr.ensure_repository(ours, name, {}, 30) for _ in range(4))))

    assert len(run(both)) == 1


def test_a_denied_call_to_ecr_names_the_action(aws: LocalAWS, run: Run, name: str) -> None:
    aws.inject("ecr:CreateRepository", "AccessDeniedException", "no", status=400)
    with pytest.raises(PermissionDenied, match="ecr:CreateRepository"):
        run(lambda ours: ecr.ensure_repository(ours, name, {}, 30))


def test_images_are_listed_with_their_platforms_and_index_members(aws: LocalAWS, run: Run, name: str) -> None:
    assert run(lambda ours: ecr.images(ours, name)) == ()
    repository = EcrRepository(aws, name)
    assert run(lambda ours: ecr.images(ours, name)) == ()
    index = repository.push_index(RECIPE)
    found = {image.digest: image for image in run(lambda ours: ecr.images(ours, name))}
    whole = found.pop(index)
    assert whole.tags == (RECIPE,)
    assert whole.platforms == ("linux/amd64", "linux/arm64")
    assert set(whole.children) == set(found)
    assert whole.pushed_at == pytest.approx(aws.now(), abs=5)
    assert whole.blobs == ()
    assert all(part.tags == () and len(part.blobs) == 3 for part in found.values())
    assert {part.size for part in found.values()} == {sum(size for _, size in part.blobs) for part in found.values()}


def test_a_refresh_renews_the_expiry_and_uploads_no_layer(
    aws: LocalAWS, run: Run, name: str, calls: Counter[str]
) -> None:
    run(lambda ours: ecr.ensure_repository(ours, name, {}, 30))
    repository = EcrRepository.of(aws, name)
    repository.push_index(RECIPE, note="kept")
    aws.advance(28.5 * DAY)
    before = {image.digest for image in run(lambda ours: ecr.images(ours, name))}

    async def refresh(ours: AWS) -> Any:
        (old,) = [image for image in await ecr.images(ours, name) if image.tags]
        return old, await ecr.refresh(ours, name, old)

    old, new = run(refresh)
    assert new.children == old.children
    assert new.pushed_at == pytest.approx(aws.now(), abs=5)
    assert new.tags[0].startswith(f"{RECIPE}-r2")
    assert {image.digest for image in run(lambda ours: ecr.images(ours, name))} == before | {new.digest}
    repository.login()
    notes = json.loads(repository.v2("GET", f"manifests/{new.tags[0]}").body)["annotations"]
    assert set(notes) == {"note", REFRESHED}
    assert not any("Upload" in call or "Delete" in call for call in calls)
    aws.advance(2 * DAY)
    assert {tag for image in run(lambda ours: ecr.images(ours, name)) for tag in image.tags} == {new.tags[0]}
    assert len(run(lambda ours: ecr.images(ours, name))) == 3, "the images still exist"


def test_two_refreshes_in_the_same_second_are_one(aws: LocalAWS, run: Run, name: str) -> None:
    EcrRepository(aws, name, mutability="IMMUTABLE").push_index(RECIPE)

    async def both(ours: AWS) -> Any:
        (old,) = [image for image in await ecr.images(ours, name) if image.tags]
        return await asyncio.gather(*(ecr.refresh(ours, name, old) for _ in range(3)))

    digests = {image.digest for image in run(both)}
    assert len(digests) <= 2, "two if a second has just passed"


def test_a_deleted_image_cannot_be_refreshed(aws: LocalAWS, run: Run, name: str) -> None:
    repository = EcrRepository(aws, name)
    repository.push(RECIPE)

    async def refresh(ours: AWS) -> Any:
        (old,) = await ecr.images(ours, name)
        assert await ecr.delete_images(ours, name, [old]) == {}
        return await ecr.refresh(ours, name, old)

    with pytest.raises(ImageError, match="build it again"):
        run(refresh)


def test_an_index_is_deleted_with_its_images_and_missing_ones_are_not_failures(
    aws: LocalAWS, run: Run, name: str
) -> None:
    repository = EcrRepository(aws, name)
    repository.push_index("a")
    repository.push_index("b")

    async def delete(ours: AWS) -> Any:
        every = await ecr.images(ours, name)
        gone = [each.image for each in prunable(every, set(), ours.now() + DAY, 30, keep=1)]
        # In an order that ECR would refuse.
        failures = await ecr.delete_images(ours, name, reversed(gone))
        return failures, await ecr.delete_images(ours, name, gone)

    assert run(delete) == ({}, {})
    assert len(repository.details()) == 3


def test_deletion_failures_are_reported(aws: LocalAWS, run: Run, name: str) -> None:
    index = EcrRepository(aws, name).push_index("a")

    async def delete(ours: AWS) -> Any:
        return await ecr.delete_images(ours, name, [i for i in await ecr.images(ours, name) if not i.children])

    failures = run(delete)
    assert len(failures) == 2
    reason = f"ImageReferencedByManifestList: Requested image referenced by manifest list: [{index}]"
    assert set(failures.values()) == {reason}


def test_images_of_tasks_and_pools_are_in_use(aws: LocalAWS, run: Run) -> None:
    ecs = aws.client("ecs")
    mine, old, pool = (f"{name}-{uuid.uuid4().hex[:8]}" for name in ("mine", "starburst-old", "starburst-pool"))

    def define(family: str, image: str) -> None:
        container = {"name": "main", "image": image, "memory": 64, "command": ["sleep", "600"]}
        ecs.register_task_definition(
            family=family,
            containerDefinitions=[container],
            cpu="256",
            memory="512",
            networkMode="awsvpc",
            requiresCompatibilities=["FARGATE"],
        )

    define(mine, "host/mine:running")
    define(f"{pool}-worker", "host/worker:before")
    define(f"{pool}-worker", "host/worker:latest")
    define(f"{old}-worker", "host/worker:gone")
    ecs.deregister_task_definition(taskDefinition=f"{old}-worker:1")
    ecs.create_cluster(clusterName=mine)
    subnets = [aws.client("ec2").describe_subnets()["Subnets"][0]["SubnetId"]]
    arn = ecs.run_task(
        cluster=mine,
        taskDefinition=mine,
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": subnets}},
    )["tasks"][0]["taskArn"]
    used = run(ecr.in_use)
    assert used["host/mine:running"] == (mine,)
    assert used["host/worker:latest"] == (pool,)
    assert not {"host/worker:before", "host/worker:gone"}.intersection(used)
    ecs.stop_task(cluster=mine, task=arn)


def test_each_call_of_a_login_returns_a_new_password(aws: LocalAWS, run: Run, name: str) -> None:
    repository = EcrRepository(aws, name)

    async def log_in(ours: AWS) -> None:
        login = await ecr.registry_credentials(ours)
        assert login.host == repository.host
        first = await asyncio.to_thread(login)
        assert repository.ask("GET", "/v2/", credentials=":".join(first)).status == 200
        aws.advance(12.1 * 3600)
        assert repository.ask("GET", "/v2/", credentials=":".join(first)).status == 403
        second = await asyncio.to_thread(login)
        assert repository.ask("GET", "/v2/", credentials=":".join(second)).status == 200
        assert first[1] not in repr(login)
        assert second[1] not in f"{login} {vars(login)}"

    run(log_in)


def test_an_error_while_renewing_a_password_reaches_the_caller(aws: LocalAWS, run: Run) -> None:
    async def log_in(ours: AWS) -> None:
        login = await ecr.registry_credentials(ours)
        await asyncio.to_thread(login)
        aws.inject("ecr:GetAuthorizationToken", "InvalidParameterException", "no")
        await asyncio.to_thread(login)

    with pytest.raises(AWSError, match="ecr:GetAuthorizationToken"):
        run(log_in)


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com", True),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", True),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", True),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", True),
        ("public.ecr.aws", False),
        ("123456789012.dkr.ecr.us-east-1.amazonaws.com.example.org", False),
        ("registry-1.docker.io", False),
    ],
)
def test_only_a_private_ecr_accepts_aws_credentials(host: str, ours: bool) -> None:
    assert ecr.is_ours(host) is ours
