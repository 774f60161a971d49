"""Lifecycle hooks of a cluster."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dask_starburst import cancellation
from dask_starburst.aws.session import AWS
from dask_starburst.errors import BadArgument
from dask_starburst.events.cluster import HookFailed
from dask_starburst.events.stream import Emit
from dask_starburst.settings import Settings

#: The hook methods, in the order of their calls.
METHODS = ("on_before_launch", "on_ready", "on_close")
#: Timeout in seconds of ``on_ready`` and ``on_close``.
PATIENCE = 60.0


@dataclass
class Launch:
    """A cluster that is about to be launched. It does not cost anything yet.

    Attributes
    ----------
    settings : Settings
        The settings. A hook may replace them by :func:`dataclasses.replace`. Changes of `arch`, `n_workers`, and the
        instance types and size of workers have no effect at this point.
    aws : AWS
        The AWS account; ``await launch.aws.call("ecr", "DescribeRepositories")``.
    simulated : bool
        Whether this is the embedded AWS.
    emit : callable
        Emits an event of the cluster: a :class:`.HookMessage`, or your own dataclass derived from
        :class:`~dask_starburst.events.event.Event`.
    image : asyncio.Future of str, optional
        The image to use instead of ``settings.image``. It is awaited after the account is set up and before the launch;
        an exception aborts the start.
    """

    settings: Settings
    aws: AWS
    simulated: bool
    emit: Emit
    image: asyncio.Future[str] | None = None


class LifecycleHook:
    """The interface of a lifecycle hook. Pass your own as ``StarburstCluster(hooks=[MyHook()])``.

    Each method may be a coroutine function, or a plain function, which runs in the cluster's event loop. A hook may
    omit methods, and need not derive from this class.
    """

    async def on_before_launch(self, launch: Launch) -> None:
        """Inspect the launch, change its settings, or abort it by raising an error."""

    async def on_ready(self, cluster: Any) -> None:
        """Run when the scheduler is connected. An error is reported as an event; the cluster continues."""

    async def on_close(self, cluster: Any) -> None:
        """Run before the cluster closes. An error is reported as an event; the cluster closes."""


class Hooks:
    """The hooks of one cluster, in order.

    Parameters
    ----------
    hooks : iterable
        Objects, classes, or their names as ``"package.module:Name"``.

    Raises
    ------
    BadArgument
        A hook cannot be imported, or has none of the methods of `LifecycleHook`.
    """

    def __init__(self, hooks: Iterable[Any]) -> None:
        self._hooks = tuple(_loaded(hook) for hook in hooks)

    async def before_launch(self, launch: Launch) -> None:
        """Run ``on_before_launch`` of all hooks; an exception aborts the launch."""
        for hook in self._hooks:
            await _call(hook, "on_before_launch", launch)

    async def ready(self, cluster: Any) -> None:
        """Run ``on_ready`` of all hooks; emit an event for each one that fails."""
        await self._run("on_ready", cluster)

    async def close(self, cluster: Any) -> None:
        """Run ``on_close`` of all hooks, as `ready` does."""
        await self._run("on_close", cluster)

    async def _run(self, method: str, cluster: Any) -> None:
        for hook in self._hooks:
            # A separate task: user code that catches its cancellation must not keep the cluster from closing.
            running = asyncio.ensure_future(_call(hook, method, cluster))
            try:
                await asyncio.wait([running], timeout=PATIENCE)
                if (why := _failure_of(running)) is not None:
                    hook_name = type(hook).__qualname__
                    failed = HookFailed(cluster=cluster.name, hook=hook_name, method=method, error=why)
                    cluster.events.emit(failed)
            finally:
                await cancellation.end([running])


def named_hooks(value: Any) -> tuple[Any, ...]:
    """Return the hooks of the setting ``hooks``: none, one, or a list."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _failure_of(running: asyncio.Future[None]) -> str | None:
    """Return why a method failed; None if it did not."""
    if not running.done():
        return f"took longer than {PATIENCE:.0f} s"
    error = asyncio.CancelledError() if running.cancelled() else running.exception()
    return None if error is None else repr(error)


async def _call(hook: Any, method: str, argument: Any) -> None:
    function = getattr(hook, method, None)
    result = function(argument) if function is not None else None
    if inspect.isawaitable(result):
        await result


def _loaded(hook: Any) -> Any:
    found = _imported(hook) if isinstance(hook, str) else hook
    made = found() if inspect.isclass(found) else found
    if not any(callable(getattr(made, method, None)) for method in METHODS):
        raise BadArgument(f"hooks={hook!r} has none of {', '.join(METHODS)}; give an object with some of them.")
    return made


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadArgument(f"hooks={name!r} cannot be found ({error}); give it as 'package.module:Name'.") from error
