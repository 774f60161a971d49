"""The worker groups of a cluster: which worker belongs to which group, and how many each group requests."""

from __future__ import annotations

import math
from itertools import count
from typing import TYPE_CHECKING, Any

from distributed.deploy.adaptive import Adaptive

from dask_starburst.cluster.ownership import OwnedCluster
from dask_starburst.errors import BadArgument
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.scaling import Shape, first_to_go
from dask_starburst.plan.loop.state import Name

if TYPE_CHECKING:
    from dask_starburst.fleet.controller.loop import Controller


class GroupedCluster(OwnedCluster):
    """A SpecCluster whose workers belong to groups; SpecCluster's own scaling knows one kind of worker."""

    #: SpecCluster's specification of a worker, by group.
    _specs: dict[str, dict[str, Any]]
    #: The groups whose number of workers was set by `scale`, and not by `adapt` since.
    _sized: set[str]
    #: The adaptive scaling of each group; Dask's own attribute is that of the default group.
    _adaptives: dict[str, Adaptive]

    @property
    def _controller(self) -> Controller | None:
        raise NotImplementedError

    def group_of(self, name: Name) -> str:
        """Return the group of a requested worker."""
        group: str = self.worker_spec[name]["options"]["group"]
        return group

    def workers_of(self, group: str) -> list[Name]:
        """Return the names of the requested workers of a group, in the order of the requests."""
        return [name for name in self.worker_spec if self.group_of(name) == group]

    def shape_of(self, group: str) -> Shape:
        """Return the size of a worker of a group."""
        options = self._specs[group]["options"]
        return Shape(options["nthreads"], options["memory_limit"])

    def next_name(self, group: str) -> Name:
        """Return a free name for a worker: 0, 1, … in the default group, such as ``big-0`` in others."""
        if group == DEFAULT:
            name: Name = next(iter(self.new_worker_spec()))
            return name
        return next(name for n in count() if (name := f"{group}-{n}") not in self.worker_spec)

    def replace_worker(self, old: Name) -> Name:
        """Request a new worker of the same group instead of this one, and return its name."""
        new = self.next_name(self.group_of(old) if old in self.worker_spec else DEFAULT)
        self.swap_workers(old, new)
        return new

    def swap_workers(self, out: Name, into: Name) -> None:
        """Request the worker `into` instead of `out`, unless `out` has been cancelled meanwhile."""
        spec = self.worker_spec.pop(out, None)
        if spec is not None:
            self.worker_spec[into] = spec

    def _check_group(self, group: str) -> None:
        if group not in self._specs:
            known = ", ".join(map(repr, self._specs))
            raise BadArgument(f"group={group!r} is not a worker group of this cluster; its groups are {known}.")

    def _set_count(self, group: str, n: int) -> None:
        """Change the number of requested workers of a group to `n`.

        Workers that are not up are cancelled first, in order, and then the latest are retired.
        """
        mine = self.workers_of(group)
        unordered = self._controller.roster.unordered() if self._controller is not None else frozenset()
        cancelled = set(first_to_go(mine, self.observed, unordered)[: max(0, len(mine) - n)])
        left = [name for name in mine if name not in cancelled]
        for name in (*cancelled, *left[n:]):
            del self.worker_spec[name]
        for _ in range(n - len(mine)):
            self.worker_spec[self.next_name(group)] = self._specs[group]

    @property
    def group_of_rest(self) -> str:
        """The adaptive group for which tasks without a group count: the default one, if it adapts or has workers."""
        adapting = [name for name, adaptive in self._adaptives.items() if is_active(adaptive)]
        if DEFAULT in adapting or self.workers_of(DEFAULT) or not adapting:
            return DEFAULT
        return adapting[0]

    def _others(self, group: str) -> int:
        """Return the number of workers that the other groups request."""
        return len(self.worker_spec) - len(self.workers_of(group))

    def _most_workers(self) -> float:
        """Return the most workers that there will be without a further call; infinite if no group adapts."""
        adapting = {name: adaptive for name, adaptive in self._adaptives.items() if is_active(adaptive)}
        if not adapting:
            return math.inf
        fixed = sum(self.group_of(name) not in adapting for name in self.worker_spec)
        return fixed + float(sum(adaptive.maximum for adaptive in adapting.values()))

    def _is_over(self, adaptive: Any) -> bool:
        """Whether the caller is an adaptive scaling that has been stopped, but still has a call under way."""
        if adaptive is None:
            return False
        return adaptive.state == "stopped" or all(adaptive is not each for each in self._adaptives.values())


def is_active(adaptive: Adaptive) -> bool:
    """Whether this adaptive scaling adapts."""
    return adaptive.state in ("starting", "running")
