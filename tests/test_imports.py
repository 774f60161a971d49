"""What is imported when: whoever has us installed, or only imports us, does not pay for what is not used."""

from __future__ import annotations

import subprocess
import sys

import dask_starburst

#: Large, and needed only by a cluster that runs, by a command that is called, or by the embedded AWS.
HEAVY = {"boto3", "botocore", "cryptography", "rich", "moto", "flask", "uv", "httpx"}


def imported(program: str, *arguments: str) -> set[str]:
    """Return the modules that a Python process has imported by its end."""
    tell = "import atexit, sys; atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    command = [sys.executable, "-c", tell + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.split(".")[0] == "dask_starburst"}


def heavy(modules: set[str]) -> set[str]:
    return HEAVY & {name.split(".")[0] for name in modules}


def test_the_package_alone_imports_nothing_else():
    assert ours(imported("import dask_starburst")) == {"dask_starburst"}


def test_every_public_name_is_there_when_it_is_asked_for():
    assert {name for name in dask_starburst.__all__ if not hasattr(dask_starburst, name)} == set()
    assert set(dask_starburst.__all__) <= set(dir(dask_starburst))


def test_the_cluster_is_imported_without_boto3_and_without_anything_that_only_a_running_one_needs():
    modules = imported("from dask_starburst import StarburstCluster")
    assert not heavy(modules)
    layers = {name.split(".")[1] for name in ours(modules) if "." in name}
    assert not layers & {"aws", "cost", "environment", "views", "hooks", "demo", "cli", "local"}
    assert {name for name in ours(modules) if name.startswith("dask_starburst.fleet")} == set()


def test_dasks_own_command_line_gets_ours_for_four_small_modules():
    modules = imported("import runpy; runpy.run_module('dask', run_name='__main__')", "scheduler", "--version")
    assert "distributed.cli.dask_scheduler" in modules  # as it is for whoever types `dask`
    assert ours(modules) == {
        "dask_starburst",
        "dask_starburst.cli",
        "dask_starburst.cli.lazy",
        "dask_starburst.errors",
    }
    assert not heavy(modules)
