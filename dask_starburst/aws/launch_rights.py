"""Which right a launch template needs: Auto Scaling refuses it without saying so (real-aws R5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask_starburst.aws.session import AWS
from dask_starburst.errors import PermissionDenied, StarburstError

#: Auto Scaling's words ("Troubleshoot Amazon EC2 Auto Scaling: launch templates").
_HIDDEN = "You are not authorized to use launch template"
#: "Launch template support" of the Auto Scaling guide: what Auto Scaling checks with the caller's rights.
_CANDIDATES = "ec2:RunInstances, ec2:CreateTags and iam:PassRole of the instances' role"


def hides_the_right(error: BaseException) -> bool:
    """Return whether AWS refuses a launch template without naming the missing right."""
    return isinstance(error, PermissionDenied) and _HIDDEN in str(error)


async def find(aws: AWS, refusal: PermissionDenied, request: Mapping[str, Any]) -> PermissionDenied:
    """Return a refusal that names the missing right.

    A dry run of RunInstances asks EC2, which names it. If EC2 finds nothing, the candidates are named: a service
    control policy may apply to Auto Scaling's call only.

    Parameters
    ----------
    aws : AWS
        The account.
    refusal : PermissionDenied
        Auto Scaling's refusal.
    request : mapping
        The parameters of the refused call: CreateAutoScalingGroup or UpdateAutoScalingGroup.
    """
    facts: dict[str, Any] = {"code": refusal.code, "operation": refusal.operation, "request_id": refusal.request_id}
    try:
        await aws.call("ec2", "RunInstances", **_dry_run(request))
    except PermissionDenied as named:
        facts["operation"] = named.operation
        return PermissionDenied(f"{refusal} A dry run says: {named}", **facts)
    except StarburstError:
        pass  # AWS answers a dry run that would succeed with the error DryRunOperation
    return PermissionDenied(
        f"{refusal} AWS does not say which right is missing. It asks for {_CANDIDATES}; a service control policy may"
        " deny them. `starburst policy user` prints them all.",
        **facts,
    )


def _dry_run(request: Mapping[str, Any]) -> dict[str, Any]:
    template = request["MixedInstancesPolicy"]["LaunchTemplate"]
    subnet = str(request.get("VPCZoneIdentifier") or "").partition(",")[0]
    types = [each["InstanceType"] for each in template.get("Overrides", []) if "InstanceType" in each]
    return {
        "DryRun": True,
        "MinCount": 1,
        "MaxCount": 1,
        "LaunchTemplate": dict(template["LaunchTemplateSpecification"]),
        **({"InstanceType": types[0]} if types else {}),
        # The template has interfaces, beside which EC2 refuses a subnet of the instance.
        **({"NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": subnet}]} if subnet else {}),
    }
