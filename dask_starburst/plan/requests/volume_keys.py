"""Whether Auto Scaling may use a customer managed key for volumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ROLE = "AWSServiceRoleForAutoScaling"
#: The operations to grant (EC2 Auto Scaling User Guide, "Required AWS KMS key policy for use with encrypted volumes").
_OPERATIONS = (
    *("Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GenerateDataKey"),
    *("GenerateDataKeyWithoutPlaintext", "DescribeKey", "CreateGrant"),
)


def may_use(grantees: Iterable[str], policy: Mapping[str, Any]) -> bool:
    """Return whether a grant or the key policy lets Auto Scaling use the key.

    The account's own principal in a policy is not enough: it delegates to IAM, and the policy of a service-linked
    role cannot be changed. A statement for all principals may have conditions that Auto Scaling meets.

    Parameters
    ----------
    grantees : iterable of str
        The principals of its grants.
    policy : mapping
        The key policy.
    """
    statements = policy.get("Statement", [])
    allowing = (one for one in ([statements] if isinstance(statements, Mapping) else statements) if _allows(one))
    named = [name for one in allowing for name in _principals(one)]
    return any(ROLE in name for name in grantees) or any(name == "*" or ROLE in name for name in named)


def _allows(statement: Mapping[str, Any]) -> bool:
    return bool(statement.get("Effect") == "Allow")


def _principals(statement: Mapping[str, Any]) -> list[str]:
    principal = statement.get("Principal", {})
    if isinstance(principal, Mapping):
        principal = principal.get("AWS", [])
    return [principal] if isinstance(principal, str) else list(principal)


def refusal(key: str, partition: str, account: str) -> str:
    """Return what to do about a key that Auto Scaling may not use."""
    role = f"arn:{partition}:iam::{account}:role/aws-service-role/autoscaling.amazonaws.com/{ROLE}"
    return (
        f"the account's default EBS key {key} is a customer managed key that Auto Scaling may not use, so that each"
        " instance would terminate at launch; nothing was launched. Grant it: aws kms create-grant"
        f" --key-id {key} --grantee-principal {role} --operations {' '.join(_OPERATIONS)}"
    )
