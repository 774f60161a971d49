"""The demo's default job has the same results in Dask and pandas."""

import dask
import pytest

from dask_starburst.demo.flights import QUESTIONS, flights_job
from dask_starburst.demo.job import Frames, Question, difference

*QUICK, RESAMPLING = QUESTIONS


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return flights_job(tmp_path_factory.mktemp("flights"))


def answer(question: Question, frames: Frames):
    with dask.config.set(scheduler="threads"):
        return question.finish(dask.compute(question.ask(frames))[0])


def test_all_flights_of_the_year_are_there(job):
    assert len(job.frames["flights"]) == 336_776


def test_four_workers_have_work(job):
    assert job.frames["flights"].npartitions == 12


@pytest.mark.parametrize("question", QUICK, ids=lambda question: question.title)
def test_every_answer_is_that_of_pandas(job, question):
    assert difference(question, answer(question, job.frames), job.expected()) is None


def test_resampling_gives_the_answer_of_pandas(job):
    """Of two months: all twelve take ten seconds here and there."""
    months = {**job.frames, "flights": job.frames["flights"].partitions[:2]}
    tables = job.expected()
    expected = {**tables, "flights": tables["flights"].query("month <= 2")}
    found = answer(RESAMPLING, months)
    assert set(found["month"]) == {1, 2}
    assert difference(RESAMPLING, found, expected) is None


@pytest.mark.slow
def test_resampling_of_the_whole_year_gives_the_answer_of_pandas(job):
    assert difference(RESAMPLING, answer(RESAMPLING, job.frames), job.expected()) is None


def test_a_wrong_answer_is_noticed(job):
    wrong = answer(QUICK[0], job.frames)
    wrong.loc[3, "mean arrival delay"] += 1e-3
    assert "mean arrival delay" in str(difference(QUICK[0], wrong, job.expected()))


def test_a_lost_row_is_noticed(job):
    assert "shape" in str(difference(QUICK[2], answer(QUICK[2], job.frames).iloc[1:], job.expected()))
