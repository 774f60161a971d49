"""A question to an account, its answer, and what it is asked with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dask_starburst.aws.session import AWS


@dataclass(frozen=True, slots=True)
class Answer:
    """What AWS answered.

    Attributes
    ----------
    seen : tuple of str
        What was seen, one fact a line.
    agrees : bool or None
        Whether it agrees with what dask_starburst assumes; None if it could not be asked.
    """

    seen: tuple[str, ...]
    agrees: bool | None


@dataclass(frozen=True, slots=True)
class Question:
    """A question, and what dask_starburst assumes.

    Attributes
    ----------
    name : str
        Its name in the report.
    title : str
        The question in words.
    assumed : str
        The answer that dask_starburst assumes.
    ask : callable
        Asks it.
    needs_pool : bool
        Whether it is about the pool of an earlier question, and cannot be asked without.
    """

    name: str
    title: str
    assumed: str
    ask: Callable[[Context], Awaitable[Answer]]
    needs_pool: bool = True


@dataclass
class Context:
    """What questions are asked with, and what they have cost so far.

    Attributes
    ----------
    aws : AWS
        The account.
    where : mapping
        The arguments of `StarburstCluster` that select the account: ``region``, ``profile``,
        ``cloud``, ``endpoint_url``.
    max_cost : float
        The most that all questions together may cost (US dollars).
    say : callable
        Receives progress messages.
    spent : float
        The cost of the clusters so far (US dollars).
    pool, pools : str and set of str
        The pool of the latest cluster, empty before the first; and all of them.
    simulated : bool
        Whether the instances were those of the embedded AWS, which cost nothing.
    """

    aws: AWS
    where: Mapping[str, Any]
    max_cost: float
    say: Callable[[str], None]
    spent: float = 0.0
    pool: str = ""
    pools: set[str] = field(default_factory=set)
    simulated: bool = False

    @property
    def left(self) -> float:
        """What may still be spent (US dollars)."""
        return max(0.0, self.max_cost - self.spent)
