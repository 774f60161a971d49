"""``python -m dask_starburst.local``: run an embedded AWS until standard input ends."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading

from dask_starburst.errors import LocalAWSError
from dask_starburst.local.backend.timing import PROFILES
from dask_starburst.local.iam.model import ENFORCEMENTS, enforcement
from dask_starburst.local.moto import regions  # noqa: F401  # before anything of moto
from dask_starburst.local.server import LocalServer, Options


def main(argv: list[str] | None = None) -> int:
    """Run the server and return the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(name)s: %(message)s")
    options = Options(
        port=arguments.port,
        region=arguments.region,
        timing=arguments.timing,
        speed=arguments.speed,
        seed=arguments.seed,
        aliases=False if arguments.no_aliases else None,
        processes=not arguments.no_processes,
        latency=tuple(arguments.latency),
        iam=enforcement(arguments.iam),
        images=dict(text.split("=", 1) for text in arguments.image),
        stay=arguments.stay,
        fork=not arguments.no_fork,
    )
    os.umask(0o077)  # its files are private to this user
    # moto prints to standard output; it must carry only the handshake line.
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        server = LocalServer(options)
    except LocalAWSError as error:
        print(error, file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.request_shutdown())
    if not arguments.stay:
        threading.Thread(target=_follow_stdin, args=(server,), name="stdin", daemon=True).start()
    try:
        server.serve()
        print(json.dumps(_handshake(server)), file=stdout, flush=True)
        server.wait()
    except BrokenPipeError:
        return 1  # the parent process exited before the server was ready
    except LocalAWSError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        server.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dask_starburst.local", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 selects a free port")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument("--timing", choices=sorted(PROFILES), default="fast")
    parser.add_argument("--speed", type=float, default=1.0, help="virtual seconds in one real second")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-aliases", action="store_true", help="every instance has the address 127.0.0.1")
    parser.add_argument("--no-processes", action="store_true", help="tasks are recorded but not run")
    parser.add_argument("--no-fork", action="store_true", help="every container starts a new Python")
    parser.add_argument("--latency", type=float, nargs=2, default=(0.0, 0.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--iam", choices=ENFORCEMENTS, default="off", help="enforce the policies of users and roles")
    parser.add_argument("--image", action="append", default=[], metavar="PREFIX=PYTHON")
    parser.add_argument("--stay", action="store_true", help="keep running after standard input ends")
    return parser


def _handshake(server: LocalServer) -> dict[str, object]:
    return {
        "endpoint_url": server.endpoint_url,
        "pid": os.getpid(),
        "network": server.network.cidr,
        "aliases": server.network.aliases,
        "scheduler_port": server.network.scheduler_port,
    }


def _follow_stdin(server: LocalServer) -> None:
    # The parent process holds the other end, so the kernel closes it when the parent ends.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    server.request_shutdown()


if __name__ == "__main__":
    code = main()
    # Everything is closed. A normal exit would spend another second on freeing moto's objects.
    sys.stderr.flush()
    os._exit(code)
