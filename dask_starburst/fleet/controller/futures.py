"""Telling those who wait for results why the cluster ends.

distributed cancels the futures of a client whose scheduler is gone for reason "unknown", or as a lost connection. There
is no public way to give a reason: this does to the clients of this process what ``Client._reconnect`` does itself, with
other words (distributed 2026.7). Clients of other processes learn that their connection was lost.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from distributed import Client

#: The reason, for programs; the message is for people.
REASON = "cluster-failed"


def cancel(cluster: Any, message: str) -> None:
    """Cancel every future of this process that waits for work of a cluster, and say why it will not come.

    Parameters
    ----------
    cluster : distributed.deploy.Cluster
        The one that ends.
    message : str
        Why: a sentence.
    """
    for client in list(Client._instances):
        if client.cluster is cluster and client.status == "running":
            client.loop.add_callback(partial(_cancel, client, message))


def _cancel(client: Any, message: str) -> None:
    for state in client.futures.values():
        state.cancel(reason=REASON, msg=message)
    client.futures.clear()
