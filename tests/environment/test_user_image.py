"""A user's image in an unresponsive registry."""

from __future__ import annotations

import socket

import pytest

from dask_starburst import StarburstCluster
from dask_starburst.events import AccountSetup, ImageUnchecked, PoolClaimed
from dask_starburst.local import LocalAWS


def test_an_unresponsive_registry_is_queried_once_during_the_account_set_up(
    clean: LocalAWS, monkeypatch: pytest.MonkeyPatch
):
    for name, value in clean.environment.items():  # a configured account, for which images are checked
        monkeypatch.setenv(name, value)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        image = f"127.0.0.1:{silent.getsockname()[1]}/team/worker:v1"
        with StarburstCluster(image=image, n_workers=0, quiet=True, network={"caller": "127.0.0.1/32"}) as made:
            kinds = [type(event) for event in made.events]
            [unchecked] = [event.message for event in made.events if isinstance(event, ImageUnchecked)]
            assert made.settings.image == image
        silent.setblocking(False)
        silent.accept()
        with pytest.raises(BlockingIOError):  # one attempt
            silent.accept()
    assert kinds.index(AccountSetup) < kinds.index(ImageUnchecked) < kinds.index(PoolClaimed)
    assert "used without a check" in unchecked
