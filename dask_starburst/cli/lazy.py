"""A command group that imports a command when it is called."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """Lists all of its commands in ``--help`` and for completion, but imports only the one that is called.

    Dask imports every registered command line for each `dask` command, also for `dask scheduler` and `dask worker`.

    Parameters
    ----------
    lazy : mapping
        By command name: the import path ``"package.module:attribute"``, and the line in the list.
    """

    def __init__(self, *args: Any, lazy: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lazy = dict(lazy)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return sorted({*self.commands, *self._lazy})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, and import it if necessary."""
        if cmd_name in self._lazy and cmd_name not in self.commands:
            module, _, attribute = self._lazy[cmd_name][0].partition(":")
            self.add_command(getattr(import_module(module), attribute), cmd_name)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        click.Group(commands=self._listed()).format_commands(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the matching commands and options without importing commands."""
        found = [
            CompletionItem(name, help=command.get_short_help_str())
            for name, command in self._listed().items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def _listed(self) -> dict[str, click.Command]:
        stubs = {name: click.Command(name, help=line) for name, (_, line) in self._lazy.items()}
        return dict(sorted({**stubs, **self.commands}.items()))
