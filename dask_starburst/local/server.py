"""The server of the embedded AWS: all parts in one process, on one port."""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cheroot.wsgi import Server as HttpServer
from moto.moto_api._internal.models import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from dask_starburst.local import endpoints
from dask_starburst.local.backend.account import use_region
from dask_starburst.local.backend.addresses import Network, claim_network
from dask_starburst.local.backend.backend import Backend
from dask_starburst.local.backend.clock import Clock
from dask_starburst.local.backend.keys import Keys
from dask_starburst.local.backend.quotas import Quotas
from dask_starburst.local.backend.ticker import Ticker
from dask_starburst.local.backend.timing import Profile, Step, Timing
from dask_starburst.local.containers.awslogs import LogShipper
from dask_starburst.local.containers.fake import FakeContainers
from dask_starburst.local.containers.fork_server import ForkServer
from dask_starburst.local.containers.images import Images
from dask_starburst.local.containers.processes import Containers
from dask_starburst.local.control import Control, own_address
from dask_starburst.local.http.protocols import Service
from dask_starburst.local.http.router import Router
from dask_starburst.local.iam.enforcer import Enforcer
from dask_starburst.local.iam.model import Enforcement
from dask_starburst.local.injector import Injector
from dask_starburst.local.moto import other_partitions, patches
from dask_starburst.local.services.autoscaling.groups import Groups
from dask_starburst.local.services.autoscaling.operations import GroupOperations
from dask_starburst.local.services.autoscaling.views import GroupViews, ScheduleOperations
from dask_starburst.local.services.autoscaling.views import TagOperations as GroupTagOperations
from dask_starburst.local.services.ec2.capacity import Ec2Capacity
from dask_starburst.local.services.ec2.docker_hosts import DockerHosts
from dask_starburst.local.services.ec2.instance_lifecycle import InstanceLifecycle
from dask_starburst.local.services.ec2.instances import Ec2
from dask_starburst.local.services.ec2.metadata import MetadataApp
from dask_starburst.local.services.ec2.metadata_views import MetadataViews
from dask_starburst.local.services.ec2.placement_scores import PlacementScores
from dask_starburst.local.services.ec2.spot_history import SpotHistory
from dask_starburst.local.services.ec2.volume_keys import VolumeKeys
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
from dask_starburst.local.services.ecs.task_life import TaskLife, inherited
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
    """Options of an embedded AWS."""

    port: int = 0
    region: str = "us-east-1"
    timing: Profile = "fast"
    speed: float = 1.0
    seed: int = 0
    aliases: bool | None = None
    processes: bool = True
    latency: tuple[float, float] = (0.0, 0.0)
    iam: Enforcement = "off"
    images: Mapping[str, str] = field(default_factory=dict)
    stay: bool = False
    fork: bool = True


class LocalServer:
    """An embedded AWS in this process. Only one per process: moto's state is global.

    Parameters
    ----------
    options : Options
        Its options.

    Attributes
    ----------
    network : Network
        Its loopback network.
    endpoint_url : str
        Its URL.
    backend : Backend
        Its state.
    """

    def __init__(self, options: Options) -> None:
        self.network: Network = claim_network(options.aliases)
        self._folder = Path(tempfile.mkdtemp(prefix="starburst-local-"))
        self._options = options
        self._done = threading.Event()
        self._resetting = threading.Lock()
        self._http = HttpServer((_HOST, options.port), None, numthreads=_THREADS, server_name="local-aws")
        # The port is known once it is bound; containers get it in their environment.
        self._http.prepare()
        self.endpoint_url = f"http://{_HOST}:{self._http.bind_addr[1]}"
        self._keys = Keys()
        self._hooks = _Hooks()
        use_region(options.region)
        patches.install(self._hooks, self.network.cidr if self.network.aliases else "127.31.0.0/16")
        self._fork_server = ForkServer(inherited()) if options.fork and options.processes else None
        self._ecr = Ecr(lambda: self.backend.now(), options.region, self.endpoint_url, self._folder / "registry")
        moto_ecr.install(self._ecr)
        other_partitions.install(options.region)
        self._begin()

    def _begin(self) -> None:
        """Create an empty account."""
        options = self._options
        timing = Timing(options.timing, options.seed)
        self.backend = Backend(Clock(options.speed), timing, options.region, self.endpoint_url, self._keys)
        self._containers = (
            Containers(self._folder, alone=True, fork_server=self._fork_server)
            if options.processes
            else FakeContainers()
        )
        self._logs = LogShipper()
        self._http.wsgi_app = self._build()

    def reset(self) -> None:
        """Kill all containers and delete all state; URL, network and credentials stay."""
        with self._resetting:
            self._ticker.stop()
            self._containers.close()
            moto_api_backend.reset()
            self._ecr.reset()
            self._begin()
            self._ticker.start()

    def serve(self) -> None:
        """Start answering requests in background threads, and register the endpoint."""
        if self._fork_server is not None:
            self._fork_server.prepare()  # its imports take as long as a first instance takes to boot
        self._ticker.start()
        region, token, stays = self.backend.region, self.backend.keys.token, self._options.stay
        endpoints.write(endpoints.Endpoint(self.endpoint_url, os.getpid(), region, token, stays))
        threading.Thread(target=self._http.serve, name="http", daemon=True).start()

    def wait(self) -> None:
        """Wait for a shutdown request."""
        self._done.wait()

    def request_shutdown(self) -> None:
        """Request shutdown. Safe to call from any thread and from signal handlers."""
        self._done.set()

    def close(self) -> None:
        """Kill all containers, stop answering, and release all resources."""
        endpoints.forget(self.endpoint_url, os.getpid())
        self._ticker.stop()
        self._containers.close()
        if self._fork_server is not None:
            self._fork_server.close()
        self._http.stop()
        self.network.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _build(self) -> Router:
        backend, hooks, ecr, options = self.backend, self._hooks, self._ecr, self._options
        hooks.backend = backend  # moto creates the default VPC at once
        registry = Registry(ecr)
        ec2 = Ec2(backend.region, self.network.aliases, backend.consistency)
        lifecycle = InstanceLifecycle(backend, ec2)
        hooks.lifecycle = lifecycle
        images = Images(options.images, ecr.lacks)
        interfaces = Interfaces(backend.region, self.network.aliases, options.seed)
        tasks = TaskLife(backend, self._containers, self._logs, interfaces, images)
        hosts = DockerHosts(backend, ec2, self._containers, images, lifecycle)
        lifecycle.stop_task, lifecycle.end_task = tasks.host_shuts_down, tasks.end
        keys = VolumeKeys(backend.region)
        lifecycle.refuse = keys.refuse
        self._ticker = Ticker(backend, [tasks.watch, hosts.watch])
        control = Control(backend, self.network, self._containers, self.request_shutdown, self.reset)
        metadata = MetadataApp(MetadataViews(backend, ec2), backend.keys, date=backend.now)
        prices = Service("pricing", PriceList(), invalid="InvalidParameterException", lock=nullcontext())
        quotas = Quotas()
        capacity = Ec2Capacity(backend.now, ec2.zones, options.seed, quotas)
        lifecycle.on_launched += [capacity.take, quotas.take]
        lifecycle.on_terminating += [capacity.give_back, quotas.give_back]
        increases = ServiceQuotas(backend, quotas)
        services = [
            _autoscaling(backend, ec2, lifecycle, capacity),
            _ecs(backend, tasks, interfaces, quotas),
            prices,
            Service("service-quotas", increases, invalid="IllegalArgumentException", lock=backend.lock),
        ]
        moto = DomainDispatcherApplication(create_backend_app)
        folders: dict[str, WSGIApplication] = {
            "_local": control,
            "moto-api": moto,
            "checkip": own_address,
            "imds": metadata,
            "ecs": metadata,
            "credentials": metadata,
            "agent": AgentApp(backend),
            "v2": registry,
            LAYERS: registry,
        }
        scores = PlacementScores(capacity, backend.region, ec2.zone_ids())
        operations = {
            "ec2:DescribeSpotPriceHistory": SpotHistory(ec2.zone_ids(), backend.now, capacity.prices).answer,
            "ec2:GetSpotPlacementScores": scores.answer,
            "ec2:GetEbsDefaultKmsKeyId": keys.answer,
            "ecr:GetAccountSetting": ecr.get_account_setting,
            "ecr:PutAccountSetting": ecr.put_account_setting,
        }
        router = Router(moto, services, folders, backend.clock, backend.keys, operations)
        control.router = router
        control.enforcer = Enforcer(backend, options.iam)
        router.denial = control.enforcer.refusal
        backend.denial_of_role = control.enforcer.denial_of_role
        control.injector = Injector(backend, lifecycle, tasks, capacity, router.faults)
        low, high = options.latency
        if high > 0:
            rng = random.Random(f"{options.seed}/latency")
            router.latency = lambda call: rng.uniform(low, high)
        return router


#: What is hidden for a while without any fault.
_DELAYS: Mapping[str, Step] = {"service-linked-roles": "role", "deleted-parameters": "parameter"}


class _Hooks:
    """Forwards the calls of moto's patches: moto is patched before the parts exist."""

    lifecycle: InstanceLifecycle
    backend: Backend

    def launched(self, instance: object) -> None:
        self.lifecycle.launched(instance)

    def terminating(self, instance_id: str) -> None:
        self.lifecycle.terminating(instance_id)

    def created(self, what: str, name: str) -> None:
        step = _DELAYS.get(what)
        delay = 0.0 if step is None else self.backend.timing.seconds(step)
        self.backend.consistency.created(what, name, delay)

    def hides(self, what: str, name: str) -> bool:
        return self.backend.consistency.hides_named(what, name)

    def profile_is_usable(self, name: str) -> bool:
        return self.backend.consistency.profile_is_usable(name)

    def when_shown(self, what: str, name: str, action: Callable[[], None]) -> None:
        with self.backend.lock:
            self.backend.at(self.backend.consistency.shown_at(what, name), action)


def _autoscaling(backend: Backend, ec2: Ec2, lifecycle: InstanceLifecycle, capacity: Ec2Capacity) -> Service:
    groups = Groups(backend, ec2, lifecycle, capacity)
    operations = GroupOperations(backend, ec2, groups)
    parts = (
        operations,
        GroupViews(backend, ec2),
        GroupTagOperations(backend, operations),
        ScheduleOperations(backend, operations, groups),
    )
    return Service("autoscaling", *parts, invalid="ValidationError", lock=backend.lock)


def _ecs(backend: Backend, tasks: TaskLife, interfaces: Interfaces, quotas: Quotas) -> Service:
    backend.providers.update(fargate_providers(backend))
    clusters = ClusterOperations(backend)
    definitions = DefinitionOperations(backend)
    parts = (
        clusters,
        ProviderOperations(backend),
        ProviderAssociations(backend, clusters),
        definitions,
        InstanceOperations(backend),
        RunOperations(backend, definitions, interfaces, tasks, quotas),
        TaskViews(backend),
        TagOperations(backend),
    )
    return Service("ecs", *parts, invalid="InvalidParameterException", lock=backend.lock)
