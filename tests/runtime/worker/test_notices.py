"""The watch for notices in a nanny, against a failing metadata service, and the SIGTERM handler."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dask.config
import pytest
from distributed import Client, Scheduler
from distributed import Nanny as DaskNanny

from dask_starburst.plan.scheduler.notices import ACTION_PATH, REBALANCE_PATH
from dask_starburst.runtime.metadata import Metadata
from dask_starburst.runtime.scheduler.retirement import Retirement
from dask_starburst.runtime.worker.notices import NoticeWatcher, SigtermHandler
from tests.support.cluster_asserts import read_until, wait_until
from tests.support.task_metadata import VARIABLE, task_metadata

TICK = 0.02
MARKET_PATH = "latest/meta-data/instance-life-cycle"


def stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Service:
    """An instance metadata service. What it answers is what the test says, by path: a text or a status."""

    def __init__(self) -> None:
        self.answers: dict[str, str | int] = {MARKET_PATH: "spot"}
        self.tokens = 0
        self.asked: list[str] = []
        self.skew = 0.0
        self.well = threading.Event()
        self.well.set()
        self.hanging = 0
        self.url = ""

    def interrupt(self, seconds: float, action: str = "terminate") -> None:
        self.answers[ACTION_PATH] = json.dumps({"action": action, "time": stamp(time.time() + self.skew + seconds)})

    def reply(self, handler: BaseHTTPRequestHandler) -> tuple[int, str]:
        path = handler.path.lstrip("/")
        if handler.command == "PUT":
            self.tokens += 1
            return 200, f"token-{self.tokens}"
        if handler.headers["X-aws-ec2-metadata-token"] != f"token-{self.tokens}":
            return 401, ""
        self.asked.append(path)
        if not self.well.is_set():
            self.hanging += 1
            self.well.wait(20)
        answer = self.answers.get(path, 404)
        return (answer, "") if isinstance(answer, int) else (200, answer)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = made.reply(self)
            self.send_response_only(status)
            self.send_header("Date", formatdate(time.time() + made.skew, usegmt=True))
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        do_PUT = do_GET  # noqa: N815 -- the name that http.server looks for

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.well.set()
        server.shutdown()
        thread.join()


class Nanny:
    """A nanny as the watcher sees it; it is its own connection to the scheduler."""

    name = "w"

    def __init__(self, refusals: int = 0) -> None:
        self.worker_address: str | None = "tls://10.0.0.1:1"
        self.scheduler = self
        self.refusals = refusals
        self.told: list[tuple[str, str, float, str]] = []
        self.watched = 0

    async def starburst_watched(self, name: str) -> None:
        self.watched += 1

    async def starburst_notice(self, worker: str, kind: str, seconds: float, action: str) -> str:
        if self.refusals:
            self.refusals -= 1
            raise OSError("no scheduler")
        self.told.append((worker, kind, seconds, action))
        return "accepted"

    async def finished(self) -> None:
        """The scheduler closes it at once."""


def watch(service: Service, nanny: Nanny, until: Callable[[], bool], then: Callable[[], None] | None = None) -> None:
    """Let a watcher run until something is true, and, after `then`, for some looks more."""

    async def run() -> None:
        watcher = NoticeWatcher(nanny, Metadata(service.url, timeout=0.3), TICK)
        watcher.begin()
        await wait(until)
        if then is not None:
            then()
        seen = len(service.asked)
        await wait(lambda: len(service.asked) >= seen + 6)
        await watcher.end()

    asyncio.run(run())


async def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(TICK)


def test_a_notice_is_sent_once_with_the_seconds_left(service: Service):
    nanny = Nanny()
    watch(service, nanny, lambda: service.asked.count(ACTION_PATH) > 2, lambda: service.interrupt(100))
    [(worker, kind, seconds, action)] = nanny.told
    assert (worker, kind, action) == ("tls://10.0.0.1:1", "interruption", "terminate")
    assert 95 < seconds <= 100
    assert nanny.watched == 1


def test_a_recommendation_and_the_notice_after_it_are_two(service: Service):
    nanny = Nanny()
    service.answers[REBALANCE_PATH] = json.dumps({"noticeTime": stamp(time.time())})
    watch(service, nanny, lambda: bool(nanny.told), lambda: service.interrupt(110, "stop"))
    assert [(kind, action) for _, kind, _, action in nanny.told] == [("rebalance", ""), ("interruption", "stop")]


def test_a_notice_is_resent_until_the_scheduler_accepts_it(service: Service):
    nanny = Nanny(refusals=3)
    service.interrupt(100)
    watch(service, nanny, lambda: bool(nanny.told))
    assert (nanny.refusals, len(nanny.told)) == (0, 1)


def test_a_notice_is_sent_again_for_a_restarted_worker_process(service: Service):
    nanny = Nanny()
    service.interrupt(100)

    def restarted() -> None:
        nanny.worker_address = "tls://10.0.0.1:2"

    watch(service, nanny, lambda: bool(nanny.told), restarted)
    assert [worker for worker, *_ in nanny.told] == ["tls://10.0.0.1:1", "tls://10.0.0.1:2"]


def test_one_token_serves_many_looks_and_an_expired_one_is_renewed(service: Service):
    nanny = Nanny()

    def expire() -> None:
        assert service.tokens == 1
        service.tokens = 5  # what the watcher has is not the newest any more
        service.interrupt(100)

    watch(service, nanny, lambda: len(service.asked) > 8, expire)
    assert len(nanny.told) == 1
    assert service.tokens == 6


@pytest.mark.parametrize("mood", [500, 503, 403, "<html>what?</html>", '{"action": "terminate"}', ""])
def test_invalid_metadata_is_ignored_until_the_service_recovers(service: Service, mood: str | int):
    nanny = Nanny()
    service.answers[ACTION_PATH] = mood
    watch(service, nanny, lambda: service.asked.count(ACTION_PATH) > 2, lambda: service.interrupt(100))
    assert len(nanny.told) == 1


def test_a_service_that_hangs_does_not_hold_up_the_loop(service: Service):
    nanny = Nanny()

    async def run() -> None:
        watcher = NoticeWatcher(nanny, Metadata(service.url, timeout=60.0), TICK)  # longer than this test hangs
        service.well.clear()
        watcher.begin()
        await wait(lambda: service.hanging == 1)  # the loop goes round: this is asked in it
        service.interrupt(100)
        service.well.set()
        await wait(lambda: bool(nanny.told))
        await watcher.end()

    asyncio.run(run())
    assert service.hanging == 1


def test_a_service_that_hangs_is_given_up_and_asked_again(service: Service):
    nanny = Nanny()

    async def run() -> None:
        watcher = NoticeWatcher(nanny, Metadata(service.url, timeout=0.05), TICK)
        service.well.clear()
        watcher.begin()
        await wait(lambda: service.hanging >= 2)
        service.well.set()
        await watcher.end()

    asyncio.run(run())


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_wrong_clock_in_the_container_does_not_matter(service: Service, skew: float):
    nanny = Nanny()
    service.skew = skew
    service.interrupt(100)
    watch(service, nanny, lambda: bool(nanny.told))
    assert 95 < nanny.told[0][2] <= 101


def test_a_withdrawn_notice_is_not_sent_again(service: Service):
    nanny = Nanny()
    service.interrupt(100)

    def withdraw() -> None:
        del service.answers[ACTION_PATH]

    watch(service, nanny, lambda: bool(nanny.told), withdraw)
    assert len(nanny.told) == 1


def test_an_on_demand_instance_is_not_polled(service: Service):
    nanny = Nanny()
    service.answers[MARKET_PATH] = "on-demand"
    service.interrupt(100)

    async def run() -> None:
        watcher = NoticeWatcher(nanny, Metadata(service.url), TICK)
        watcher.begin()
        await wait(lambda: bool(service.asked))
        await asyncio.sleep(5 * TICK)
        await watcher.end()

    asyncio.run(run())
    assert (nanny.told, nanny.watched, service.asked) == ([], 0, [MARKET_PATH])


def test_a_worker_that_ecs_drains_is_looked_at_for_a_notice_which_its_watch_has_not_seen_yet(service: Service):
    async def run() -> dict[str, float]:
        with dask.config.set({"distributed.comm.timeouts.connect": "30s"}):
            async with (
                Scheduler(dashboard=False, dashboard_address=":0", host="127.0.0.1", port=0) as scheduler,
                DaskNanny(scheduler.address, name=0, nthreads=1, dashboard=False, host="127.0.0.1") as nanny,
                DaskNanny(scheduler.address, name=1, nthreads=1, dashboard=False, host="127.0.0.1"),
                Client(scheduler.address, asynchronous=True) as client,
            ):
                retirement = Retirement(scheduler)
                scheduler.add_plugin(retirement)
                retirement.begin()
                watcher = NoticeWatcher(nanny, Metadata(service.url), every=3600)
                nanny.handlers["starburst_poll"] = watcher.poll
                watcher.begin()
                await wait(lambda: retirement._on_spot == {0} and REBALANCE_PATH in service.asked)  # its first poll
                service.interrupt(100)
                asked = {"worker": nanny.worker_address, "kind": "stop", "seconds": 60, "action": "draining"}
                assert await client.scheduler.starburst_notice(**asked) == "accepted"
                await nanny.finished()
                said: dict[str, float] = await client.scheduler.starburst_spot_counts()
                await watcher.end()
                return said

    said = asyncio.run(run())
    assert (said["interruptions"], said["stops"], said["retired"]) == (1, 0, 1)


SCHEDULER = """
import sys, time
from distributed.cli.dask_scheduler import main
main(["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show", *sys.argv[1:]])
"""
WORKER = """
import sys
from distributed.cli.dask_worker import main
main([sys.argv[1], "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard", "--preload-nanny",
      "dask_starburst.runtime.worker.notices"])
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:9", "PYTHONUNBUFFERED": "1"},
    )


@contextmanager
def scheduler_and_worker(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], subprocess.Popen[str], str]]:
    """Run a scheduler and a worker whose nanny knows of it; the address is the scheduler's."""
    scheduler = start(SCHEDULER, *arguments)
    try:
        address = read_until(scheduler, "Scheduler at:").split()[-1]
        worker = start(WORKER, address)
        try:
            with Client(address) as client:
                client.wait_for_workers(1, timeout=90)
                wait_until(
                    lambda: all(client.run(lambda dask_worker: dask_worker.worker_address, nanny=True).values()),
                    60,
                    "the nanny knows its worker",
                )
            yield scheduler, worker, address
        finally:
            worker.kill()
            worker.communicate()
    finally:
        scheduler.kill()
        scheduler.communicate()


def end(worker: subprocess.Popen[str]) -> tuple[float, str]:
    """Send SIGTERM, and return how long it took to end and what it said."""
    begun = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    text, _ = worker.communicate(timeout=60)
    return time.monotonic() - begun, text


@pytest.mark.parametrize(("desired", "seconds"), [("RUNNING", 10.0), ("STOPPED", 120.0)])
def test_sigterm_is_a_notice_of_the_time_that_whoever_sends_it_leaves(
    service: Service, desired: str, seconds: float, monkeypatch: pytest.MonkeyPatch
):
    nanny, ended = Nanny(), threading.Event()

    async def run() -> None:
        watcher = NoticeWatcher(nanny, Metadata(service.url, timeout=0.3), TICK)
        SigtermHandler(nanny, watcher, lambda number, frame: ended.set()).handle(signal.SIGTERM, None)
        await wait(ended.is_set)

    before = signal.getsignal(signal.SIGTERM)
    with task_metadata({"DesiredStatus": desired}) as url:
        monkeypatch.setenv(VARIABLE, url)
        try:
            asyncio.run(run())
        finally:
            signal.signal(signal.SIGTERM, before)
    assert [(kind, left) for _, kind, left, _ in nanny.told] == [("stop", seconds)]


def test_sigterm_does_not_wait_for_a_scheduler_that_hangs():
    with scheduler_and_worker() as (scheduler, worker, _):
        scheduler.send_signal(signal.SIGSTOP)
        took, said = end(worker)
        assert "the scheduler did not take the notice" in said
        assert took < 20, "three seconds for the question and ten for Dask's own end, at most"


def test_a_second_sigterm_ends_a_worker_that_waits_to_transfer_its_data():
    with (
        scheduler_and_worker("--preload", "dask_starburst.runtime.scheduler.retirement") as (
            scheduler,
            worker,
            address,
        ),
        Client(address) as client,
    ):
        future = client.scatter(1)
        begun = time.monotonic()
        worker.send_signal(signal.SIGTERM)
        assert "1 results" in read_until(scheduler, "will be closed within 120 s (stop)")
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(1)
        end(worker)
        assert time.monotonic() - begun < 30
        del future
