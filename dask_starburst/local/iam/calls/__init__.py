"""Which rights each call needs: one table a service, from a call's name to the checks that IAM makes.

What depends on another service stands beside the call: CreateAutoScalingGroup asks for RunInstances, CreateTags and
PassRole too. Sources: the "dependent actions" of AWS's service authorization reference, "Launch template support" of
the Auto Scaling guide, "Grant permission to tag resources on creation" of ECS and EC2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dask_starburst.local.http.protocols import Request
from dask_starburst.local.iam import reference
from dask_starburst.local.iam.calls import autoscaling, ec2, ecr, ecs, iam, logs, others, s3, ssm
from dask_starburst.local.iam.calls.inventory import Inventory, Rule
from dask_starburst.local.iam.model import Check

RULES: Mapping[str, Rule] = {
    **autoscaling.RULES,
    **ec2.RULES,
    **ecr.RULES,
    **ecs.RULES,
    **iam.RULES,
    **logs.RULES,
    **others.RULES,
    **s3.RULES,
    **ssm.RULES,
}
#: Calls that need no right: docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html.
FREE = frozenset({"sts:GetCallerIdentity", "sts:GetSessionToken"})


class UnknownCallError(Exception):
    """No table has the call, so nothing is known of the rights that it needs."""


def checks(inventory: Inventory, call: str, request: Request) -> Iterable[Check]:
    """Return the checks of a call such as ``"ecs:RunTask"``.

    Raises
    ------
    UnknownCallError
        No table has the call.
    """
    rule = RULES.get(call)
    if rule is not None:
        return rule(inventory, request)
    if call in FREE:
        return ()
    if reference.exists(call) and not reference.resource_types(call):
        return (Check(call),)
    raise UnknownCallError(call)
