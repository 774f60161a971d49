"""A pool whose resources somebody has deleted by hand is complete again when it is claimed."""

from __future__ import annotations

import asyncio

from dask_starburst.aws import autoscaling, ecs
from tests.support.placements import SPOT
from tests.support.pools import Pools, eventually


def test_a_group_deleted_by_hand_is_created_again_with_a_provider_of_its_own(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        group = pool.names.group(SPOT)
        await autoscaling.remove_group(pools.aws, group)

        async def gone() -> bool:
            return group not in await autoscaling.describe(pools.aws, [group])

        await eventually(gone, "the group is gone")
        again = await pools.make(pool.spec, pool.names, pool.session)
        arn = (await pools.group(again)).arn
        answer = await pools.aws.call("ecs", "DescribeCapacityProviders", capacityProviders=[group])
        [provider] = answer["capacityProviders"]
        assert provider["autoScalingGroupProvider"]["autoScalingGroupArn"] == arn
        assert set(await ecs.cluster_providers(pools.aws, pool.name) or []) == set(again.group_names)
        await pools.filled(again, 1)
        arns = await ecs.connected_instances(pools.aws, pool.name)
        found = await pools.aws.call("ecs", "DescribeContainerInstances", cluster=pool.name, containerInstances=arns)
        assert sorted(one["capacityProviderName"] for one in found["containerInstances"]) == sorted(again.group_names)

    asyncio.run(story())
