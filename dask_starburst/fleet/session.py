"""Start a controller from settings, and release its pool at the end."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial

from dask_starburst.aws import ecs, identity, ssm
from dask_starburst.aws.network import caller_in_vpc
from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.cancellation import together
from dask_starburst.events.capacity import SparesRequested
from dask_starburst.events.pool import AccountSetup, PoolClaimed
from dask_starburst.events.stream import Emit
from dask_starburst.fleet.blueprint import Blueprint, available_types
from dask_starburst.fleet.capacity.ec2 import EC2Capacity
from dask_starburst.fleet.capacity.launch import Launcher
from dask_starburst.fleet.checkin import Release
from dask_starburst.fleet.controller.budget import CostTracker, NullCostTracker
from dask_starburst.fleet.controller.loop import Controller, SchedulerClient
from dask_starburst.fleet.pool import preflight
from dask_starburst.fleet.pool.account import Account, set_up
from dask_starburst.fleet.pool.checkout import Checkout
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.groups import HEAD, placements_of
from dask_starburst.plan.loop.state import SCHEDULER, Limits, Name
from dask_starburst.plan.requests.reuse import SHORTEST_WARM, price_of_spares
from dask_starburst.plan.requests.tasks import (
    Container,
    lease_keeper_arguments,
    scheduler_process,
    task_definition,
    worker_process,
)
from dask_starburst.plan.scheduler.shutdown_rules import Lifetimes


class Session:
    """One checkout of a pool.

    Parameters
    ----------
    aws : AWS
        The account.
    blueprint : Blueprint
        The cluster to start.
    emit : callable
        Emits an event.
    books : Books, optional
        Tracks the cost and holds the caps.
    """

    def __init__(self, aws: AWS, blueprint: Blueprint, emit: Emit, cost_tracker: CostTracker | None = None) -> None:
        self.aws = aws
        self.id = uuid.uuid4().hex
        self.controller: Controller | None = None
        self.pool: Pool | None = None
        self.lease: Lease | None = None
        self._blueprint = blueprint
        self._emit = emit
        self._cost_tracker = cost_tracker or NullCostTracker()
        self._patience = Patience(blueprint.settings.timeouts.consistency, emit)
        self._checkout = Checkout(aws, self.id, self._patience)

    @property
    def image(self) -> str | None:
        """The image that scheduler and workers run."""
        return self._blueprint.settings.image

    async def start(
        self, dask: SchedulerClient, workers: Mapping[Name, str], image: Awaitable[str] | None = None
    ) -> Controller:
        """Set up the account, check out a pool and request the scheduler and the workers together.

        `workers` are the names of the first workers, each with its group.
        `image` replaces the image of the settings; it is resolved while the account is set up.

        Raises
        ------
        QuotaExceeded
            The account's quotas do not allow the scheduler, or not a single worker.
        StarburstError
            AWS refused a call; `end` releases what was created.
        """
        settings = self._blueprint.settings
        self._emit(AccountSetup(region=self.aws.region))
        setting_up = set_up(self.aws, settings, self._blueprint.types, self._patience)
        account, quotas = await preflight.run_alongside(setting_up, self.aws, self._blueprint.requests())
        if image is not None:
            settings = replace(settings, image=await image)
            self._blueprint = replace(self._blueprint, settings=settings)
        self._blueprint = available_types(self._blueprint, account)
        caller = await self._caller(account)
        counts = Counter(workers.values())
        counts[self._blueprint.default.name] += settings.keep.warm
        await self._check_out(account, caller, quotas, counts)
        controller = await self._open(account, dask)
        controller.roster.request(SCHEDULER, HEAD)
        for name, group in workers.items():
            controller.roster.request(name, group)
        controller.start()
        return controller

    async def _caller(self, account: Account) -> str:
        """Return the CIDR to admit to the scheduler; empty if the user's own security groups do so."""
        network = self._blueprint.settings.network
        if network.caller or network.security_groups:
            return network.caller or ""
        if network.access == "private":
            return await caller_in_vpc(self.aws, account.subnet.vpc)
        return await identity.caller_cidr(network.checkip_url)

    async def _check_out(
        self, account: Account, caller: str, quotas: preflight.Quotas, counts: Mapping[str, int]
    ) -> None:
        settings = self._blueprint.settings
        spec = self._blueprint.spec(account)
        ports = (settings.scheduler.port, settings.scheduler.dashboard_port)
        workers = max(1, sum(counts.values()))
        requests = self._blueprint.requests(counts)
        pool = await self._checkout.run(
            spec,
            account.caller,
            workers,
            self.aws.now() + settings.keep.lease,
            lambda name: preflight.check(quotas, requests, name, self._emit),
            caller=caller,
            ports=tuple(filter(None, ports)),
            claimed=lambda found: self._emit(PoolClaimed(pool=found.name, instances=found.instances)),
        )
        keeps = settings.keep.warm > 0 or settings.keep.warm_timeout >= SHORTEST_WARM
        self.pool = replace(pool, keeps=keeps)

    async def _open(self, account: Account, dask: SchedulerClient) -> Controller:
        assert self.pool is not None
        settings, pool, default = self._blueprint.settings, self.pool, self._blueprint.default
        definitions, _ = await together(
            self._definitions(account),
            self._patience(lambda: ssm.put_secret(self.aws, pool.names.secret, self._blueprint.secret)),
        )
        self.lease = Lease(settings.keep.lease, self.aws.now())
        await pool.open(settings.max_workers + settings.keep.warm, self.lease.until, self._patience)
        if settings.keep.warm:
            kind, market = default.types[0].name, default.markets[0]
            text = price_of_spares(kind, settings.keep.warm, market, region=self.aws.region)
            self._emit(SparesRequested(pool=pool.name, type=kind, count=settings.keep.warm, text=text))
        timeouts = settings.timeouts
        limits = Limits(
            capacity=timeouts.capacity,
            fallback=timeouts.fallback,
            placements={group.name: group.placements for group in self._blueprint.groups},
            connect=timeouts.connect,
            retire=timeouts.retire,
            warm=settings.keep.warm_timeout,
            spare={default.placements[0]: settings.keep.warm},
            capped=self._cost_tracker.caps.binding,
        )
        groups = {group.name: group for group in self._blueprint.all_groups}
        public = settings.network.access == "public"
        launcher = Launcher(definitions, settings.scheduler.port, groups, public_access=public)
        self.controller = Controller(
            EC2Capacity(pool, launcher, timeouts.poll),
            dask,
            self._emit,
            limits,
            self.lease,
            timeouts.poll,
            settings.spot.on_rebalance,
            self._cost_tracker,
        )
        return self.controller

    def _first_rate(self) -> float:
        """Return the highest hourly cost of the pool, until the client reports a newer one to the scheduler."""
        if self._cost_tracker.caps.total is None:
            return 0.0
        blueprint, rates = self._blueprint, self._cost_tracker.rates()
        counts = blueprint.first_counts()
        counts[blueprint.default.name] += blueprint.settings.keep.warm
        workers = sum(
            counts[group.name] * max(rates.ceiling(group.type_names, market) for market in group.markets)
            for group in blueprint.groups
        )
        head = blueprint.head
        return rates.of(head.types[0].name, head.markets[0]) + workers

    async def _definitions(self, account: Account) -> dict[str, str]:
        assert self.pool is not None
        blueprint, settings, pool = self._blueprint, self._blueprint.settings, self.pool
        placements = placements_of((*blueprint.groups, blueprint.head))  # the scheduler's own last
        groups = [pool.names.group(placement) for placement in placements]
        cap, rate = self._cost_tracker.caps.total, self._first_rate()
        keep = settings.keep
        lifetimes = Lifetimes(keep.lease, keep.idle_timeout, keep.no_client_timeout, cap, rate)
        container = Container(
            pool=pool.name,
            image=settings.image or "",
            region=account.region,
            secret_arn=f"arn:{account.partition}:ssm:{account.region}:{account.number}:parameter{pool.names.secret}",
            execution_role=account.execution_role,
            tags=pool.tags,
            environment={**blueprint.environment, **settings.env},
        )
        processes = (
            scheduler_process(
                account.scheduler_role,
                blueprint.head,
                (settings.scheduler.port, settings.scheduler.dashboard_port),
                lease_keeper_arguments(account.region, groups, lifetimes, blueprint.offers),
                dashboard=settings.scheduler.dashboard,
            ),
            *(
                worker_process(account.worker_role, group, settings.spot.notices, settings.groups[group.name].env)
                for group in blueprint.groups
            ),
        )
        arns = await together(
            *(
                self._patience(partial(ecs.ensure_definition, self.aws, task_definition(container, p), pool.tags))
                for p in processes
            )
        )
        return {p.group: arn for p, arn in zip(processes, arns, strict=True)}

    async def end(self, *, warm: bool = True, ended: Callable[[], bool] = lambda: False) -> list[str]:
        """Release the pool; return the instances that are still billed at the end. See `Release`.

        Parameters
        ----------
        warm : bool
            Whether instances may stay for ``keep.warm_timeout``.
        ended : callable
            Returns whether the scheduler has closed its workers and itself.
        """
        release = Release(
            self.aws,
            self._blueprint.settings,
            self._emit,
            checkout=self._checkout,
            pool=self.pool,
            controller=self.controller,
            lease=self.lease,
        )
        return await release.run(warm, ended)
