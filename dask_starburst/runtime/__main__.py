"""Entry point of the containers: ``python -m dask_starburst.runtime scheduler|worker …``.

A thin wrapper around Dask's command line. It first moves the certificates out of the environment and looks up the
address of the instance.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable

import click
import dask.config

from dask_starburst.plan.requests.tasks import TLS_VARIABLE, WORKERS_VARIABLE, Place, places_of
from dask_starburst.runtime.metadata import own_address, own_instance

#: Seconds after which a worker that finds no scheduler exits. The scheduler may still be booting.
_DEATH_TIMEOUT = "180"


def wipe(variable: str) -> None:
    """Overwrite the value of an environment variable in the memory of the process.

    ``os.environ`` is a copy. Without this, ``/proc/PID/environ`` shows the value for the lifetime of the process, also
    to the user's code in the worker, which runs as the same user.
    """
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    address = getenv(variable.encode())
    if address:
        ctypes.memset(address, 0, len(ctypes.string_at(address)))


def take_secrets() -> None:
    """Move the certificates from the environment into Dask's configuration in memory.

    Every child process inherits the environment, and user code may print it. The nanny passes its configuration to
    the worker through a pipe.
    """
    wipe(TLS_VARIABLE)
    secret = os.environ.pop(TLS_VARIABLE, None)
    if not secret:
        sys.exit(f"{TLS_VARIABLE} is missing: run this only as an ECS task that dask_starburst has started")
    parts = json.loads(secret)
    settings = {"distributed.comm.require-encryption": True, "distributed.comm.tls.ca-file": parts["ca"]}
    for role in ("scheduler", "worker", "client"):
        settings[f"distributed.comm.tls.{role}.cert"] = parts["cert"]
        settings[f"distributed.comm.tls.{role}.key"] = parts["key"]
    dask.config.set(settings)


def own_place(batch: str, look_up: Callable[[], str]) -> Place:
    """Return which worker of its batch this container is: the only one, or by its instance."""
    alone, *others = places_of(batch)
    if not others:
        return alone
    instance, places = look_up(), {place.instance: place for place in (alone, *others)}
    if instance not in places:
        sys.exit(f"{WORKERS_VARIABLE} names {', '.join(places)}, but this is {instance}: ECS placed it elsewhere")
    return places[instance]


@click.group()
def main() -> None:
    """Run a scheduler or a worker in a container of an ECS task."""


@main.command()
@click.option("--port", required=True)
@click.option("--dashboard-port", required=True)
@click.option("--dashboard/--no-dashboard", default=True)
@click.argument("lease_keeper", nargs=-1, type=click.UNPROCESSED)
def scheduler(port: str, dashboard_port: str, dashboard: bool, lease_keeper: tuple[str, ...]) -> None:
    """Run the scheduler on the address of this instance, with the lease keeper and the other preloads.

    Arguments after ``--`` go to the lease keeper. Dask's own ``--idle-timeout`` is not used: it would end the process
    and leave the instances running.
    """
    from distributed.cli.dask_scheduler import main as dask_scheduler

    host = own_address()
    arguments = ["--protocol", "tls", "--host", host, "--port", port]
    arguments += ["--dashboard-address", f"{host}:{dashboard_port}"]
    arguments += [] if dashboard else ["--no-dashboard"]
    for module in ("retirement", "demand", "lease_keeper"):
        arguments += ["--preload", f"dask_starburst.runtime.scheduler.{module}"]
    dask_scheduler([*arguments, *lease_keeper])


@main.command()
@click.option("--nthreads", required=True)
@click.option("--resources", default="")
@click.option("--notices/--no-notices", default=True)
def worker(nthreads: str, resources: str, notices: bool) -> None:
    """Run a worker and its nanny, which polls for Spot notices, on the address of this instance.

    All containers of a batch get the same command; the instance decides which worker this is. The worker has no
    dashboard, which would take a second to import and is not reachable from outside. It still serves metrics.
    """
    from distributed.cli.dask_worker import main as dask_worker

    own, host = own_place(os.environ[WORKERS_VARIABLE], own_instance), own_address()
    offers = ("--resources", resources) if resources else ()
    listen = ("--preload-nanny", "dask_starburst.runtime.worker.notices") if notices else ()
    dask_worker(
        [
            os.environ["STARBURST_SCHEDULER"],
            *("--name", str(own.worker)),  # `dask worker` makes it a number again
            *("--protocol", "tls", "--host", host),
            # The HTTP server for health and metrics runs without a dashboard too. Dask binds it to all addresses.
            *("--dashboard-address", f"{host}:0"),
            *("--nthreads", nthreads, "--memory-limit", str(own.memory_limit)),
            *("--death-timeout", _DEATH_TIMEOUT, "--no-dashboard", *offers, *listen),
        ]
    )


def end_on_sigterm() -> None:
    """End on SIGTERM until Dask installs its handlers: the first process of a container ignores it by default."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


if __name__ == "__main__":
    end_on_sigterm()
    take_secrets()
    main()
