"""What a container runs: ``python -m dask_starburst.runtime scheduler|worker …``.

A thin door in front of Dask's own command line: it takes the certificates out of the environment
before anything else happens, and finds out the instance's own address.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys

import click
import dask.config

from dask_starburst.plan.requests.tasks import TLS_VARIABLE, WORKERS_VARIABLE, Place, places_of
from dask_starburst.runtime.metadata import own_address, own_instance

#: A worker that finds no scheduler for so long ends; the scheduler may still be booting.
_DEATH_TIMEOUT = "180"


def wipe(variable: str) -> None:
    """Overwrite the value of an environment variable where the kernel has put it.

    ``os.environ`` is a copy: without this ``/proc/PID/environ`` shows the value for as long as the process lives, to
    the user's code in the worker as well, which has the same user.
    """
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    address = getenv(variable.encode())
    if address:
        ctypes.memset(address, 0, len(ctypes.string_at(address)))


def take_secrets() -> None:
    """Move the certificates from the environment into Dask's configuration in memory.

    Every child process inherits the environment, and user code prints it. The nanny hands its
    configuration to the worker through a pipe.
    """
    wipe(TLS_VARIABLE)
    secret = os.environ.pop(TLS_VARIABLE, None)
    if not secret:
        sys.exit(f"{TLS_VARIABLE} is missing: this is meant to run as an ECS task of dask_starburst")
    parts = json.loads(secret)
    settings = {"distributed.comm.require-encryption": True, "distributed.comm.tls.ca-file": parts["ca"]}
    for role in ("scheduler", "worker", "client"):
        settings[f"distributed.comm.tls.{role}.cert"] = parts["cert"]
        settings[f"distributed.comm.tls.{role}.key"] = parts["key"]
    dask.config.set(settings)


def own_place(batch: str, instance: str) -> Place:
    """Return which worker of its batch the container on this instance is."""
    places = {place.instance: place for place in places_of(batch)}
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
    """Run the scheduler on this instance's own address, with the guardian of its pool and what retires its workers.

    What stands after ``--`` is for the guardian. Dask's own ``--idle-timeout`` is not used: it would
    end the process and leave the instances.
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
@click.option("--notices/--no-notices", default=True)
def worker(nthreads: str, notices: bool) -> None:
    """Run a worker with its nanny, which listens for Spot notices, on this instance's own address.

    ECS tells every container of a batch the same; which worker this is follows from its instance. It has no
    dashboard of its own, which nobody outside could reach and which takes a second to import; it still has its metrics.
    """
    from distributed.cli.dask_worker import main as dask_worker

    own, host = own_place(os.environ[WORKERS_VARIABLE], own_instance()), own_address()
    listen = ("--preload-nanny", "dask_starburst.runtime.worker.notices") if notices else ()
    dask_worker(
        [
            os.environ["STARBURST_SCHEDULER"],
            *("--name", str(own.worker)),  # `dask worker` makes it a number again
            *("--protocol", "tls", "--host", host),
            # Also without a dashboard there is an HTTP server, for health and metrics; Dask's default is every address.
            *("--dashboard-address", f"{host}:0"),
            *("--nthreads", nthreads, "--memory-limit", str(own.memory_limit)),
            *("--death-timeout", _DEATH_TIMEOUT, "--no-dashboard", *listen),
        ]
    )


if __name__ == "__main__":
    take_secrets()
    main()
