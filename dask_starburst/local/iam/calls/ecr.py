"""ECR's calls, and the rights behind the requests of docker's registry protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dask_starburst.local.http.protocols import Request
from dask_starburst.local.iam.calls.inventory import Inventory, Rule, request_tags
from dask_starburst.local.iam.model import Check


def repository_arn(inventory: Inventory, name: str) -> str:
    """Return the ARN of a repository."""
    return inventory.arn("ecr", f"repository/{name}")


def _create(inventory: Inventory, request: Request) -> Iterator[Check]:
    arn, tags = repository_arn(inventory, request["repositoryName"]), request_tags(request.get("tags"))
    yield Check("ecr:CreateRepository", arn, tags)
    if tags:
        yield Check("ecr:TagResource", arn, tags)


def _describe(inventory: Inventory, request: Request) -> Iterator[Check]:
    for name in request.get("repositoryNames") or ["*"]:
        yield Check("ecr:DescribeRepositories", repository_arn(inventory, name))


def _on_repository(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        yield Check(f"ecr:{action}", repository_arn(inventory, request["repositoryName"]))

    return rule


def _list_tags(inventory: Inventory, request: Request) -> Iterator[Check]:
    yield Check("ecr:ListTagsForResource", request["resourceArn"])


RULES: Mapping[str, Rule] = {
    "ecr:ListTagsForResource": _list_tags,
    "ecr:CreateRepository": _create,
    "ecr:DescribeRepositories": _describe,
    **{
        f"ecr:{action}": _on_repository(action)
        for action in (
            "DeleteRepository",
            "PutLifecyclePolicy",
            "GetLifecyclePolicy",
            "DescribeImages",
            "ListImages",
            "BatchGetImage",
            "BatchDeleteImage",
            "BatchCheckLayerAvailability",
            "GetDownloadUrlForLayer",
            "InitiateLayerUpload",
            "UploadLayerPart",
            "CompleteLayerUpload",
            "PutImage",
        )
    },
}
