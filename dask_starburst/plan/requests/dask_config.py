"""Which part of the client's Dask configuration goes to the scheduler and the workers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dask_starburst.settings.names import SECRET_NAME

#: The variable that Dask reads a configuration from at its start, encoded by `dask.config.serialize`.
CONFIG_VARIABLE = "DASK_INTERNAL_INHERIT_CONFIG"
#: Keys that belong to the client, to this computer, or to what the cluster sets itself.
_NOT_SENT = (
    "starburst",
    "scheduler",  # the single-machine scheduler of this process
    "scheduler-address",
    "temporary-directory",
    "labextension",
    "distributed.comm.require-encryption",
    "distributed.comm.tls",
    "distributed.dashboard.link",
    "distributed.scheduler.dashboard.tls",
)
#: Names with such a part that are not secret.
_PUBLIC = frozenset({"tokenize"})


@dataclass(frozen=True, slots=True)
class Sent:
    """The configuration that is sent, nested as Dask's, and the names of what is not sent, each with the reason."""

    config: Mapping[str, Any]
    left_out: Mapping[str, str]


def to_send(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Sent:
    """Return what differs from Dask's defaults, without secrets and without what is the client's own.

    Parameters
    ----------
    config : mapping
        The client's configuration.
    defaults : mapping
        The defaults of dask, distributed and other packages, which workers have too.
    """
    sent: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, value in _leaves(_changed(config, defaults)):
        if any(name == each or name.startswith(f"{each}.") for each in _NOT_SENT):
            continue
        if any(SECRET_NAME.search(part) and part not in _PUBLIC for part in name.split(".")):
            left_out[name] = "its name looks like that of a secret"
        elif not _is_json(value):
            left_out[name] = f"{type(value).__name__} is not a JSON value"
        else:
            _put(sent, name.split("."), value)
    return Sent(sent, left_out)


def _changed(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    known = {_canonical(key): value for key, value in defaults.items()}
    changed: dict[str, Any] = {}
    for key, value in config.items():
        name = _canonical(key)
        default = known.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            if below := _changed(value, default):
                changed[name] = below
        elif name not in known or value != default:
            changed[name] = value
    return changed


def _canonical(key: Any) -> str:
    """Return a key with hyphens, as in Dask's files: both ways of writing name the same setting."""
    return str(key).replace("_", "-")


def _leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _put(config: dict[str, Any], path: list[str], value: Any) -> None:
    for key in path[:-1]:
        config = config.setdefault(key, {})
    config[path[-1]] = value


def _is_json(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == value or isinstance(value, tuple))
    except (TypeError, ValueError):
        return False
