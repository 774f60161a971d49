"""Parameter Store's calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dask_starburst.local.backend.account import partition
from dask_starburst.local.http.protocols import Request
from dask_starburst.local.iam.calls.inventory import Inventory, Rule, request_tags
from dask_starburst.local.iam.model import Check


def parameter_arn(inventory: Inventory, name: str) -> str:
    """Return the ARN of a parameter. Public ones belong to no account."""
    if name.startswith("arn:"):
        return name
    if name.startswith("/aws/service/"):
        return f"arn:{partition()}:ssm:{inventory.region}::parameter{name}"
    return inventory.arn("ssm", f"parameter/{name.lstrip('/')}")


def _on_parameter(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        name = request["Name"]
        yield Check(f"ssm:{action}", parameter_arn(inventory, name), inventory.parameter_tags(name))

    return rule


def _on_parameters(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        for name in request["Names"]:
            yield Check(f"ssm:{action}", parameter_arn(inventory, name), inventory.parameter_tags(name))

    return rule


def _put(inventory: Inventory, request: Request) -> Iterator[Check]:
    arn, tags = parameter_arn(inventory, request["Name"]), request_tags(request.get("Tags"))
    overwrite = {"ssm:overwrite": (str(request.get("Overwrite", False)).lower(),)}
    yield Check("ssm:PutParameter", arn, {**tags, **overwrite})
    if tags:
        yield Check("ssm:AddTagsToResource", arn, tags)


def _by_path(inventory: Inventory, request: Request) -> Iterator[Check]:
    recursive = {"ssm:recursive": (str(request.get("Recursive", False)).lower(),)}
    yield Check("ssm:GetParametersByPath", parameter_arn(inventory, request["Path"]), recursive)


def _tag(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        name = request["ResourceId"]
        context = {**request_tags(request.get("Tags")), **inventory.parameter_tags(name)}
        yield Check(f"ssm:{action}", parameter_arn(inventory, name), context)

    return rule


RULES: Mapping[str, Rule] = {
    "ssm:PutParameter": _put,
    "ssm:GetParametersByPath": _by_path,
    "ssm:GetParameters": _on_parameters("GetParameters"),
    "ssm:DeleteParameters": _on_parameters("DeleteParameters"),
    **{f"ssm:{action}": _on_parameter(action) for action in ("GetParameter", "DeleteParameter")},
    **{
        f"ssm:{action}": _tag(action)
        for action in ("AddTagsToResource", "RemoveTagsFromResource", "ListTagsForResource")
    },
}
