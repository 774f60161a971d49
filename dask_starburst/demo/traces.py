"""Check that a cluster has left nothing behind: neither in the embedded AWS nor as processes on this computer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from dask_starburst.local import LocalAWS


#: Seconds to wait for the instances to shut down, and between two polls.
_SHUTDOWN, _PAUSE = 120.0, 0.1


class Traces:
    """Records what ran, to check later that it has ended.

    Parameters
    ----------
    aws : LocalAWS
        The embedded AWS.
    """

    def __init__(self, aws: LocalAWS) -> None:
        self._aws = aws
        self._seen: dict[int, psutil.Process] = {}
        self._before = self._processes_below()
        self._last: dict[str, int] | None = None
        self.most_workers = 0

    @property
    def endpoint_url(self) -> str:
        """The endpoint of the embedded AWS."""
        return self._aws.endpoint_url

    def record(self) -> None:
        """Record the processes of the running containers."""
        for pid in self._aws.status().containers.values():
            if pid not in self._seen and psutil.pid_exists(pid):
                self._seen[pid] = psutil.Process(pid)

    def count_workers(self, workers: int) -> None:
        """Record the highest number of workers."""
        self.most_workers = max(self.most_workers, workers)

    def record_leftovers(self) -> None:
        """Wait for the instances to shut down, and record what the embedded AWS still has.

        A closed cluster has no billed instance; its tasks end when the instances have shut down.
        """
        deadline = time.monotonic() + _SHUTDOWN
        while True:
            status = self._aws.status()
            self._last = {
                "instances": status.instances_running + status.instances_pending,
                "tasks": status.tasks_running,
                "desired capacity": status.desired,
            }
            if not (status.tasks_running or self._containers_left()) or time.monotonic() > deadline:
                return
            time.sleep(_PAUSE)

    @property
    def nothing_left(self) -> bool:
        """Whether the embedded AWS had nothing left at the end."""
        return self._last is not None and not any(self._last.values())

    @property
    def left(self) -> str:
        """What was left at the end: ``"instances 0, tasks 0, desired capacity 0"``."""
        return ", ".join(f"{noun} {number}" for noun, number in (self._last or {}).items())

    def processes_left(self) -> list[int]:
        """Return the ids of running processes: recorded containers, and new children of this process."""
        return sorted(self._containers_left() | (self._processes_below() - self._before))

    def _containers_left(self) -> set[int]:
        return {pid for pid, process in self._seen.items() if _alive(process)}

    @staticmethod
    def _processes_below() -> set[int]:
        children = psutil.Process().children(recursive=True)
        return {child.pid for child in children if _alive(child) and not _is_pythons_own(child)}


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_pythons_own(process: psutil.Process) -> bool:
    """Return whether this is multiprocessing's resource tracker, which lives as long as Python."""
    try:
        return any("resource_tracker" in part for part in process.cmdline())
    except psutil.Error:
        return False
