"""The argument of an action of the table, and helpers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dask.distributed import Client


@dataclass(frozen=True)
class Side:
    """One of the two compared clusters: two workers of one thread each, and a client."""

    cluster: Any
    client: Client
    #: Creates another cluster of the same kind, with arguments that both kinds have.
    another: Callable[..., Any]

    @property
    def addresses(self) -> list[str]:
        """The addresses of its workers, by name."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"]
        return sorted(workers, key=lambda address: workers[address]["name"])


Action = Callable[[Side], Any]


def error_of(action: Callable[[], Any]) -> tuple[str, str]:
    """Return the type and the message of the exception that an action raises."""
    try:
        answer = action()
    except BaseException as error:  # noqa: BLE001 -- a cancelled future raises a BaseException
        return type(error).__name__, str(error)
    raise AssertionError(f"no error, but {answer!r}")
