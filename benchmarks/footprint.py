"""The cost of installing, importing and running dask_starburst in a scheduler and a worker: ratios, measured here.

Each ratio compares two programs that run alternately, so that other load affects both; the minimum of each counts,
because other load can only increase it.

- ``import_ratio``: CPU seconds of ``from dask_starburst import StarburstCluster`` and of ``import distributed``.
- ``dask_cli_ratio``: CPU seconds of ``dask --version``, ``dask scheduler --version`` and ``dask worker --version``
  together, with our entry point and with it hidden from the same environment.
- ``scheduler_rss_ratio``, ``worker_rss_ratio``: memory of the processes that a cluster on the embedded AWS has started,
  once they are up and idle, and of plain ``dask scheduler`` and ``dask worker`` with the same options and certificates
  of the same kind. It is the unique set size (USS), which does not count what processes share; for a worker that of its
  nanny and of its worker process together.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psutil
from distributed import Client
from distributed.security import Security

from benchmarks.harness.arguments import parser
from benchmarks.harness.compare import alternate
from benchmarks.harness.report import finish
from dask_starburst import StarburstCluster
from dask_starburst.fleet import tls
from dask_starburst.local import LocalAWS

#: The commands of Dask's command line that are measured.
WORDS = (("--version",), ("scheduler", "--version"), ("worker", "--version"))
#: Runs Dask's command line without our entry point.
HIDDEN = """
import importlib.metadata as metadata, runpy, sys
whole = metadata.entry_points
metadata.entry_points = lambda **chosen: [e for e in whole(**chosen) if e.name != "starburst"]
sys.argv = ["dask", *sys.argv[1:]]
runpy.run_module("dask", run_name="__main__")
"""
#: The same wrapper with our entry point, so that both sides pay for the wrapper.
SHOWN = HIDDEN.replace(' if e.name != "starburst"', "")
#: Keep compiled bytecode, as in an installation, even if the shell disables it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
#: Seconds until a started process is idle.
QUIET = 2.0


def cpu_seconds(*arguments: str) -> float:
    """Return the CPU seconds of one Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True, env=ENVIRONMENT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def least(programs: Mapping[str, Sequence[Sequence[str]]], repeat: int) -> dict[str, float]:
    """Return for each name the sum of its programs' minimal CPU seconds; all programs run in turns."""
    several = {
        (name, number): partial(cpu_seconds, *arguments)
        for name, commands in programs.items()
        for number, arguments in enumerate(commands)
    }
    sums = dict.fromkeys(programs, 0.0)
    for (name, _), seconds in alternate(several, repeat, warm_up=repeat > 1).items():
        sums[name] += min(seconds)
    return sums


def imports(repeat: int) -> dict[str, float]:
    """Measure the imports."""
    return least(
        {
            "distributed": [("-c", "import distributed")],
            "StarburstCluster": [("-c", "from dask_starburst import StarburstCluster")],
        },
        repeat,
    )


def command_line(repeat: int, commands: Sequence[Sequence[str]]) -> dict[str, float]:
    """Measure Dask's command line, with our entry point and without."""
    return least(
        {
            "dask without ours": [("-c", HIDDEN, *words) for words in commands],
            "dask with ours": [("-c", SHOWN, *words) for words in commands],
        },
        repeat,
    )


def unique_bytes(pid: int, children: bool) -> int:
    """Return the unique set size of a process, or of it and its children."""
    process = psutil.Process(pid)
    # Without multiprocessing's resource tracker, which comes and goes.
    all_of_it = [process, *(process.children(recursive=True) if children else [])]
    return sum(int(each.memory_full_info().uss) for each in all_of_it)


def settled(pids: dict[str, int]) -> dict[str, int]:
    """Return the memory of a scheduler and a worker that have come to rest: the least of several measurements."""
    time.sleep(QUIET)
    found: dict[str, list[int]] = {role: [] for role in pids}
    for _ in range(3):
        for role, pid in pids.items():
            found[role].append(unique_bytes(pid, children=role == "worker"))
        time.sleep(0.5)
    return {role: min(sizes) for role, sizes in found.items()}


def ours() -> dict[str, int]:
    """Measure the scheduler and a worker of a cluster."""
    with (
        LocalAWS(fork=False) as aws,
        StarburstCluster(
            cloud="local",
            endpoint_url=aws.endpoint_url,
            n_workers=1,
            scheduler={"dashboard": True},  # as the plain scheduler has, also where the tests do without
            quiet=True,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(1)
        pids = {"scheduler" if "scheduler" in name else "worker": pid for name, pid in aws.status().containers.items()}
        return settled({role: python_of(pid) for role, pid in pids.items()})


def python_of(pid: int) -> int:
    """Return the Dask process of a container, below the process that may have started it."""
    process = psutil.Process(pid)
    while "dask_starburst.runtime" not in process.cmdline() and process.children():
        process = process.children()[0]
    return process.pid


def plain() -> dict[str, int]:
    """Measure ``dask scheduler`` and ``dask worker`` as users start them, with mutual TLS."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        options = certificates(folder)
        found = folder / "scheduler.json"
        host = ("--protocol", "tls", "--host", "127.0.0.1")
        common = (*options, *host)
        port = ("--port", "0", "--dashboard-address", "127.0.0.1:0", "--scheduler-file", str(found))
        scheduler = stack.enter_context(dask(folder, "scheduler", *common, *port))
        while not found.exists():
            time.sleep(0.1)
        rest = ("--nthreads", str(os.cpu_count()), "--no-dashboard", "--scheduler-file", str(found))
        worker = stack.enter_context(dask(folder, "worker", *common, *rest))
        client = stack.enter_context(Client(scheduler_file=str(found), security=security(folder)))
        client.wait_for_workers(1)
        return settled({"scheduler": scheduler, "worker": worker})


def certificates(folder: Path) -> tuple[str, ...]:
    """Write certificates as of a cluster; return the options that name them."""
    parts = json.loads(tls.issue("footprint").secret)
    for name, text in parts.items():
        (folder / f"{name}.pem").write_text(text)
    return tuple(
        word
        for option, name in (("--tls-ca-file", "ca"), ("--tls-cert", "cert"), ("--tls-key", "key"))
        for word in (option, str(folder / f"{name}.pem"))
    )


def security(folder: Path) -> Security:
    """Return what a client needs to connect with the certificates."""
    files = {name: str(folder / f"{name}.pem") for name in ("ca", "cert", "key")}
    return Security(
        require_encryption=True,
        tls_ca_file=files["ca"],
        tls_client_cert=files["cert"],
        tls_client_key=files["key"],
    )


@contextmanager
def dask(folder: Path, *arguments: str) -> Iterator[int]:
    """Run a Dask command, and terminate it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


def memory(repeat: int) -> dict[str, int]:
    """Measure memory of plain Dask and of our processes in turns; return the minimum of each."""
    runs = alternate({"plain": plain, "ours": ours}, repeat)
    return {f"{name} {role}": min(run[role] for run in found) for name, found in runs.items() for role in found[0]}


def ratio(measured: Mapping[str, float], what: str, against: str) -> float:
    """Return the ratio of two measurements."""
    return round(measured[what] / measured[against], 3)


def main() -> None:
    """Print the measurements, and one JSON object with the ratios."""
    options = parser(__doc__, repeat=7)
    options.add_argument("--memory-repeat", type=int, default=3, help="runs of each process for its memory")
    chosen = options.parse_args()
    if chosen.smallest:  # one run of each, and of Dask's commands only one
        chosen.repeat = chosen.memory_repeat = 1
    seconds = imports(chosen.repeat) | command_line(chosen.repeat, WORDS[:1] if chosen.smallest else WORDS)
    for name, value in seconds.items():
        print(f"{name:20}{value:8.3f} CPU s", flush=True)
    size = memory(chosen.memory_repeat)
    for name, value in size.items():
        print(f"{name:20}{value / 1e6:8.1f} MB USS", flush=True)
    finish(
        "footprint",
        simulated=False,
        import_ratio=ratio(seconds, "StarburstCluster", "distributed"),
        dask_cli_ratio=ratio(seconds, "dask with ours", "dask without ours"),
        scheduler_rss_ratio=ratio(size, "ours scheduler", "plain scheduler"),
        worker_rss_ratio=ratio(size, "ours worker", "plain worker"),
        repeat=chosen.repeat,
        memory_repeat=chosen.memory_repeat,
    )


if __name__ == "__main__":
    main()
