"""``starburst local``: an embedded AWS that stays, for a shell, a notebook and the AWS CLI."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from dask_starburst.errors import LocalAWSError
from dask_starburst.local.client import LocalAWS, LocalStatus
from dask_starburst.local.launcher import server_options, start_detached
from dask_starburst.local.sdk import environment

_STOP_SECONDS = 10.0
_MANY_CALLS = 15


@dataclass(frozen=True)
class _Known:
    """The one that ``up`` has started, as it is remembered between two commands."""

    endpoint_url: str
    pid: int
    region: str


@click.group()
def local() -> None:
    """An AWS on this computer: no account, no cost, real Dask processes."""


@local.command()
@click.option(
    "--timing",
    type=click.Choice(["fast", "realistic"]),
    default="fast",
    show_default=True,
    help="How long instances and tasks take to start; realistic follows published measurements.",
)
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="How many of its seconds pass in one of ours.",
)
@click.option("--region", default="us-east-1", show_default=True, help="The region that it plays.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    show_default=True,
    help="Where it answers; 0 takes a free port.",
)
def up(timing: str, speed: float, region: str, port: int) -> None:
    """Start one that stays until `starburst local down`.

    Standard output is what a shell needs to use it, so this does it all: eval "$(starburst local up)"
    """
    known, status = _find()
    if known is not None and status is not None:
        click.echo(f"An embedded AWS already runs at {known.endpoint_url} (process {known.pid}).", err=True)
        click.echo("Its options stay as they are; to change them: starburst local down", err=True)
    else:
        known = _start(server_options(region=region, timing=timing, speed=speed, port=port), region)
        click.echo(f"An embedded AWS runs at {known.endpoint_url} (process {known.pid}).", err=True)
    _tell_how_to_use(known)


@local.command("status")
def show_status() -> None:
    """Show what it is doing. Exit code 1 when none runs."""
    known, status = _find()
    if known is None or status is None:
        raise click.ClickException("No embedded AWS runs. Start one: starburst local up")
    Console().print(_overview(known, status), _containers(status), _calls(status))


@local.command()
def down() -> None:
    """Stop it, and everything that runs on it."""
    known, status = _find()
    if known is None or status is None:
        _state_file().unlink(missing_ok=True)
        click.echo("No embedded AWS runs.")
        return
    LocalAWS.connect(known.endpoint_url).shut_down()
    _make_sure_it_ends(known.pid)
    _state_file().unlink(missing_ok=True)
    click.echo(
        f"Stopped the embedded AWS at {known.endpoint_url}: {_count(status.instances_running, 'instance')}, "
        f"{_count(status.tasks_running, 'task')}, {_count(len(status.containers), 'process', 'processes')}."
    )


def _start(options: list[str], region: str) -> _Known:
    file = _state_file()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        hello = start_detached(options, log=file.with_suffix(".log"))
    except LocalAWSError as error:
        raise click.ClickException(str(error)) from error
    known = _Known(hello.endpoint_url, hello.pid, region)
    file.write_text(json.dumps(known.__dict__))
    return known


def _find() -> tuple[_Known | None, LocalStatus | None]:
    """Return what is remembered, and its status if that very process still answers."""
    try:
        known = _Known(**json.loads(_state_file().read_text()))
        status = LocalAWS.connect(known.endpoint_url).status()
    except (FileNotFoundError, ValueError, TypeError, LocalAWSError):
        return None, None
    # Another embedded AWS may have been given the port of one that is gone.
    return (known, status) if status.pid == known.pid else (None, None)


def _state_file() -> Path:
    usual = "~/Library/Application Support" if sys.platform == "darwin" else "~/.local/state"
    folder = os.environ.get("XDG_STATE_HOME") or os.path.expanduser(usual)
    return Path(folder) / "dask-starburst" / "local.json"


def _make_sure_it_ends(pid: int) -> None:
    for signum in (None, signal.SIGTERM, signal.SIGKILL):
        if signum is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            if _is_gone(pid):
                return
            time.sleep(0.02)
    raise click.ClickException(f"The embedded AWS does not end. Look at process {pid}.")


def _is_gone(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):  # it is our child only where `up` ran in this same process
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def _tell_how_to_use(known: _Known) -> None:
    for name, value in environment(known.endpoint_url, known.region).items():
        click.echo(f"export {name}={shlex.quote(value)}")
    click.echo(
        '\nPaste these lines into a shell, or let it run them: eval "$(starburst local up)"\n'
        "Then any AWS SDK and the AWS CLI talk to it:\n"
        "  aws ecs list-clusters\n"
        f"  python -c 'import boto3; print(boto3.client(\"ecs\").list_clusters())'\n"
        "From Python, without these lines:\n"
        f"  from dask_starburst.local import LocalAWS; aws = LocalAWS.connect({known.endpoint_url!r})\n"
        "See what it does: starburst local status     Stop it: starburst local down",
        err=True,
    )


def _overview(known: _Known, status: LocalStatus) -> Table:
    table = _table(f"Embedded AWS at {known.endpoint_url}", "", "")
    table.add_row("process", str(status.pid))
    table.add_row("region", status.region)
    table.add_row("network", status.network if status.aliases else "127.0.0.1")
    table.add_row("its time", time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(status.now)))
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
