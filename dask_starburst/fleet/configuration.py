"""The client's Dask configuration, as a variable of the scheduler's and the workers' containers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import dask.config

from dask_starburst.errors import BadArgument
from dask_starburst.plan.requests.dask_config import CONFIG_VARIABLE, Sent, to_send
from dask_starburst.settings import Settings

#: Bytes. ECS accepts task definitions of 64 KiB (Amazon ECS service quotas, "Task definition size limit"); half of it
#: is left for everything else.
MOST_BYTES = 32 << 10


def container_environment(settings: Settings) -> tuple[dict[str, str], Mapping[str, str]]:
    """Return the variables of all containers, and what of the Dask configuration is not in them, with the reason.

    Raises
    ------
    BadArgument
        They are too large for a task definition.
    """
    sent = _sent() if settings.send_dask_config else Sent({}, {})
    variables = {CONFIG_VARIABLE: dask.config.serialize(sent.config)} if sent.config else {}
    _check_size("the Dask configuration", variables, "give send_dask_config=False, or a smaller configuration")
    for name, group in settings.groups.items():
        own = {**settings.env, **group.env}
        _check_size(f"env of the group {name}", {**variables, **own}, "give fewer or shorter variables")
    return variables, sent.left_out


def _sent() -> Sent:
    defaults: dict[str, Any] = {}
    for each in dask.config.defaults:
        dask.config.update(defaults, copy.deepcopy(each))
    return to_send(dask.config.config, defaults)


def _check_size(what: str, variables: Mapping[str, str], instead: str) -> None:
    size = sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())
    if size > MOST_BYTES:
        raise BadArgument(
            f"{what} has {size} bytes as environment variables, and a task definition has room for {MOST_BYTES};"
            f" {instead}."
        )
