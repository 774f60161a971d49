"""Commands are imported when they are called, and listed without an import."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from dask_starburst.cli import main
from dask_starburst.cli.lazy import LazyGroup

GROUPS = [(), ("pool",), ("image",)]


def group_of(*words: str) -> tuple[LazyGroup, click.Context]:
    group: LazyGroup = main
    context = click.Context(main, info_name="starburst")
    for word in words:
        found = group.get_command(context, word)
        assert isinstance(found, LazyGroup)
        group, context = found, click.Context(found, parent=context, info_name=word)
    return group, context


@pytest.mark.parametrize("words", GROUPS)
def test_the_list_has_the_first_sentence_of_each_commands_help(words):
    group, context = group_of(*words)
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(main, [*words, "--help"], terminal_width=200).output
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        (line,) = [line for line in shown.splitlines() if line.startswith(f"  {name} ")]
        assert line.split(None, 1)[1] == command.get_short_help_str(200)


@pytest.mark.parametrize("words", GROUPS)
def test_a_shell_completes_the_same_commands_that_are_listed(words):
    group, context = group_of(*words)
    completion = ShellComplete(main, {}, "starburst", "_STARBURST_COMPLETE")
    offered = {item.value: item.help for item in completion.get_completions(list(words), "")}
    assert list(offered) == group.list_commands(context)
    assert all(offered.values())
    first = group.list_commands(context)[0]
    assert first in [item.value for item in completion.get_completions(list(words), first[:2])]


def test_options_are_still_completed():
    completion = ShellComplete(main, {}, "starburst", "_STARBURST_COMPLETE")
    assert [item.value for item in completion.get_completions([], "--v")] == ["--version"]
    assert "--region" in [item.value for item in completion.get_completions(["pool", "warm"], "--")]


def test_a_command_that_does_not_exist_is_refused_by_name():
    result = CliRunner().invoke(main, ["pol"])
    assert result.exit_code == 2
    assert "No such command 'pol'" in result.output


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_no_command_is_imported_to_list_them(words):
    program = f"""
import sys
from dask_starburst.cli import main
try:
    main({words!r})
finally:
    print(*sorted(name for name in sys.modules if name.startswith("dask_starburst")), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.split() == [
        "dask_starburst",
        "dask_starburst.cli",
        "dask_starburst.cli.lazy",
        "dask_starburst.errors",
    ]
