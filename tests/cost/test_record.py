"""Cost records are stored on this computer, one line each; a damaged file does no harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from dask_starburst.cost import Cost
from dask_starburst.cost.record import Record, load_records, record_of, records_path, save_record

COST = Cost(instances=1.0, public_ipv4=0.1, storage=0.05, saved=2.0, by_group={"spot": 1.15}, region="eu-west-1")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def record(name: str = "mine", closed: float = 100.0) -> Record:
    return record_of(name, "starburst-1-0", 0.0, closed, COST)


def test_records_are_loaded_newest_first():
    save_record(record("old", 100.0))
    save_record(record("new", 200.0))
    assert load_records() == [record("new", 200.0), record("old", 100.0)]
    assert [r.name for r in load_records(since=150.0)] == ["new"]
    assert load_records()[0].usd == pytest.approx(1.15)


def test_nothing_is_kept_before_anything_was_closed():
    assert load_records() == []


def test_a_line_that_was_cut_off_or_is_of_another_version_is_passed_over():
    save_record(record())
    with records_path().open("a", encoding="utf-8") as out:
        out.write('{"name": "half"\n[]\n{"name": "lacks the rest"}\n')
    save_record(record("later", 300.0))
    assert [r.name for r in load_records()] == ["later", "mine"]


def test_a_record_that_cannot_be_stored_is_a_warning(state: Path, caplog: pytest.LogCaptureFixture):
    (state / "dask-starburst").write_text("a file where a folder should be")
    save_record(record())
    assert "not stored" in caplog.text
