"""Looks for what a cluster has left behind: at the embedded AWS by its own account, on this computer by process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from dask_starburst.local import LocalAWS


#: Seconds that instances have to shut down at the end, and between two looks at them.
_SHUTDOWN, _PAUSE = 120.0, 0.1


class Traces:
    """Remembers what ran, to show later that it no longer does.

    Parameters
    ----------
    aws : LocalAWS
        The embedded AWS to look at.
    """

    def __init__(self, aws: LocalAWS) -> None:
        self._aws = aws
        self._seen: dict[int, psutil.Process] = {}
        self._before = self._processes_below()
        self._last: dict[str, int] | None = None
        self.most_workers = 0

    @property
    def endpoint_url(self) -> str:
        """Where the embedded AWS answers."""
        return self._aws.endpoint_url

    def look(self) -> None:
        """Remember the processes that are containers now."""
        for pid in self._aws.status().containers.values():
            if pid not in self._seen and psutil.pid_exists(pid):
                self._seen[pid] = psutil.Process(pid)

    def count_workers(self, workers: int) -> None:
        """Remember the highest number of workers."""
        self.most_workers = max(self.most_workers, workers)

    def look_for_the_last_time(self) -> None:
        """Remember what the embedded AWS still has, now that all should be gone or on its way.

        A closed cluster has no instance that is billed any more; its tasks end with those that shut down.
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
        """Whether the last look found nothing at the embedded AWS."""
        return self._last is not None and not any(self._last.values())

    @property
    def left(self) -> str:
        """What the last look found: ``"instances 0, tasks 0, desired capacity 0"``."""
        return ", ".join(f"{noun} {number}" for noun, number in (self._last or {}).items())

    def processes_left(self) -> list[int]:
        """Process ids of what is still running: containers that were seen, and children of this process."""
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
    """Multiprocessing keeps one resource tracker for as long as Python runs."""
    try:
        return any("resource_tracker" in part for part in process.cmdline())
    except psutil.Error:
        return False
