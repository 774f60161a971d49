"""Fixtures of end-to-end tests: an embedded AWS, and a check that tests leave nothing on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dask.config
import pytest
from hypothesis import settings

from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import leftovers

# The same examples on every machine and every day; a failure prints how to reproduce it.
settings.register_profile("starburst", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("starburst")


#: The folders and files that take longest.
LONGEST = ("cluster", "benchmarks", "dask", "environment/test_image.py", "environment/test_run.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first, so that no long test remains for one processor at the end."""
    first = [Path(__file__).parent / name for name in LONGEST]
    items.sort(key=lambda item: not any(item.path.is_relative_to(each) for each in first))


@pytest.fixture(scope="session", autouse=True)
def no_dashboards() -> Iterator[None]:
    """Disable the dashboards: hardly any test uses them, and their import takes half of a scheduler's start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DASK_STARBURST__SCHEDULER__DASHBOARD", "False")
        with dask.config.set({"starburst.scheduler.dashboard": False}):
            yield


@pytest.fixture(scope="session", autouse=True)
def own_bills(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the cost records of the tests' clusters out of the user's state directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def embedded() -> Iterator[LocalAWS]:
    """Start one embedded AWS for all files: a reset takes a fifth of the time of a start."""
    with LocalAWS() as running:
        yield running


@pytest.fixture(scope="module")
def aws(embedded: LocalAWS) -> LocalAWS:
    """Return an embedded AWS that is reset before the first test of a file."""
    embedded.reset()
    return embedded


@pytest.fixture
def new_aws(embedded: LocalAWS) -> LocalAWS:
    """Return an embedded AWS that is reset before the test."""
    embedded.reset()
    return embedded


@pytest.fixture
def clean(aws: LocalAWS) -> Iterator[LocalAWS]:
    """Yield an embedded AWS, and check afterwards that the test left nothing on it."""
    yield aws
    assert leftovers(aws) == {kind: [] for kind in leftovers(aws)}
