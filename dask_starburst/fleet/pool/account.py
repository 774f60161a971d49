"""Set up an account: the resources that cost nothing and that all clusters share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from dask_starburst.aws import ec2, iam, identity, logs, network, placement, ssm, volume_keys
from dask_starburst.aws.patience import Patience
from dask_starburst.aws.regions import dns_suffix
from dask_starburst.aws.session import AWS
from dask_starburst.cancellation import together
from dask_starburst.errors import PermissionDenied
from dask_starburst.events.pool import RolesUnseen
from dask_starburst.plan.requests import policies
from dask_starburst.plan.requests.placement import Zone
from dask_starburst.plan.requests.policies import MANAGED_TAG, NAMESPACE
from dask_starburst.plan.requests.routes import Access
from dask_starburst.plan.requests.tasks import LOG_GROUP
from dask_starburst.settings import Settings


@dataclass(frozen=True, slots=True)
class Account:
    """The account's shared resources after set-up: numbers, names and ARNs."""

    number: str
    caller: str
    region: str
    subnet: Zone
    image_ids: Mapping[str, str]
    security_group: str
    instance_profile: str
    execution_role: str
    scheduler_role: str
    worker_role: str
    partition: str = "aws"


async def set_up(aws: AWS, settings: Settings, types: tuple[str, ...], patience: Patience) -> Account:
    """Create the resources that the account lacks, concurrently.

    Parameters
    ----------
    aws : AWS
        The account.
    settings : Settings
        The user's settings.
    types : tuple of str
        The requested instance types, the scheduler's first.
    patience : Patience
        Repeats each step until AWS shows what earlier ones have created.

    Raises
    ------
    NoCredentials, CredentialsExpired, PermissionDenied
        AWS refuses the credentials or the call; nothing was launched.
    BadArgument
        The subnet does not exist, or there is no default VPC.
    AWSError
        Auto Scaling may not use the account's default EBS key.
    """
    caller = await identity.caller(aws)
    number, unseen = caller.account, dict[str, str]()

    def on_unseen(role: str, refusal: PermissionDenied) -> None:
        unseen[role] = str(refusal)

    tags = {**settings.tags, MANAGED_TAG: NAMESPACE}
    partition, suffix = caller.partition, await asyncio.to_thread(dns_suffix, caller.partition)
    instance = policies.instance_role(number, partition, suffix)
    roles = (
        policies.execution_role(number, partition),
        policies.scheduler_role(number, partition),
        policies.worker_role(),
    )
    (subnet, group), images, profile, arns, *_ = await together(
        _network(aws, settings, types, tags, patience),
        together(*(ssm.recommended_ami(aws, arch) for arch in settings.archs)),
        patience(lambda: iam.ensure_instance_profile(aws, instance, tags, on_unseen)),
        together(*(patience(partial(iam.ensure_role, aws, role, tags, on_unseen)) for role in roles)),
        together(
            patience(lambda: logs.ensure_group(aws, LOG_GROUP, settings.storage.log_retention, tags)),
            *(
                patience(partial(iam.ensure_service_linked_role, aws, *linked, on_unseen))
                for linked in policies.SERVICE_LINKED_ROLES
            ),
        ),
        volume_keys.check_default_key(aws, caller),
    )
    if unseen:
        patience.emit(RolesUnseen(roles=", ".join(sorted(unseen)), error=next(iter(unseen.values()))))
    image_ids = dict(zip(settings.archs, images, strict=True))
    execution, scheduler, worker = arns
    shared = (subnet, image_ids, group, profile, execution, scheduler, worker)
    return Account(number, caller.arn, aws.region, *shared, caller.partition)


async def choose_zone(aws: AWS, settings: Settings, types: tuple[str, ...]) -> Zone:
    """Return the subnet of a cluster with these settings.

    Raises
    ------
    BadArgument
        What the user gives does not exist or has no route to AWS, or there is no default VPC.
    """
    spot = any((group.policy or settings.spot.policy) != "on-demand" for group in settings.groups.values())
    count = settings.n_workers or settings.adaptive.maximum
    given = settings.network
    access: Access = "public" if given.access == "public" else "private"
    return await placement.choose_subnet(
        aws, given.requested, types, spot=spot, count=count, vpc=given.vpc, access=access
    )


async def _network(
    aws: AWS, settings: Settings, types: tuple[str, ...], tags: dict[str, str], patience: Patience
) -> tuple[Zone, str]:
    subnet, own = await choose_zone(aws, settings, types), settings.network.security_groups
    if own:
        await network.check_security_groups(aws, own, subnet.vpc)
        return subnet, ""
    about = "Dask workers among themselves"
    group = await patience(lambda: ec2.ensure_security_group(aws, subnet.vpc, NAMESPACE, about, tags))
    await patience(lambda: ec2.admit_each_other(aws, group))
    return subnet, group
