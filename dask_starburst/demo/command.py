"""``starburst demo``: launch, use and close a cluster on the embedded AWS, and check its results."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from dask_starburst.demo.flights import flights_job
from dask_starburst.demo.job import Job, Question, difference
from dask_starburst.demo.own_data import own_job
from dask_starburst.demo.progress import Progress
from dask_starburst.demo.traces import Traces
from dask_starburst.errors import StarburstError

if TYPE_CHECKING:
    from dask_starburst import StarburstCluster

WITHOUT_WORKERS = 300.0
"""Seconds to wait without a worker before giving up; a real start takes one to three minutes."""

SMALL = {"nthreads": 1, "memory_limit": "2 GiB"}
"""The workers share the CPUs of this computer, so larger ones would not be faster."""

TARGET = "0.5 s"
"""Target duration of adaptive scaling. Dask's default of 5 s would start few workers for this little work."""

BACK_TO_ZERO = 120.0
"""Timeout in seconds for adaptive scaling to retire all workers."""


@click.command()
@click.option("--data", metavar="PATH", help="Your parquet or CSV data: a file, a folder or a glob.")
@click.option("--workers", default=4, show_default=True, type=click.IntRange(1, 32), help="Maximum number of workers.")
@click.option("--arch", default="arm64", show_default=True, type=click.Choice(["arm64", "x86_64"]))
@click.option(
    "--timing",
    default="fast",
    show_default=True,
    type=click.Choice(["none", "fast", "realistic"]),
    help="How long the embedded AWS takes to boot an instance.",
)
@click.option("--endpoint-url", metavar="URL", help="Use the embedded AWS of `starburst local up`.")
def demo(data: str | None, workers: int, arch: str, timing: str, endpoint_url: str | None) -> None:
    """Launch a cluster on the embedded AWS, run a job, check the results and clean up.

    This needs no AWS account and costs nothing: the instances are processes on this computer.
    """
    progress = Progress(Console())
    with tempfile.TemporaryDirectory(prefix="starburst-demo-") as folder:
        with progress.stage("reading the data"):
            job = own_job(data) if data else flights_job(Path(folder))
        with progress.listening(), _quiet_dask(), _embedded_aws(progress, timing, endpoint_url) as traces:
            correct = _life(progress, job, traces, workers, arch)
    left = traces.processes_left()
    progress.line(f"Left over: {traces.left}, processes {len(left)}.", style="bold")
    progress.line(f"Total time: {progress.elapsed:.0f} s.")
    if not correct or left or not traces.nothing_left:
        raise SystemExit(1)


def _life(progress: Progress, job: Job, traces: Traces, workers: int, arch: str) -> bool:
    """Launch a cluster, compute, scale down and close it; return whether all results are correct."""
    from distributed import Client

    from dask_starburst import StarburstCluster

    with progress.stage(f"launching a cluster ({arch})"):
        chosen: dict[str, Any] = {"arch": arch, "n_workers": 0, "worker": SMALL}
        cluster = StarburstCluster(cloud="local", endpoint_url=traces.endpoint_url, quiet=True, **chosen)
    try:
        traces.record()
        progress.line(f"  dashboard: {cluster.dashboard_link}")
        with Client(cluster) as client:
            cluster.adapt(minimum=0, maximum=workers, target_duration=TARGET)
            answers = _answers(progress, client, traces, job)
            with progress.stage("scaling down to zero"):
                _wait_for_no_worker(client)
    finally:
        with progress.stage("closing the cluster"):
            cluster.close()
    correct = _check(progress, job, answers)
    _report(progress, job, answers, cluster, traces)
    traces.record_leftovers()
    return correct


@dataclass(frozen=True)
class _Asked:
    question: Question
    names: tuple[str, ...] | None  # of the collections, if there are several
    futures: list[Any]

    @classmethod
    def of(cls, question: Question, client: Any, job: Job) -> _Asked:
        what = question.ask(job.frames)
        if isinstance(what, dict):
            return cls(question, tuple(what), client.compute(list(what.values())))
        return cls(question, None, [client.compute(what)])

    def answer(self, client: Any) -> Any:
        results = client.gather(self.futures)
        return self.question.finish(dict(zip(self.names, results, strict=True)) if self.names else results[0])


def _answers(progress: Progress, client: Any, traces: Traces, job: Job) -> list[Any]:
    asked = [
        _Asked.of(question, client, job) for question in job.questions
    ]  # at once, so that adaptive scaling sees all of the work
    answers = []
    for each in asked:
        with progress.stage(each.question.title):
            _wait(progress, client, traces, each.futures)
            traces.record()
            answers.append(each.answer(client))
    return answers


def _wait(progress: Progress, client: Any, traces: Traces, futures: list[Any]) -> None:
    last_seen = time.monotonic()
    while not all(future.done() for future in futures):
        workers = len(client.nthreads())
        if workers:
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > WITHOUT_WORKERS:
            raise StarburstError(f"no worker started within {WITHOUT_WORKERS:.0f} s; see the messages above")
        traces.count_workers(workers)
        progress.detail(f"{workers} worker{'' if workers == 1 else 's'}")
        time.sleep(0.2)


def _wait_for_no_worker(client: Any) -> None:
    deadline = time.monotonic() + BACK_TO_ZERO
    while left := len(client.nthreads()):
        if time.monotonic() > deadline:
            raise StarburstError(f"{left} workers are still running {BACK_TO_ZERO:.0f} s after the last task")
        time.sleep(0.2)


def _check(progress: Progress, job: Job, answers: list[Any]) -> bool:
    if job.expected is None:
        progress.line("! The data are too large for pandas: the results were not checked.", "yellow")
        return True
    with progress.stage("computing the same with pandas"):
        expected = job.expected()
        wrong = {
            question.title: difference(question, answer, expected)
            for question, answer in zip(job.questions, answers, strict=True)
        }
    for title, what in wrong.items():
        if what:
            progress.line(f"  {title}: differs from pandas: {what}", style="red")
    if not any(wrong.values()):
        progress.line(f"  all {len(wrong)} results agree with pandas")
    return not any(wrong.values())


def _report(progress: Progress, job: Job, answers: list[Any], cluster: StarburstCluster, traces: Traces) -> None:
    progress.line("")
    progress.line(job.title, style="bold")
    for question, answer in zip(job.questions, answers, strict=True):
        progress.table(question.title, answer, by=question.show_highest)
    progress.line(f"Workers: from 0 to {traces.most_workers} and back to 0.")
    progress.line(f"On AWS this would have cost {cluster.cost}.")


@contextmanager
def _embedded_aws(progress: Progress, timing: str, endpoint_url: str | None) -> Iterator[Traces]:
    from dask_starburst.local import LocalAWS  # raises its own error if packages are missing

    if endpoint_url:
        yield Traces(LocalAWS.connect(endpoint_url))
        return
    with ExitStack() as stack:
        with progress.stage("starting the embedded AWS"):
            aws = stack.enter_context(LocalAWS(timing=timing))
        yield Traces(aws)
        with progress.stage("stopping the embedded AWS"):
            stack.close()


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """Hide Dask's warnings about the closing scheduler."""
    import distributed  # noqa: F401  # sets the log level when it is imported

    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
