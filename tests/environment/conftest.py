"""What tests of images share: a real registry, and one image for all that only look at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dask_starburst.environment.registry.client import Registry
from tests.support.docker_registry import serving, why_no_registry
from tests.support.image_fixtures import Built, Kitchen, new_kitchen, shared_folder, worker_image


@pytest.fixture(scope="session")
def registry_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Debian's docker-registry, which lets everybody in: its host and port."""
    if why := why_no_registry():
        pytest.skip(why)
    with serving(tmp_path_factory.mktemp("registry")) as host:
        yield host


@pytest.fixture(scope="session")
def kitchen(registry_server: str, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Kitchen:
    """A registry with a base image for both platforms, to build on."""
    return new_kitchen(Registry(registry_server), shared_folder(tmp_path_factory, worker_id))


@pytest.fixture(scope="session")
def built(kitchen: Kitchen) -> Built:
    """A worker's image for both platforms."""
    return worker_image(kitchen)
