"""The embedded AWS put together: one process, one port."""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cheroot.wsgi import Server as HttpServer
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from dask_starburst.local import endpoints
from dask_starburst.local.backend.addresses import Network, claim_network
from dask_starburst.local.backend.clock import Clock
from dask_starburst.local.backend.consistency import Veil
from dask_starburst.local.backend.engine import Engine
from dask_starburst.local.backend.keys import Keys
from dask_starburst.local.backend.quotas import Quotas
from dask_starburst.local.backend.timing import Profile, Timing
from dask_starburst.local.backend.world import World
from dask_starburst.local.containers.awslogs import LogShipper
from dask_starburst.local.containers.fake import PlayedContainers
from dask_starburst.local.containers.images import Images
from dask_starburst.local.containers.processes import Containers
from dask_starburst.local.control import Control, own_address
from dask_starburst.local.http.protocols import Service
from dask_starburst.local.http.router import Gate
from dask_starburst.local.injector import Injector
from dask_starburst.local.moto import patches
from dask_starburst.local.services.autoscaling.groups import Groups
from dask_starburst.local.services.autoscaling.operations import GroupOperations
from dask_starburst.local.services.autoscaling.views import GroupViews, ScheduleOperations
from dask_starburst.local.services.autoscaling.views import TagOperations as GroupTagOperations
from dask_starburst.local.services.ec2.capacity import Market
from dask_starburst.local.services.ec2.docker_hosts import DockerHosts
from dask_starburst.local.services.ec2.instances import Ec2
from dask_starburst.local.services.ec2.machines import Machines
from dask_starburst.local.services.ec2.metadata import MetadataApp
from dask_starburst.local.services.ec2.metadata_views import Facts
from dask_starburst.local.services.ec2.placement_scores import PlacementScores
from dask_starburst.local.services.ec2.spot_history import SpotHistory
from dask_starburst.local.services.ecr import moto as moto_ecr
from dask_starburst.local.services.ecr.registry import LAYERS, Registry
from dask_starburst.local.services.ecr.repositories import Ecr
from dask_starburst.local.services.ecs.agent import AgentApp
from dask_starburst.local.services.ecs.clusters import ClusterOperations, ProviderAssociations
from dask_starburst.local.services.ecs.definitions import DefinitionOperations
from dask_starburst.local.services.ecs.fargate import fargate_providers
from dask_starburst.local.services.ecs.instances import InstanceOperations
from dask_starburst.local.services.ecs.network import Interfaces
from dask_starburst.local.services.ecs.providers import ProviderOperations
from dask_starburst.local.services.ecs.run import RunOperations
from dask_starburst.local.services.ecs.tags import TagOperations
from dask_starburst.local.services.ecs.task_life import TaskLife
from dask_starburst.local.services.ecs.tasks import TaskViews
from dask_starburst.local.services.pricing import PriceList
from dask_starburst.local.services.service_quotas import ServiceQuotas

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

_log = logging.getLogger(__name__)
_HOST = "127.0.0.1"
_THREADS = 16


@dataclass(frozen=True)
class Options:
    """How to run an embedded AWS."""

    port: int = 0
    region: str = "us-east-1"
    timing: Profile = "fast"
    speed: float = 1.0
    seed: int = 0
    aliases: bool | None = None
    processes: bool = True
    latency: tuple[float, float] = (0.0, 0.0)
    images: Mapping[str, str] = field(default_factory=dict)
    stay: bool = False


class LocalServer:
    """An embedded AWS in this process. There can be one in a process: moto's state is global.

    Parameters
    ----------
    options : Options
        How to run it.

    Attributes
    ----------
    network : Network
        Its addresses.
    endpoint_url : str
        Where it answers.
    world : World
        Its state.
    """

    def __init__(self, options: Options) -> None:
        self.network: Network = claim_network(options.aliases)
        self._folder = Path(tempfile.mkdtemp(prefix="starburst-local-"))
        self._options = options
        self._done = threading.Event()
        self._resetting = threading.Lock()
        self._http = HttpServer((_HOST, options.port), None, numthreads=_THREADS, server_name="local-aws")
        # The port is known once it is bound, and everything that runs here is told of it.
        self._http.prepare()
        self.endpoint_url = f"http://{_HOST}:{self._http.bind_addr[1]}"
        self._keys = Keys()
        self._hooks = _Hooks()
        patches.install(self._hooks, self.network.cidr if self.network.aliases else "127.31.0.0/16")
        self._ecr = Ecr(lambda: self.world.now(), options.region, self.endpoint_url, self._folder / "registry")
        moto_ecr.install(self._ecr)
        self._begin()

    def _begin(self) -> None:
        """Make an account in which there is nothing yet."""
        options = self._options
        timing = Timing(options.timing, options.seed)
        self.world = World(Clock(options.speed), timing, options.region, self.endpoint_url, self._keys)
        self._containers = Containers(self._folder, alone=True) if options.processes else PlayedContainers()
        self._logs = LogShipper()
        self._http.wsgi_app = self._build()

    def reset(self) -> None:
        """Kill all containers and forget everything; address, network and credentials stay."""
        with self._resetting:
            self._engine.stop()
            self._containers.close()
            moto_api_backend.reset()
            self._ecr.reset()
            self._begin()
            self._engine.start()

    def serve(self) -> None:
        """Answer requests in threads of its own, and return. From now on its owner finds it."""
        self._engine.start()
        region, token, stays = self.world.region, self.world.keys.token, self._options.stay
        endpoints.write(endpoints.Endpoint(self.endpoint_url, os.getpid(), region, token, stays))
        threading.Thread(target=self._http.serve, name="http", daemon=True).start()

    def wait(self) -> None:
        """Wait until somebody asks it to shut down."""
        self._done.wait()

    def request_shutdown(self) -> None:
        """Ask it to shut down. Any thread and any signal handler may do so."""
        self._done.set()

    def close(self) -> None:
        """Kill all containers, stop answering, and give everything back."""
        endpoints.forget(self.endpoint_url, os.getpid())
        self._engine.stop()
        self._containers.close()
        self._http.stop()
        self.network.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _build(self) -> Gate:
        world, hooks, ecr = self.world, self._hooks, self._ecr
        registry = Registry(ecr)
        ec2 = Ec2(world.region, self.network.aliases, world.veil)
        machines = Machines(world, ec2)
        hooks.machines, hooks.veil = machines, world.veil
        images = Images(self._options.images, ecr.lacks)
        interfaces = Interfaces(world.region, self.network.aliases, self._options.seed)
        tasks = TaskLife(world, self._containers, self._logs, interfaces, images)
        hosts = DockerHosts(world, ec2, self._containers, images, machines)
        machines.stop_task, machines.end_task = tasks.host_shuts_down, tasks.end
        self._engine = Engine(world, [tasks.watch, hosts.watch])
        control = Control(world, self.network, self._containers, self.request_shutdown, self.reset)
        metadata = MetadataApp(Facts(world, ec2), world.keys, date=world.now)
        prices = Service("pricing", PriceList(), invalid="InvalidParameterException", lock=nullcontext())
        quotas = Quotas()
        market = Market(world.now, ec2.zones, self._options.seed, quotas)
        machines.on_launched += [market.take, quotas.take]
        machines.on_terminating += [market.give_back, quotas.give_back]
        increases = ServiceQuotas(world, quotas)
        services = [
            _autoscaling(world, ec2, machines, market),
            _ecs(world, tasks, interfaces, quotas),
            prices,
            Service("service-quotas", increases, invalid="IllegalArgumentException", lock=world.lock),
        ]
        moto = DomainDispatcherApplication(create_backend_app)
        folders: dict[str, WSGIApplication] = {
            "_local": control,
            "moto-api": moto,
            "checkip": own_address,
            "imds": metadata,
            "ecs": metadata,
            "credentials": metadata,
            "agent": AgentApp(world),
            "v2": registry,
            LAYERS: registry,
        }
        scores = PlacementScores(market, world.region, ec2.zone_ids())
        operations = {
            "ec2:DescribeSpotPriceHistory": SpotHistory(ec2.zone_ids(), world.now, market.prices).answer,
            "ec2:GetSpotPlacementScores": scores.answer,
            "ecr:GetAccountSetting": ecr.get_account_setting,
            "ecr:PutAccountSetting": ecr.put_account_setting,
        }
        gate = Gate(moto, services, folders, world.clock, world.keys, operations)
        control.gate = gate
        control.injector = Injector(world, machines, tasks, market, gate.faults)
        low, high = self._options.latency
        if high > 0:
            rng = random.Random(f"{self._options.seed}/latency")
            gate.latency = lambda call: rng.uniform(low, high)
        return gate


class _Hooks:
    """Passes on what moto's patches tell: moto is patched before there is anybody to listen."""

    machines: Machines
    veil: Veil

    def launched(self, instance: object) -> None:
        self.machines.launched(instance)

    def terminating(self, instance_id: str) -> None:
        self.machines.terminating(instance_id)

    def made(self, what: str, name: str) -> None:
        self.veil.made(what, name)

    def hides(self, what: str, name: str) -> bool:
        return self.veil.hides_named(what, name)

    def profile_is_usable(self, name: str) -> bool:
        return self.veil.profile_is_usable(name)


def _autoscaling(world: World, ec2: Ec2, machines: Machines, market: Market) -> Service:
    groups = Groups(world, ec2, machines, market)
    operations = GroupOperations(world, ec2, groups)
    parts = (
        operations,
        GroupViews(world, ec2),
        GroupTagOperations(world, operations),
        ScheduleOperations(world, operations, groups),
    )
    return Service("autoscaling", *parts, invalid="ValidationError", lock=world.lock)


def _ecs(world: World, tasks: TaskLife, interfaces: Interfaces, quotas: Quotas) -> Service:
    world.providers.update(fargate_providers(world))
    clusters = ClusterOperations(world)
    definitions = DefinitionOperations(world)
    parts = (
        clusters,
        ProviderOperations(world),
        ProviderAssociations(world, clusters),
        definitions,
        InstanceOperations(world),
        RunOperations(world, definitions, interfaces, tasks.begin, tasks.stop, quotas),
        TaskViews(world),
        TagOperations(world),
    )
    return Service("ecs", *parts, invalid="InvalidParameterException", lock=world.lock)
