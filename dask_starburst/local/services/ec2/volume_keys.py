"""The keys that encrypt volumes, and whether Auto Scaling may use them.

Auto Scaling needs a grant, or the key policy, for a customer managed key; without it an instance terminates before it
runs (EC2 Auto Scaling User Guide, "Required AWS KMS key policy for use with encrypted volumes").
"""

from __future__ import annotations

from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.instances import StateReason
from moto.kms.models import kms_backends

from dask_starburst.local.backend.backend import ACCOUNT
from dask_starburst.local.backend.state import Ec2Instance
from dask_starburst.local.http.protocols import XML, Answer

#: EC2's reason ("Troubleshoot EC2 instance launch issues: Instance terminates immediately").
DENIED = StateReason("Client.InternalError: Client error on launch", "Client.InternalError")
_MANAGED_BY_AWS = "alias/aws/ebs"
_ROLE = "AWSServiceRoleForAutoScaling"


class VolumeKeys:
    """The EBS keys of one region of the account."""

    def __init__(self, region: str) -> None:
        self._ec2: Any = ec2_backends[ACCOUNT][region]
        self._kms: Any = kms_backends[ACCOUNT][region]

    def refuse(self, ec2_instance: Ec2Instance) -> StateReason | None:
        """Return why an instance of an Auto Scaling group terminates at launch; None if it starts."""
        if ec2_instance.group is None:
            return None
        blocks = self._ec2.get_instance(ec2_instance.id).block_device_mapping.values()
        volumes = (self._ec2.volumes[block.volume_id] for block in blocks)
        return None if all(self._may_use(one.kms_key_id) for one in volumes if one.encrypted) else DENIED

    def answer(self, body: bytes) -> Answer:
        """Answer GetEbsDefaultKmsKeyId, which moto lacks."""
        key = self._ec2.default_kms_key_id
        shown = _MANAGED_BY_AWS if not key or self._is_of_aws(key) else key
        root = "GetEbsDefaultKmsKeyIdResponse"
        text = (
            f'<{root} xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>local</requestId>'
            f"<kmsKeyId>{shown}</kmsKeyId></{root}>"
        )
        return 200, XML, text.encode()

    def _is_of_aws(self, key: str) -> bool:
        return _MANAGED_BY_AWS in self._kms.describe_key(key).aliases

    def _may_use(self, key: str) -> bool:
        if self._is_of_aws(key):
            return True
        grants = self._kms.list_grants(key, None)
        return any(_ROLE in grant.grantee_principal for grant in grants) or _ROLE in self._kms.describe_key(key).policy
