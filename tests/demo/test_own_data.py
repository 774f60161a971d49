"""The demo works on the user's files, and reports unusable ones in one sentence."""

import dask
import numpy as np
import pandas as pd
import pytest

from dask_starburst.demo.job import difference
from dask_starburst.demo.own_data import find_files, most_category_like, own_job
from dask_starburst.errors import BadArgument


@pytest.fixture
def sales():
    rng = np.random.default_rng(1)
    rows = 4_000
    return pd.DataFrame(
        {
            "id": np.arange(rows),
            "shop": rng.choice(["north", "south", "east"], rows),
            "price": rng.normal(10, 3, rows).round(2),
            "pieces": rng.integers(1, 9, rows),
            "note": [f"note {number}" for number in range(rows)],
        }
    )


def answered(job):
    with dask.config.set(scheduler="threads"):
        return [question.finish(dask.compute(question.ask(job.frames))[0]) for question in job.questions]


def differences(job, answers):
    assert job.expected is not None
    expected = job.expected()
    return [difference(question, each, expected) for question, each in zip(job.questions, answers, strict=True)]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_answers_are_those_of_pandas(tmp_path, sales, kind):
    for number in range(3):
        part = sales.iloc[number::3]
        target = tmp_path / f"part-{number}.{kind}"
        part.to_csv(target, index=False) if kind == "csv" else part.to_parquet(target, index=False)
    job = own_job(str(tmp_path))
    answers = answered(job)
    assert differences(job, answers) == [None] * 4
    assert answers[0].loc[0, "rows"] == 4_000
    assert job.frames["data"].npartitions >= 8


def test_columns_whose_type_shows_late_in_a_csv_do_not_fail(tmp_path):
    late = pd.DataFrame({"group": ["a", "b"] * 5_000, "value": [1.0] * 9_999 + [None], "odd": [1] * 9_999 + ["x"]})
    late.to_csv(tmp_path / "late.csv", index=False)
    job = own_job(str(tmp_path / "late.csv"))
    assert not any(differences(job, answered(job)))


def test_data_without_numbers_are_counted(tmp_path):
    pd.DataFrame({"word": ["a", "b", "a"]}).to_csv(tmp_path / "words.csv", index=False)
    job = own_job(str(tmp_path / "words.csv"))
    assert [question.title for question in job.questions] == ["number of rows"]
    assert answered(job)[0].loc[0, "rows"] == 3


def test_the_column_to_group_by_is_text_with_few_values(sales):
    assert most_category_like(sales) == "shop"


def test_numbers_are_grouped_by_only_for_want_of_text(sales):
    assert most_category_like(sales[["id", "price", "pieces"]]) == "pieces"
    assert most_category_like(sales[["id", "price"]]) is None


def test_a_glob_and_a_folder_and_a_file_are_found(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.csv", "b.CSV", "deep/c.csv", "readme.txt"):
        (tmp_path / name).write_text("x\n1\n")
    assert len(find_files(str(tmp_path))[0]) == 3
    assert len(find_files(str(tmp_path / "*.csv"))[0]) == 1
    assert find_files(str(tmp_path / "deep" / "c.csv"))[1] == "csv"


@pytest.mark.parametrize(
    ("files", "asked", "sentence"),
    [
        ({}, "nowhere.csv", "There are no files at"),
        ({}, ".", "There are no files at"),
        ({"readme.txt": "x"}, ".", r"no \.parquet or \.csv file at .*, only readme\.txt"),
        ({"a.csv": "x\n1", "b.parquet": "x"}, ".", "both parquet and CSV"),
        ({"a.parquet": "no parquet"}, "a.parquet", "cannot be read"),
        ({"a.csv": ""}, "a.csv", "cannot be read: No columns"),
        ({"a.csv": "x,y\n"}, "a.csv", "has columns but no rows"),
    ],
)
def test_unusable_data_are_refused_in_one_sentence(tmp_path, files, asked, sentence):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(BadArgument, match=sentence) as refused:
        own_job(str(tmp_path / asked))
    assert "\n" not in str(refused.value)
