"""The demo's own job gives the same answers from Dask as from pandas."""

import dask
import pytest

from dask_starburst.cli.flights import flights_job
from dask_starburst.cli.job import difference


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return flights_job(tmp_path_factory.mktemp("flights"))


@pytest.fixture(scope="module")
def answers(job):
    with dask.config.set(scheduler="threads"):
        return [question.finish(dask.compute(question.ask(job.frames))[0]) for question in job.questions]


def test_all_flights_of_the_year_are_there(job):
    assert len(job.frames["flights"]) == 336_776


def test_four_workers_have_work(job):
    assert job.frames["flights"].npartitions == 12


def test_every_answer_is_that_of_pandas(job, answers):
    expected = job.expected()
    differences = [difference(question, each, expected) for question, each in zip(job.questions, answers, strict=True)]
    assert differences == [None] * 4


def test_a_wrong_answer_is_noticed(job, answers):
    wrong = answers[0].copy()
    wrong.loc[3, "mean arrival delay"] += 1e-3
    assert "mean arrival delay" in str(difference(job.questions[0], wrong, job.expected()))


def test_a_lost_row_is_noticed(job, answers):
    assert "shape" in str(difference(job.questions[2], answers[2].iloc[1:], job.expected()))
