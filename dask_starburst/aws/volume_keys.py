"""EBS encryption: the account's default key."""

from __future__ import annotations

import json

from dask_starburst.aws.identity import Caller
from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError, PermissionDenied
from dask_starburst.plan.requests.volume_keys import may_use, refusal

#: The key that AWS manages (EC2 API reference, GetEbsDefaultKmsKeyId).
_MANAGED_BY_AWS = "alias/aws/ebs"


async def check_default_key(aws: AWS, caller: Caller) -> None:
    """Refuse a start if Auto Scaling may not use the key with which volumes are encrypted.

    Only an administrator may be allowed to read keys; what cannot be read is not checked.

    Raises
    ------
    AWSError
        The key is a customer managed one without a grant for Auto Scaling.
    """
    try:
        key = str((await aws.call("ec2", "GetEbsDefaultKmsKeyId"))["KmsKeyId"])
        if key.endswith(_MANAGED_BY_AWS):
            return
        grants = await aws.pages("kms", "ListGrants", "Grants", KeyId=key)
        answer = await aws.call("kms", "GetKeyPolicy", KeyId=key, PolicyName="default")
        policy = json.loads(answer["Policy"])
    except (AWSError, PermissionDenied, ValueError):
        return
    if not may_use((grant.get("GranteePrincipal", "") for grant in grants), policy):
        raise AWSError(refusal(key, caller.partition, caller.account), operation="kms:CreateGrant")
