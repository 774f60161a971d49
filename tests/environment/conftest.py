"""Shared fixtures of image tests: a real registry, and one image for tests that do not change it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.harness.images.fixtures import Built, ImageFixtures, debian_base, worker_image
from benchmarks.harness.images.registry import serving, why_no_registry
from dask_starburst.environment.registry.client import Registry
from tests.support.shared_folder import shared_folder


@pytest.fixture(scope="session")
def registry_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of Debian's docker-registry, without authentication."""
    if why := why_no_registry():
        pytest.skip(why)
    with serving(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="session")
def image_fixtures(registry_server: str, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> ImageFixtures:
    """A registry with a base image for both platforms."""
    return debian_base(Registry(registry_server), shared_folder(tmp_path_factory, worker_id))


@pytest.fixture(scope="session")
def built(image_fixtures: ImageFixtures) -> Built:
    """A worker image for both platforms."""
    return worker_image(image_fixtures)
