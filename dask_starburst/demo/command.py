"""``starburst demo``: the whole life of a cluster on the embedded AWS, with real work and a check of its answers."""

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
from dask_starburst.demo.story import Story
from dask_starburst.demo.traces import Traces
from dask_starburst.errors import StarburstError

if TYPE_CHECKING:
    from dask_starburst import StarburstCluster

WITHOUT_WORKERS = 300.0
"""Seconds without any worker after which we stop to wait; a real start takes one to three minutes."""

SMALL = {"nthreads": 1, "memory_limit": "2 GiB"}
"""The workers share the processors of this computer, so that larger ones would be no faster."""

TARGET = "0.5 s"
"""Workers are ordered until the work would be done in this time: Dask's own five seconds order few for so little."""

BACK_TO_ZERO = 120.0
"""Seconds in which adaptive scaling has to give everything back."""


@click.command()
@click.option("--data", metavar="PATH", help="Your own parquet or CSV: a file, a folder or a glob.")
@click.option("--workers", default=4, show_default=True, type=click.IntRange(1, 32), help="Most workers at a time.")
@click.option("--arch", default="arm64", show_default=True, type=click.Choice(["arm64", "x86_64"]))
@click.option(
    "--timing",
    default="fast",
    show_default=True,
    type=click.Choice(["none", "fast", "realistic"]),
    help="How long the embedded AWS takes to boot an instance.",
)
@click.option("--endpoint-url", metavar="URL", help="Use the embedded AWS that `starburst local up` keeps.")
def demo(data: str | None, workers: int, arch: str, timing: str, endpoint_url: str | None) -> None:
    """Launch a cluster on the embedded AWS, compute, check the answers, and leave nothing running.

    No AWS account is needed and nothing costs money: the instances are processes on this computer.
    """
    story = Story(Console())
    with tempfile.TemporaryDirectory(prefix="starburst-demo-") as folder:
        with story.stage("reading the data"):
            job = own_job(data) if data else flights_job(Path(folder))
        with story.listening(), _quiet_dask(), _embedded_aws(story, timing, endpoint_url) as traces:
            correct = _life(story, job, traces, workers, arch)
    left = traces.processes_left()
    story.line(f"Left of it: {traces.left}, processes {len(left)}.", style="bold")
    story.line(f"All of it took {story.elapsed:.0f} s.")
    if not correct or left or not traces.nothing_left:
        raise SystemExit(1)


def _life(story: Story, job: Job, traces: Traces, workers: int, arch: str) -> bool:
    """Launch, compute, scale back, close. True if every answer is right."""
    from distributed import Client

    from dask_starburst import StarburstCluster

    with story.stage(f"launching a cluster ({arch})"):
        cluster = StarburstCluster(
            cloud="local", endpoint_url=traces.endpoint_url, arch=arch, n_workers=0, worker=SMALL, quiet=True
        )
    try:
        traces.look()
        story.line(f"  dashboard: {cluster.dashboard_link}")
        with Client(cluster) as client:
            cluster.adapt(minimum=0, maximum=workers, target_duration=TARGET)
            answers = _answers(story, client, traces, job)
            with story.stage("scaling back to zero"):
                _wait_for_no_worker(client)
    finally:
        with story.stage("closing the cluster"):
            cluster.close()
    correct = _check(story, job, answers)
    _report(story, job, answers, cluster, traces)
    traces.look_for_the_last_time()
    return correct


@dataclass(frozen=True)
class _Asked:
    question: Question
    names: tuple[str, ...] | None  # of the parts, where the question has several
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


def _answers(story: Story, client: Any, traces: Traces, job: Job) -> list[Any]:
    asked = [_Asked.of(question, client, job) for question in job.questions]  # at once: workers come for all of it
    answers = []
    for each in asked:
        with story.stage(each.question.title):
            _wait(story, client, traces, each.futures)
            traces.look()
            answers.append(each.answer(client))
    return answers


def _wait(story: Story, client: Any, traces: Traces, futures: list[Any]) -> None:
    last_seen = time.monotonic()
    while not all(future.done() for future in futures):
        workers = len(client.nthreads())
        if workers:
            last_seen = time.monotonic()
        elif time.monotonic() - last_seen > WITHOUT_WORKERS:
            raise StarburstError(f"No worker came within {WITHOUT_WORKERS:.0f} s. The lines above say why.")
        traces.count_workers(workers)
        story.detail(f"{workers} worker{'' if workers == 1 else 's'}")
        time.sleep(0.2)


def _wait_for_no_worker(client: Any) -> None:
    deadline = time.monotonic() + BACK_TO_ZERO
    while left := len(client.nthreads()):
        if time.monotonic() > deadline:
            raise StarburstError(f"{left} workers were still there {BACK_TO_ZERO:.0f} s after the last task.")
        time.sleep(0.2)


def _check(story: Story, job: Job, answers: list[Any]) -> bool:
    if job.expected is None:
        story.line("! The data are too large to be read into pandas here: the answers were not checked.", "yellow")
        return True
    with story.stage("computing the same with pandas"):
        expected = job.expected()
        wrong = {
            question.title: difference(question, answer, expected)
            for question, answer in zip(job.questions, answers, strict=True)
        }
    for title, what in wrong.items():
        if what:
            story.line(f"  {title}: differs from pandas: {what}", style="red")
    if not any(wrong.values()):
        story.line(f"  all {len(wrong)} answers are those of pandas")
    return not any(wrong.values())


def _report(story: Story, job: Job, answers: list[Any], cluster: StarburstCluster, traces: Traces) -> None:
    story.line("")
    story.line(job.title, style="bold")
    for question, answer in zip(job.questions, answers, strict=True):
        story.table(question.title, answer, by=question.show_highest)
    story.line(f"Workers: from 0 to {traces.most_workers} and back to 0.")
    story.line(f"On AWS this would have cost {cluster.cost}.")


@contextmanager
def _embedded_aws(story: Story, timing: str, endpoint_url: str | None) -> Iterator[Traces]:
    from dask_starburst.local import LocalAWS  # which says itself what it needs

    if endpoint_url:
        yield Traces(LocalAWS.connect(endpoint_url))
        return
    with ExitStack() as stack:
        with story.stage("starting the embedded AWS"):
            aws = stack.enter_context(LocalAWS(timing=timing))
        yield Traces(aws)
        with story.stage("stopping the embedded AWS"):
            stack.close()


@contextmanager
def _quiet_dask() -> Iterator[None]:
    """Dask's warnings about a scheduler that is closing are no news here."""
    import distributed  # noqa: F401  # which sets the level itself when it is imported

    logger = logging.getLogger("distributed")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
