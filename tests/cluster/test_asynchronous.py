"""An asynchronous cluster that is never awaited, cancelled or forgotten leaves nothing in AWS, and no task."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from distributed.core import Status

from dask_starburst import StarburstCluster
from dask_starburst.events import CapacityRequested
from dask_starburst.local import LocalAWS
from tests.support.client_proxy import ClientProxy
from tests.support.cluster_asserts import leftovers, nothing_left, script_process

#: Events and calls of a start in an account that is set up already.
MOMENTS = (
    "account-setup",
    "ssm:PutParameter 1",  # the claim
    "autoscaling:UpdateAutoScalingGroup 1",
    "instance-launched",
    "ecs:RunTask 1",
)
OTHER_MOMENTS = (
    "pool-claimed",
    "ec2:AuthorizeSecurityGroupIngress 1",
    "ssm:PutParameter 2",  # the secret
    "autoscaling:PutScheduledUpdateGroupAction 1",
    "autoscaling:SetDesiredCapacity 1",
    "capacity-requested",
    "instance-connected",
)


def cluster_in(aws: LocalAWS | ClientProxy, **arguments: Any) -> StarburstCluster:
    return StarburstCluster(
        cloud="local", endpoint_url=aws.endpoint_url, quiet=True, asynchronous=True, **{"n_workers": 0, **arguments}
    )


@pytest.fixture(scope="module")
def papers() -> Iterator[LocalAWS]:
    """Yield an embedded AWS whose tasks run no processes: enough for starts that do not complete."""
    with LocalAWS(processes=False) as aws:
        yield aws


def test_a_cluster_that_was_never_awaited_can_be_closed_twice_and_in_any_loop() -> None:
    async def never_awaited() -> StarburstCluster:
        cluster = StarburstCluster(cloud="local", asynchronous=True)
        await cluster.close()
        await cluster.close()
        assert cluster.status is Status.closed
        async with asyncio.timeout(5):
            await StarburstCluster(cloud="local", asynchronous=True).close(timeout=5)
        return StarburstCluster(cloud="local", asynchronous=True)

    left = asyncio.run(never_awaited())
    left.close()  # its loop has ended
    left.close()
    assert left.status is Status.closed


NEVER_AWAITED = """
import asyncio
from dask_starburst import StarburstCluster

async def main():
    return StarburstCluster(cloud="local", asynchronous=True)

cluster = asyncio.run(main())
"""


def test_a_cluster_that_was_never_awaited_prints_nothing_at_exit() -> None:
    with script_process(NEVER_AWAITED) as process:
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "")


async def _cancelled(aws: LocalAWS, moment: str, way: Callable[[StarburstCluster], Awaitable[None]]) -> None:
    """Cancel a start at an event or after a call; nothing may be left afterwards."""
    with ClientProxy(aws) as proxy:
        cluster = cluster_in(proxy)
        task = asyncio.ensure_future(way(cluster))
        loop = asyncio.get_running_loop()

        def cancel_at(what: str) -> bool:
            if what == moment:
                loop.call_soon_threadsafe(task.cancel)
            return False

        cluster.events.listen(lambda event: void(cancel_at(event.kind)))
        proxy.after = cancel_at
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cluster.status is Status.closed
        assert asyncio.all_tasks() == {asyncio.current_task()}
    assert nothing_left(aws), (moment, leftovers(aws))


def void(_: object) -> None:
    """Await a call and discard its result."""


async def _awaited(cluster: StarburstCluster) -> None:
    await cluster


async def _entered(cluster: StarburstCluster) -> None:
    async with cluster:
        pass


async def _in_a_group(cluster: StarburstCluster) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_awaited(cluster))


@pytest.mark.parametrize("moment", [*MOMENTS, *(pytest.param(each, marks=pytest.mark.slow) for each in OTHER_MOMENTS)])
def test_a_start_cancelled_at_any_moment_leaves_nothing(papers: LocalAWS, moment: str) -> None:
    asyncio.run(_cancelled(papers, moment, _awaited))


@pytest.mark.parametrize("way", [_entered, pytest.param(_in_a_group, marks=pytest.mark.slow)])
def test_a_cancelled_start_leaves_nothing_for_every_way_to_start(papers: LocalAWS, way: Any) -> None:
    asyncio.run(_cancelled(papers, "capacity-requested", way))


def test_a_start_cancelled_while_its_embedded_aws_starts_stops_that_too() -> None:
    async def run() -> StarburstCluster:
        cluster = StarburstCluster(cloud="local", asynchronous=True, quiet=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await cluster
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return cluster

    from dask_starburst.local.launcher import _open_servers

    before = set(_open_servers)
    assert asyncio.run(run()).status is Status.closed
    assert [s for s in set(_open_servers) - before if s._process.poll() is None] == []


def test_closing_ends_a_start_that_is_under_way(papers: LocalAWS) -> None:
    async def run() -> None:
        cluster = cluster_in(papers)
        requested = asyncio.Event()
        cluster.events.listen(lambda event: requested.set() if isinstance(event, CapacityRequested) else None)
        starting = asyncio.ensure_future(_awaited(cluster))
        await requested.wait()
        await cluster.close()
        with pytest.raises(Exception, match="closed while it started"):
            await starting
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(run())
    assert nothing_left(papers), leftovers(papers)


class CancelsWhenReady:
    """Cancels the start of its cluster in the last hook."""

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None

    async def on_ready(self, cluster: Any) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.sleep(60)


def test_a_start_cancelled_during_its_last_hook_leaves_nothing(clean: LocalAWS) -> None:
    async def run() -> None:
        hook = CancelsWhenReady()
        cluster = cluster_in(clean, hooks=[hook])
        hook.task = asyncio.ensure_future(_awaited(cluster))
        with pytest.raises(asyncio.CancelledError):
            await hook.task
        assert cluster.status is Status.closed

    asyncio.run(run())


async def _cancelled_close(aws: LocalAWS, at: str) -> None:
    """Close a cluster, and cancel the close at every AWS call, from a certain call on."""
    with ClientProxy(aws) as proxy:
        cluster = await cluster_in(proxy)
        loop, proxy.calls[:] = asyncio.get_running_loop(), []
        closing = asyncio.ensure_future(cluster.close())
        if at:

            def after(call: str) -> bool:
                if any(each.startswith(at) for each in proxy.calls):
                    loop.call_soon_threadsafe(closing.cancel)
                return False

            proxy.after = after
        else:
            await asyncio.sleep(0)
            closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert cluster.status is Status.closed
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await cluster.close()
    assert nothing_left(aws), (at, leftovers(aws))


#: The calls of a close. It stops no task: tasks end with their scheduler and their instances.
CLOSE = (
    "autoscaling:UpdateAutoScalingGroup",
    "ec2:RevokeSecurityGroupIngress",
    "autoscaling:DeleteScheduledAction",
    "ssm:PutParameter",
)


@pytest.mark.parametrize("at", ["", CLOSE[0], *(pytest.param(call, marks=pytest.mark.slow) for call in CLOSE[1:])])
def test_a_close_that_is_cancelled_leaves_nothing(clean: LocalAWS, at: str) -> None:
    asyncio.run(_cancelled_close(clean, at))


def test_a_close_continues_after_its_timeout(clean: LocalAWS) -> None:
    async def run() -> None:
        cluster = await cluster_in(clean)
        with pytest.raises(TimeoutError):
            await cluster.close(timeout=0.001)
        assert cluster.status is not Status.closed
        await cluster.close()
        assert cluster.status is Status.closed

    asyncio.run(run())


@pytest.mark.parametrize(
    "last",
    [
        pytest.param(lambda cluster: asyncio.ensure_future(cluster.close()), id="closing"),
        pytest.param(lambda cluster: cluster, id="forgotten"),
    ],
)
def test_the_end_of_the_event_loop_leaves_nothing(clean: LocalAWS, last: Callable[[Any], Awaitable[None]]) -> None:
    """``asyncio.run`` cancels all tasks at its end; a forgotten cluster is closed when the interpreter exits."""

    async def run() -> None:
        cluster = await cluster_in(clean)
        last(cluster)
        await asyncio.sleep(0)

    asyncio.run(run())
    for cluster in list(StarburstCluster._open):
        assert cluster.status is not Status.closed
        cluster.close()


def test_a_report_and_a_cost_print_for_people() -> None:
    async def run() -> tuple[str, str, str]:
        cluster = StarburstCluster(cloud="local", asynchronous=True, name="mine")
        texts = str(cluster.report()), repr(cluster.report()), repr(cluster.cost)
        await cluster.close()
        return texts

    report, same, cost = asyncio.run(run())
    assert report == same
    assert report.splitlines()[:2] == ["Cluster      StarburstCluster mine", "Status       created"]
    assert cost == "$0.0000 (nothing was launched)"
