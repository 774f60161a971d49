"""The futures of a cluster that ends are cancelled with its reason."""

from __future__ import annotations

import pytest
from distributed import Client, LocalCluster
from distributed.client import FutureCancelledError

from dask_starburst.fleet.controller.futures import cancel


def test_the_futures_of_its_clients_name_the_reason_and_those_of_other_clusters_go_on() -> None:
    options = {"n_workers": 0, "processes": False, "dashboard_address": ":0"}
    with LocalCluster(**options) as ends, LocalCluster(**options) as stays, Client(ends) as one, Client(stays) as other:
        cancelled, going_on = one.submit(sum, [1]), other.submit(sum, [1])
        cancel(ends, "the lease expired")
        with pytest.raises(FutureCancelledError, match="the lease expired"):
            cancelled.result(timeout=30)
        assert going_on.status == "pending"
        assert one.submit(sum, [2]).status == "pending", "the client itself stays usable"
