"""Cancel the futures of a cluster that ends, with the reason.

When its scheduler is gone, distributed cancels a client's futures with the reason "unknown", or as a lost connection.
There is no public way to give a reason: for the clients of this process, this module does what ``Client._reconnect``
does, with another message (distributed 2026.7). Clients of other processes only see that their connection was lost.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from distributed import Client

#: The reason, for programs; the message is for users.
REASON = "cluster-failed"


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
        state.cancel(reason=REASON, msg=message)
    client.futures.clear()
