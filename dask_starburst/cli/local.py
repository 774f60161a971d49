"""``starburst local``: a persistent embedded AWS for a shell, a notebook and the AWS CLI."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import time
from collections.abc import Iterable

import click
from rich.console import Console
from rich.table import Table

from dask_starburst.cli.finite import FiniteRange
from dask_starburst.errors import LocalAWSError
from dask_starburst.local import endpoints
from dask_starburst.local.backend.keys import Keys
from dask_starburst.local.client import LocalAWS
from dask_starburst.local.control_client import LocalStatus
from dask_starburst.local.endpoints import Endpoint
from dask_starburst.local.launcher import server_options, start_detached
from dask_starburst.local.sdk import environment

_STOP_SECONDS = 10.0
_MANY_CALLS = 15
_address = click.argument("address", required=False)


@click.group()
def local() -> None:
    """An AWS on this computer: no account, no cost, real Dask processes."""


@local.command()
@click.option(
    "--timing",
    type=click.Choice(["none", "fast", "realistic"]),
    default="fast",
    show_default=True,
    help="How long instances and tasks take to start; realistic follows published measurements.",
)
@click.option(
    "--speed",
    type=FiniteRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Virtual seconds in one real second.",
)
@click.option("--region", default="us-east-1", show_default=True, help="The simulated region.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="Its port; 0 selects a free one.",
)
@click.option(
    "--iam",
    type=click.Choice(["off", "on", "templates"]),
    default="off",
    show_default=True,
    help="Enforce the policies of IAM users and roles; with 'templates', UpdateAutoScalingGroup needs the template's.",
)
def up(timing: str, speed: float, region: str, port: int, iam: str) -> None:
    """Start an embedded AWS that runs until `starburst local down`.

    Standard output is shell code that configures AWS clients: eval "$(starburst local up)"
    """
    running = _persistent()
    if running:
        known = running[0]
        click.echo(f"An embedded AWS is already running at {known.url} (process {known.pid}).", err=True)
        click.echo("Its options did not change. To change them, stop it first: starburst local down", err=True)
    else:
        known = _start(server_options(region=region, timing=timing, speed=speed, port=port, iam=iam))
        click.echo(f"An embedded AWS is running at {known.url} (process {known.pid}).", err=True)
    _print_usage(known)


@local.command("status")
@_address
def show_status(address: str | None) -> None:
    """Show the status of the embedded AWS. Exit code 1 if none is running."""
    known = _find(address)
    status = _ask(known) if known else None
    if known is None or status is None:
        raise click.ClickException("No embedded AWS is running. Start one: starburst local up")
    Console().print(_overview(known, status), _containers(status), _calls(status))


@local.command()
@_address
@click.option("--yes", is_flag=True, help="Skip the confirmation.")
def down(address: str | None, yes: bool) -> None:
    """Stop the embedded AWS and everything that runs on it.

    Other programs of yours may use it too, so without an ADDRESS it shows what would be stopped and asks.
    """
    known = _find(address)
    status = _ask(known) if known else None
    if known is None or status is None:
        click.echo("No embedded AWS is running.")
        return
    if not (yes or address):
        _confirm(known, status)
    with contextlib.suppress(LocalAWSError):  # it has ended meanwhile, or is killed below
        LocalAWS.connect(known.url).shut_down()
    _wait_until_stopped(known.pid)
    endpoints.forget(known.url, known.pid)
    click.echo(f"Stopped the embedded AWS at {known.url}: {_what_runs(status)}.")


def _start(options: list[str]) -> Endpoint:
    try:
        handshake = start_detached(options, log=endpoints.folder() / "up.log")
        return endpoints.read(handshake.endpoint_url)
    except LocalAWSError as error:
        raise click.ClickException(str(error)) from error


def _persistent() -> list[Endpoint]:
    return [each for each in endpoints.every() if each.stays and _ask(each) is not None]


def _find(address: str | None) -> Endpoint | None:
    """Return the embedded AWS at an address, or the only running one; None if none is running."""
    if address is not None:
        try:
            return endpoints.read(address)
        except LocalAWSError as error:
            raise click.ClickException(str(error)) from error
    running = _persistent()
    if len(running) > 1:
        which = ", ".join(each.url for each in running)
        raise click.ClickException(f"{len(running)} embedded AWSes are running: {which}. Give the address of one.")
    return running[0] if running else None


def _ask(known: Endpoint) -> LocalStatus | None:
    """Return its status; None if it does not answer or another process uses its address."""
    try:
        status = LocalAWS.connect(known.url).status()
    except LocalAWSError:
        return None
    return status if status.pid == known.pid else None


def _confirm(known: Endpoint, status: LocalStatus) -> None:
    click.echo(
        f"The embedded AWS at {known.url} (process {known.pid}) would be stopped: {_what_runs(status)}", err=True
    )
    if status.clusters:
        click.echo(f"ECS clusters on it: {', '.join(status.clusters)}", err=True)
    try:
        meant = click.confirm("Another program may be using it. Stop it?", err=True)
    except click.Abort:
        meant = False
    if not meant:
        raise click.ClickException(f"Nothing was stopped. To skip the confirmation: starburst local down {known.url}")


def _what_runs(status: LocalStatus) -> str:
    return (
        f"{_count(status.instances_running, 'instance')}, {_count(status.tasks_running, 'task')}, "
        f"{_count(len(status.containers), 'process', 'processes')}"
    )


def _wait_until_stopped(pid: int) -> None:
    for signum in (None, signal.SIGTERM, signal.SIGKILL):
        if signum is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            if not endpoints.is_alive(pid):
                return
            time.sleep(0.02)
    raise click.ClickException(f"The embedded AWS did not stop. Check process {pid}.")


def _print_usage(known: Endpoint) -> None:
    for name, value in environment(known.url, known.region, Keys(known.token).owner).items():
        click.echo(f"export {name}={shlex.quote(value)}")
    click.echo(
        '\nPaste these lines into a shell, or run: eval "$(starburst local up)"\n'
        "Then AWS SDKs and the AWS CLI use it:\n"
        "  aws ecs list-clusters\n"
        f"  python -c 'import boto3; print(boto3.client(\"ecs\").list_clusters())'\n"
        "From Python, without these lines:\n"
        f"  from dask_starburst.local import LocalAWS; aws = LocalAWS.connect({known.url!r})\n"
        "Status: starburst local status     Stop it: starburst local down",
        err=True,
    )


def _overview(known: Endpoint, status: LocalStatus) -> Table:
    table = _table(f"Embedded AWS at {known.url}", "", "")
    table.add_row("process", str(status.pid))
    table.add_row("region", status.region)
    table.add_row("network", status.network if status.aliases else "127.0.0.1")
    table.add_row("virtual time", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(status.now)))
    table.add_row("speed", f"{status.speed:g}")
    table.add_row("instances", f"{status.instances_running} running, {status.instances_pending} pending")
    table.add_row("desired", str(status.desired))
    table.add_row("tasks", f"{status.tasks_running} running")
    table.add_row("calls", f"{sum(status.calls.values())}, {status.throttled} throttled")
    return table


def _containers(status: LocalStatus) -> Table:
    rows = ((key, str(pid)) for key, pid in sorted(status.containers.items()))
    return _table("Containers", "container", "process", rows)


def _calls(status: LocalStatus) -> Table:
    most = sorted(status.calls.items(), key=lambda item: (-item[1], item[0]))
    rows = [(action, str(count)) for action, count in most[:_MANY_CALLS]]
    rest = sum(count for _, count in most[_MANY_CALLS:])
    return _table("Calls", "action", "calls", [*rows, ("others", str(rest))] if rest else rows)


def _table(title: str, left: str, right: str, rows: Iterable[tuple[str, str]] = ()) -> Table:
    table = Table(title=title, title_justify="left", show_header=bool(left))
    table.add_column(left, overflow="fold")
    table.add_column(right, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
