"""Every call that the package makes has known rights, and someone who holds them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from botocore.loaders import Loader

from dask_starburst.local.iam import reference
from dask_starburst.local.iam.calls import FREE, RULES
from dask_starburst.plan.requests.rights_table import TABLE

PACKAGE = Path(__file__).parents[3] / "dask_starburst"
#: boto3's names of services, where IAM's prefix differs.
IN_IAM = {"service-quotas": "servicequotas", "resourcegroupstaggingapi": "tag"}
SERVICES = {
    service: set(Loader().load_service_model(service, "service-2")["operations"])
    for service in (
        "autoscaling",
        "ce",
        "ec2",
        "ecr",
        "ecs",
        "iam",
        "kms",
        "logs",
        "pricing",
        "resourcegroupstaggingapi",
        "service-quotas",
        "ssm",
        "sts",
    )
}
#: A start checks the account's own EBS key where it may, and does not miss it. `starburst verify` searches the log; who
#: runs it has more rights than the daily ones.
OPTIONAL = {"kms:ListGrants", "kms:GetKeyPolicy", "logs:FilterLogEvents"}


def calls() -> Iterator[str]:
    """Yield every call that stands in the source with the names of its service and operation."""
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).parts[0] == "local":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            words = [str(arg.value) if isinstance(arg, ast.Constant) else "" for arg in node.args]
            for service, operation in pairwise(words):
                if operation in SERVICES.get(service, ()):
                    yield f"{IN_IAM.get(service, service)}:{operation}"


CALLS = sorted({*calls()})


def test_the_rights_of_every_call_are_known() -> None:
    known = {call for call in reference.actions() if not reference.resource_types(call)} | {*RULES, *FREE}
    assert len(CALLS) > 50
    assert [call for call in CALLS if call not in known] == []


def test_every_call_is_allowed_to_someone() -> None:
    allowed = {action for right in TABLE for action in right.actions} | FREE | OPTIONAL
    assert [call for call in CALLS if call not in allowed] == []
