"""Cancel the futures of a cluster that ends, with the reason.

When its scheduler is gone, distributed cancels a client's futures with the reason "unknown", or as a lost connection.
There is no public way to give a reason: for the clients of this process, this module does what ``Client._reconnect``
does, with another message (distributed 2026.7). So they have the reason even if the scheduler is gone. The scheduler
tells the clients of other processes (`runtime.scheduler.ending`), if it still can.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from distributed import Client

from dask_starburst.plan.scheduler.shutdown_rules import CANCEL_REASON


def cancel(cluster: Any, message: str) -> None:
    """Cancel every future in this process that depends on a cluster, with the reason.

    Parameters
    ----------
    cluster : distributed.deploy.Cluster
        The cluster that ends.
    message : str
        Why it ends, in a sentence.
    """
    for client in list(Client._instances):
        if client.cluster is cluster and client.status == "running":
            client.loop.add_callback(partial(_cancel, client, message))


def _cancel(client: Any, message: str) -> None:
    for state in client.futures.values():
        state.cancel(reason=CANCEL_REASON, msg=message)
    client.futures.clear()
