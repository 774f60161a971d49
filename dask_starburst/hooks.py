"""What happens at the turns of a cluster's life: our own part of it, and what users add."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from dask_starburst import cancellation
from dask_starburst.aws.session import AWS
from dask_starburst.errors import BadArgument
from dask_starburst.settings import Settings

#: The turns, in the order in which they come.
TURNS = ("on_before_launch", "on_ready", "on_close")
#: Seconds that one hook may take when the cluster is ready, and when it closes: nothing waits for ever.
PATIENCE = 60.0


class Tell(Protocol):
    """Emits an event of the cluster."""

    def __call__(self, kind: str, subject: str, message: str, level: int = ..., **facts: Any) -> None:
        """Say what happened; see `events.Event`."""


@dataclass
class Launch:
    """A cluster that is about to be launched. Nothing of it costs money yet.

    Attributes
    ----------
    settings : Settings
        What was asked for. A hook may put others in their place, with :func:`dataclasses.replace`; of what is known
        already (`arch`, the types and the size of the workers, `n_workers`) a change has no effect any more.
    aws : AWS
        The account; ``await launch.aws.call("ecr", "DescribeRepositories")``.
    simulated : bool
        Whether it is the embedded AWS.
    tell : callable
        ``tell(kind, subject, message, level, **facts)`` emits an event.
    image : asyncio.Future of str, optional
        The image that takes the place of ``settings.image``. It is awaited once the account is set up and before
        anything is launched; what it raises ends the start.
    """

    settings: Settings
    aws: AWS
    simulated: bool
    tell: Tell
    image: asyncio.Future[str] | None = None


class LifecycleHook:
    """What a hook may do; give those of yours as ``StarburstCluster(hooks=[MyHook()])``.

    Each method may be a coroutine function or a plain one, which runs in the cluster's event loop. A hook need not
    derive from this class, nor have all methods.
    """

    async def on_before_launch(self, launch: Launch) -> None:
        """Look at what is about to be launched, change its settings, or refuse it by raising an error."""

    async def on_ready(self, cluster: Any) -> None:
        """Hear that the scheduler answers. An error here is told as an event, and the cluster goes on."""

    async def on_close(self, cluster: Any) -> None:
        """Hear that the cluster closes, while it still stands. An error here is told as an event."""


class Hooks:
    """The hooks of one cluster, in order.

    Parameters
    ----------
    hooks : iterable
        Objects, classes, or the names of such as ``"package.module:Name"``.

    Raises
    ------
    BadArgument
        One of them cannot be found, or has none of the methods of `LifecycleHook`.
    """

    def __init__(self, hooks: Iterable[Any]) -> None:
        self._hooks = tuple(_loaded(hook) for hook in hooks)

    async def before_launch(self, launch: Launch) -> None:
        """Run all of ``on_before_launch``; what one of them raises is the answer to the launch."""
        for hook in self._hooks:
            await _call(hook, "on_before_launch", launch)

    async def ready(self, cluster: Any, failed: Callable[[str], None]) -> None:
        """Run all of ``on_ready``; `failed` is told of those that fail, and the others run."""
        await self._run("on_ready", cluster, failed)

    async def close(self, cluster: Any, failed: Callable[[str], None]) -> None:
        """Run all of ``on_close``, as `ready` does."""
        await self._run("on_close", cluster, failed)

    async def _run(self, turn: str, cluster: Any, failed: Callable[[str], None]) -> None:
        for hook in self._hooks:
            # A task of its own: code of a user that catches its cancellation must not keep a cluster from closing.
            running = asyncio.ensure_future(_call(hook, turn, cluster))
            try:
                await asyncio.wait([running], timeout=PATIENCE)
                if not running.done():
                    failed(f"{turn} of the hook {_title(hook)} failed: took longer than {PATIENCE:.0f} s")
                elif (error := _error_of(running)) is not None:
                    failed(f"{turn} of the hook {_title(hook)} failed: {error!r}")
            finally:
                await cancellation.end([running])


def named_hooks(value: Any) -> tuple[Any, ...]:
    """Return the hooks that the setting ``hooks`` names: none, one, or a list of them."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _error_of(ended: asyncio.Future[None]) -> BaseException | None:
    return asyncio.CancelledError() if ended.cancelled() else ended.exception()


async def _call(hook: Any, turn: str, argument: Any) -> None:
    method = getattr(hook, turn, None)
    result = method(argument) if method is not None else None
    if inspect.isawaitable(result):
        await result


def _loaded(hook: Any) -> Any:
    found = _imported(hook) if isinstance(hook, str) else hook
    made = found() if inspect.isclass(found) else found
    if not any(callable(getattr(made, turn, None)) for turn in TURNS):
        raise BadArgument(f"hooks={hook!r} has none of {', '.join(TURNS)}; give an object with some of them.")
    return made


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadArgument(f"hooks={name!r} cannot be found ({error}); give it as 'package.module:Name'.") from error


def _title(hook: Any) -> str:
    return type(hook).__qualname__
