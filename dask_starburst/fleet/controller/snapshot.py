"""Convert a roster's state to values that JSON can hold, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

from dask_starburst.catalog.markets import Market
from dask_starburst.errors import StarburstError
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.interruptions import Succession
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.state import (
    Action,
    Forget,
    Instance,
    Name,
    Observed,
    Retire,
    RunTask,
    ScalingGroup,
    SetDesired,
    SetTypes,
    StopTask,
    Task,
    Terminate,
    Worker,
    WorkerState,
)

T = TypeVar("T")

#: The version of the format. Raise it with each change that an older version cannot read.
VERSION = 1


@dataclass(frozen=True)
class Saved:
    """The state of a roster.

    `launches`: the first launch number of new workers. `launched`: the processes whose logs can be read. `reasons`: why
    a worker was given up, by name, with its launch number.
    """

    workers: tuple[Worker, ...]
    observed: Observed
    launches: int = 0
    launched: tuple[Worker, ...] = ()
    reasons: Mapping[Name, tuple[int, str]] = field(default_factory=dict)
    successions: tuple[Succession, ...] = ()


def encode(saved: Saved) -> dict[str, Any]:
    """Return the state as dictionaries, lists, texts and numbers."""
    seen = saved.observed
    return {
        "version": VERSION,
        "workers": _plain(saved.workers),
        "observed": {
            "groups": _plain(tuple(seen.groups.values())),
            "instances": _plain(tuple(seen.instances.values())),
            "tasks": _plain(tuple(seen.tasks.values())),
            "members": sorted(seen.members, key=repr),
            "in_flight": [[type(action).__name__, _plain(action), at] for action, at in seen.in_flight.items()],
            "refusals": _plain(seen.refusals),
            "draining": sorted(seen.draining),
        },
        "launches": saved.launches,
        "launched": _plain(saved.launched),
        "reasons": [[name, launch, text] for name, (launch, text) in saved.reasons.items()],
        "successions": _plain(saved.successions),
    }


def decode(data: Mapping[str, Any]) -> Saved:
    """Return the state that `encode` has converted.

    Raises
    ------
    StarburstError
        The format has another version.
    """
    version = data.get("version")
    if version != VERSION:
        raise StarburstError(
            f"the saved state of the workers has format {version!r}; this version of dask_starburst reads {VERSION}."
            " Use the version that saved it."
        )
    return Saved(
        workers=_all(Worker, data["workers"]),
        observed=_observed(data["observed"]),
        launches=data["launches"],
        launched=_all(Worker, data["launched"]),
        reasons={name: (launch, text) for name, launch, text in data["reasons"]},
        successions=_all(Succession, data["successions"]),
    )


def _observed(data: Mapping[str, Any]) -> Observed:
    return Observed(
        groups={group.placement: group for group in _all(ScalingGroup, data["groups"])},
        instances={instance.id: instance for instance in _all(Instance, data["instances"])},
        tasks={task.arn: task for task in _all(Task, data["tasks"])},
        members=frozenset(data["members"]),
        in_flight={_value(_ACTIONS[kind], action): at for kind, action, at in data["in_flight"]},
        refusals=_all(Refusal, data["refusals"]),
        draining=frozenset(data["draining"]),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, RunTask):
        return {key: _plain(each) for key, each in value._asdict().items()}
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _placement(value: list[str] | None) -> Placement | None:
    return None if value is None else Placement(value[0], Market(value[1]))


_ACTIONS: dict[str, type[Action]] = {
    kind.__name__: kind for kind in (SetDesired, SetTypes, RunTask, StopTask, Retire, Forget, Terminate)
}
#: How to read the fields that JSON cannot hold as they are; a field of the same name has the same type everywhere.
_READ: dict[str, Callable[[Any], Any]] = {
    "placement": _placement,
    "state": WorkerState,
    "types": tuple,
    "allowed": tuple,
}


def _value(kind: type[T], data: Mapping[str, Any]) -> T:
    return kind(**{key: _READ[key](value) if key in _READ else value for key, value in data.items()})


def _all(kind: type[T], data: list[Mapping[str, Any]]) -> tuple[T, ...]:
    return tuple(_value(kind, each) for each in data)
