"""Looks for what a cluster has left behind: at the embedded AWS by its own account, on this computer by process."""

from __future__ import annotations

from typing import Any

import psutil


class Traces:
    """Remembers what ran, to show later that it no longer does.

    Parameters
    ----------
    aws : LocalAWS
        The embedded AWS, or anything with its ``endpoint_url`` and ``status()``.
    """

    def __init__(self, aws: Any) -> None:
        self._aws = aws
        self._seen: dict[int, psutil.Process] = {}
        self._before = self._processes_below()
        self._last: dict[str, int] | None = None

    @property
    def endpoint_url(self) -> str:
        """Where the embedded AWS answers."""
        url: str = self._aws.endpoint_url
        return url

    def look(self) -> None:
        """Remember the processes that are containers now."""
        for pid in self._aws.status().containers.values():
            if pid not in self._seen and psutil.pid_exists(pid):
                self._seen[pid] = psutil.Process(pid)

    def look_for_the_last_time(self) -> None:
        """Remember what the embedded AWS still has, now that all should be gone."""
        status = self._aws.status()
        self._last = {
            "instances": _count(status.instances),
            "tasks": _count(status.tasks),
            "desired capacity": _count(status.desired),
        }

    @property
    def nothing_left(self) -> bool:
        """Whether the last look found nothing at the embedded AWS."""
        return self._last is not None and not any(self._last.values())

    @property
    def left(self) -> str:
        """What the last look found: ``"0 instances, 0 tasks, 0 desired capacity"``."""
        return ", ".join(f"{number} {noun}" for noun, number in (self._last or {}).items())

    def processes_left(self) -> list[int]:
        """Process ids of what is still running: containers that were seen, and children of this process."""
        running = {pid for pid, process in self._seen.items() if _alive(process)}
        return sorted(running | (self._processes_below() - self._before))

    @staticmethod
    def _processes_below() -> set[int]:
        children = psutil.Process().children(recursive=True)
        return {child.pid for child in children if _alive(child) and not _is_pythons_own(child)}


def _count(value: Any) -> int:
    return value if isinstance(value, int) else len(value)


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
