"""A job in virtual time, whose tasks run on the workers of the simulator."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dask_starburst.plan.loop.state import Name


@dataclass
class Job:
    """Tasks, which workers run one after another.

    Parameters
    ----------
    tasks : int
        How many.
    held : bool
        Whether results are held by the worker; otherwise they are gathered.
    seconds : float
        Of one task.
    """

    tasks: int
    held: bool
    seconds: float
    running: dict[Name, float] = field(default_factory=dict)
    results: Counter[Name] = field(default_factory=Counter)
    gathered: int = 0
    lost: int = 0
    cut_short: int = 0

    @property
    def waiting(self) -> int:
        """The number of tasks that do not run."""
        return self.tasks - self.gathered - self.results.total() - len(self.running)

    @property
    def over(self) -> bool:
        """Whether there is a result of every task."""
        return self.gathered + self.results.total() >= self.tasks

    def work(self, workers: set[Name], leaving: set[Name], passed: float) -> None:
        """Advance the running tasks by the seconds that have passed."""
        for gone in (set(self.running) | set(self.results)) - workers:
            self.lose(gone)
        for name in sorted(workers, key=str):
            if name in self.running:
                self.running[name] -= passed
                if self.running[name] <= 0:
                    del self.running[name]
                    self.results[name] += self.held
                    self.gathered += not self.held
            if name not in self.running and name not in leaving and self.waiting > 0:
                self.running[name] = self.seconds

    def lose(self, name: Name) -> None:
        """Remove a worker with its task and results."""
        self.cut_short += self.running.pop(name, None) is not None
        self.lost += self.results.pop(name, 0)

    def move(self, name: Name, to: list[Name], most: int) -> None:
        """Move results away from a worker, evenly."""
        for _ in range(min(most, self.results[name]) if to else 0):
            self.results[name] -= 1
            self.results[min(to, key=lambda other: self.results[other])] += 1
