"""The awslogs driver: ships container output to CloudWatch Logs."""

from __future__ import annotations

import threading
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from moto.logs.models import logs_backends

from dask_starburst.local.backend.backend import ACCOUNT
from dask_starburst.local.backend.state import Container, Task

_DAY = 86_400
Stream = tuple[str, str, str]  # region, group, stream


class LogShipper:
    """Buffers lines from many threads, and ships them on request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[Stream, list[dict[str, Any]]] = defaultdict(list)
        self._writing: set[Stream] = set()

    def open(self, stream: Stream, now: float) -> bool:
        """Create a log stream. Return False if its group does not exist. `now` is the virtual time in seconds."""
        region, group, name = stream
        groups = logs_backends[ACCOUNT][region].groups
        if group not in groups:
            return False
        self._expire(region, groups[group], now)
        if name not in groups[group].streams:
            groups[group].create_log_stream(name)
            groups[group].streams[name].creation_time = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
        self._writing.add(stream)
        return True

    def close(self, stream: Stream) -> None:
        """Mark a stream as complete, so that it can expire."""
        self._writing.discard(stream)

    def append(self, stream: Stream, when: float, line: str) -> None:
        """Buffer one line with its virtual time in seconds. Thread-safe."""
        if line:  # CloudWatch Logs does not accept empty events
            with self._lock:
                self._lines[stream].append({"timestamp": int(when * 1000), "message": line})

    def ship(self) -> None:
        """Deliver all buffered lines."""
        with self._lock:
            taken, self._lines = self._lines, defaultdict(list)
        for (region, group, name), events in taken.items():
            found = logs_backends[ACCOUNT][region].groups.get(group)
            if found is not None and name in found.streams:
                # Not through PutLogEvents: it refuses timestamps of a clock that runs ahead.
                found.streams[name].put_log_events(events)

    def _expire(self, region: str, group: Any, now: float) -> None:
        """Remove events older than the retention of a log group, which moto does not do.

        AWS keeps empty streams; here they are deleted once they are complete.
        """
        if not group.retention_in_days:
            return
        oldest = now - _DAY * float(group.retention_in_days)
        for name, stream in list(group.streams.items()):
            if stream.events and stream.events[0].timestamp < 1000 * oldest:
                stream.events = [event for event in stream.events if event.timestamp >= 1000 * oldest]
            created = stream.creation_time.replace(tzinfo=UTC).timestamp()
            if not stream.events and created < oldest and (region, group.name, name) not in self._writing:
                del group.streams[name]


def log_stream(task: Task, container: Container) -> Stream | None:
    """Return the log stream of a container: ``prefix/container/task`` of its log group."""
    logging: dict[str, Any] | None = container.definition.get("logConfiguration")
    if logging is None:
        return None
    options = logging["options"]
    prefix = options.get("awslogs-stream-prefix")
    name = f"{prefix}/{container.name}/{task.id}" if prefix else container.arn.rsplit("/", 1)[-1]
    return options["awslogs-region"], options["awslogs-group"], name
