"""The user's files, which no other user can read, whatever the umask is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dask_starburst.cost import record
from dask_starburst.cost.price_cache import Known, PriceCache
from dask_starburst.cost.record import Record
from dask_starburst.environment.build.layers import Layers
from dask_starburst.environment.build.tar import Entry
from dask_starburst.paths import private_folder, write_atomic

BILL = Record("a", "b", "us-east-1", 0, 1, 2.0, 0, 1)


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def open_to_others(folder: Path) -> dict[str, str]:
    found = [folder, *folder.rglob("*")]
    return {str(path): oct(path.stat().st_mode) for path in found if path.stat().st_mode & 0o077}


@pytest.mark.usefixtures("umask")
def test_bills_prices_and_layers_are_for_their_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "new" / "state"))
    record.save_record(BILL)
    record.save_record(BILL)
    assert len(record.load_records()) == 2
    PriceCache(tmp_path / "cache" / "prices" / "us-east-1.json").write({"c7g.large": Known(1.0, 2.0, 3.0)})
    write_atomic(tmp_path / "cache" / "notes" / "a.json", b"{}")
    Layers(tmp_path / "cache" / "layers").get("a", lambda work: [Entry("a", b"b")])
    assert open_to_others(tmp_path) == {}


def test_a_bill_that_others_could_read_is_closed_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    private_folder(record.records_path().parent)
    record.records_path().write_text("")
    record.records_path().chmod(0o644)
    record.save_record(BILL)
    assert record.records_path().stat().st_mode & 0o777 == 0o600


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    private_folder(tmp_path / "a" / "b")
    assert [oct(p.stat().st_mode & 0o777) for p in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")] == [
        "0o755",
        "0o700",
        "0o700",
    ]
