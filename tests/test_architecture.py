"""The shape of the package, held by reading its source: who may import whom, and how long things may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "dask_starburst"

# Each may import what stands before it.
ORDER = (
    "errors",
    "extras",
    "events",
    "cancellation",
    "paths",
    "settings",
    "catalog",
    "plan",
    "aws",
    "hooks",
    "environment",
    "fleet",
    "cost",
    "views",
    "cluster",
    "verify",
    "demo",
    "cli",
)
# Packages beside the row: each may import these, and only itself and those named below may import it.
BESIDE = {
    "runtime": {"errors", "events", "cancellation", "plan", "aws"},
    "local": {"errors", "extras", "paths", "catalog"},
}
MAY_IMPORT_LOCAL = {"local", "demo", "cli"}
# The same order inside packages, by folder or module. What is not listed comes last.
INSIDE = {
    "events": ("event", "stream"),
    "plan": ("groups", "scheduler", "images", "loop", "requests", "money"),
    "environment": ("tools", "registry", "capture", "resolve", "build", "buildx"),
    "verify": ("model", "clusters", "questions"),
    "fleet": ("tls", "pool", "capacity", "controller"),
    "fleet/capacity": ("interface", "launch", "observe", "ec2"),
    "fleet/controller": (
        "background",
        "futures",
        "explain",
        "snapshot",
        "roster",
        "narrator",
        "startup_times",
        "execute",
        "interruptions",
        "budget",
        "troubles",
        "unrunnable",
        "loop",
    ),
    "runtime": ("metadata", "plugin", "host", "worker", "scheduler"),
    "local": ("faults", "backend", "http", "moto", "iam", "containers", "services"),
    "local/iam": ("model", "patterns", "conditions", "evaluate", "reference", "principals", "requests", "calls"),
    "local/services": ("pricing", "service_quotas", "ecs", "ec2", "autoscaling", "ecr"),
}
# In these packages each module has a place of its own, so that there is no circle, not even for the type checker.
WITHOUT_CIRCLES = ("fleet/capacity", "fleet/controller")
# Neighbours in that order which may not import each other at all: they run in different processes.
STRANGERS = {"runtime/host", "runtime/worker", "runtime/scheduler"}
# One lazy line here: `cloud="local"` must not cost a user with an account the import of moto.
MAY_IMPORT_LOCAL_LAZILY = {"cluster"}
KNOWS_BOTO = {"aws", "local"}
NOT_IN_PLAN = {"boto3", "botocore", "asyncio", "logging", "time", "random"}

LONGEST_MODULE = 400
LONGEST_FUNCTION = 60


@dataclass(frozen=True)
class Import:
    """One imported module, and where the line stands."""

    path: Path
    line: int
    module: str
    lazy: bool

    @property
    def where(self) -> str:
        return f"{self.path.relative_to(PACKAGE.parent)}:{self.line}"

    @property
    def importer(self) -> str:
        return layer_of(self.path)

    @property
    def imported(self) -> str | None:
        """The layer of ours that is imported, if it is one of ours."""
        root, _, rest = self.module.partition(".")
        return rest.partition(".")[0] if root == "dask_starburst" and rest else None


def layer_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


@cache
def sources() -> list[tuple[Path, ast.Module]]:
    return [(path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(PACKAGE.rglob("*.py"))]


def imports_of(path: Path, tree: ast.Module) -> Iterator[Import]:
    top_level = {id(node) for node in _executed_on_import(tree)}
    for node in ast.walk(tree):
        lazy = id(node) not in top_level
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(path, node.lineno, name.name, lazy)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if PACKAGE.parent.joinpath(*module.split(".")).is_dir():  # `from dask_starburst import errors`
                for name in node.names:
                    yield Import(path, node.lineno, f"{module}.{name.name}", lazy)
            else:
                yield Import(path, node.lineno, module, lazy)


def _executed_on_import(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue  # a name for the type checker; nothing is imported
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from _executed_on_import(child)


@cache
def all_imports() -> list[Import]:
    return [found for path, tree in sources() for found in imports_of(path, tree)]


def is_layer(name: str | None) -> bool:
    return name is not None and (name in ORDER or name in BESIDE)


def why_forbidden(found: Import) -> str | None:
    """The sentence that says what is wrong with an import between two layers, or None."""
    importer, imported = found.importer, found.imported
    if not is_layer(imported) or imported == importer or importer.startswith("__"):
        return None
    assert imported is not None
    if imported == "local":
        if importer in MAY_IMPORT_LOCAL or (importer in MAY_IMPORT_LOCAL_LAZILY and found.lazy):
            return None
        return f"{found.where}: {importer} imports local, which only demo, cli and one lazy line of cluster may do."
    if importer in BESIDE:
        if imported in BESIDE[importer]:
            return None
        return (
            f"{found.where}: {importer} imports {imported}; it may import only {', '.join(sorted(BESIDE[importer]))}."
        )
    if imported in BESIDE:
        return f"{found.where}: {importer} imports {imported}, which runs on the other side."
    if ORDER.index(imported) > ORDER.index(importer):
        return f"{found.where}: {importer} imports {imported}, which comes after it in the order of the layers."
    return None


def parts_of(module: str) -> tuple[str, ...]:
    """``dask_starburst.plan.loop.state`` is ``("plan", "loop", "state")``."""
    return tuple(module.split(".")[1:])


def why_forbidden_inside(found: Import) -> str | None:
    """The sentence that says what is wrong with an import between two parts of a package, or None."""
    importer = (*found.path.relative_to(PACKAGE).parts[:-1], found.path.stem)
    imported = parts_of(found.module)
    if found.imported is None:
        return None
    for depth in range(1, min(len(importer), len(imported))):
        package = "/".join(importer[:depth])
        if importer[:depth] != imported[:depth] or package not in INSIDE:
            return None
        mine, other = importer[depth], imported[depth]
        if mine == other:
            continue
        order = INSIDE[package]
        place = {name: number for number, name in enumerate(order)}
        late = place.get(other, len(order)) > place.get(mine, len(order))
        if late or {f"{package}/{mine}", f"{package}/{other}"} <= STRANGERS:
            return f"{found.where}: {package}/{mine} imports {package}/{other}, which it may not."
        return None
    return None


#: Modules that may name the partition ``aws`` or its suffix, and why. The embedded AWS plays AWS; links to its
#: documentation do not count.
MAY_NAME_A_PARTITION = {
    "aws/session.py": "the endpoints of all partitions",
    "aws/ecr.py": "the registries of all partitions",
    "aws/regions.py": "an example",
    "plan/requests/policies.py": "principals that are the same in all partitions",
    "plan/requests/rights_table.py": "the same",
    "plan/requests/routes.py": "names of services, which are the same in all partitions",
    "plan/requests/volume_keys.py": "the path of a service-linked role, the same in all partitions",
    "settings/groups.py": "checkip, which is one for all",
    "settings/names.py": "an example",
}


def test_no_module_takes_the_partition_for_granted():
    fixed = {
        path.relative_to(PACKAGE).as_posix()
        for path in (*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.sh"))
        if re.search(r"arn:aws:|(?<!docs\.)\bamazonaws\.com|\.amazonaws\\\.com", path.read_text(encoding="utf-8"))
    }
    wrong = {path for path in fixed if not path.startswith("local/")} - MAY_NAME_A_PARTITION.keys()
    assert not wrong, "use the partition of the caller's ARN, and the suffix that botocore knows"


def test_every_module_has_its_place_in_the_order():
    known = {*ORDER, *BESIDE, "__init__", "__main__"}
    strangers = [
        f"{path.relative_to(PACKAGE.parent)}: {layer_of(path)} has no place in ORDER of {Path(__file__).name}."
        for path, _ in sources()
        if layer_of(path) not in known
    ]
    assert not strangers, "\n".join(strangers)


def test_imports_go_one_way():
    wrong = [sentence for found in all_imports() if (sentence := why_forbidden(found))]
    assert not wrong, "\n".join(wrong)


def test_imports_inside_packages_go_one_way():
    wrong = [sentence for found in all_imports() if (sentence := why_forbidden_inside(found))]
    assert not wrong, "\n".join(wrong)


def test_every_folder_of_a_package_has_its_place_in_the_order():
    wrong = [
        f"{package}/{folder.name} has no place in INSIDE of {Path(__file__).name}."
        for package, order in INSIDE.items()
        for folder in (PACKAGE / package).iterdir()
        if (folder / "__init__.py").exists() and folder.name not in order
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", WITHOUT_CIRCLES)
def test_every_module_has_its_place_where_circles_are_forbidden(package):
    modules = {path.stem for path in (PACKAGE / package).glob("*.py")} - {"__init__"}
    assert modules == set(INSIDE[package])


def test_the_controller_knows_only_the_interface_to_a_platform():
    """Of `aws` it knows what errors mean; it makes no call, so that another platform or the simulator can stand in."""
    allowed = {
        "fleet.capacity": {"interface"},
        "fleet.pool": {"lease"},
        "aws": {"faults", "patience"},
    }
    wrong = [
        f"{found.where}: the controller imports {found.module}."
        for found in all_imports()
        if found.path.parent == PACKAGE / "fleet/controller"
        for package, modules in allowed.items()
        if found.module.startswith(f"dask_starburst.{package}.")
        if parts_of(found.module)[package.count(".") + 1] not in modules
    ]
    assert not wrong, "\n".join(wrong)


def test_only_aws_and_local_know_boto3():
    wrong = [
        f"{found.where}: {found.importer} imports {found.module}; only {' and '.join(sorted(KNOWS_BOTO))} may."
        for found in all_imports()
        if found.module.partition(".")[0] in {"boto3", "botocore"} and found.importer not in KNOWS_BOTO
    ]
    assert not wrong, "\n".join(wrong)


def test_a_plan_has_no_clock_no_chance_and_no_side_effect():
    wrong = [
        f"{found.where}: plan imports {found.module}; a plan is a pure function of what it is given."
        for found in all_imports()
        if found.importer == "plan" and found.module.partition(".")[0] in NOT_IN_PLAN
    ]
    assert not wrong, "\n".join(wrong)


def test_the_package_imports_no_benchmarks_and_benchmarks_import_no_tests():
    benchmarks = sorted((PACKAGE.parent / "benchmarks").rglob("*.py"))
    imports = [found for path in benchmarks for found in imports_of(path, ast.parse(path.read_text(encoding="utf-8")))]
    wrong = [
        f"{found.where}: imports {found.module}; what both need stands in benchmarks/harness/."
        for found in imports
        if found.module.partition(".")[0] in {"tests", "pytest"}
    ]
    wrong += [
        f"{found.where}: the package imports {found.module}."
        for found in all_imports()
        if found.module.partition(".")[0] in {"benchmarks", "tests"}
    ]
    assert imports
    assert not wrong, "\n".join(wrong)


def test_nothing_waits_with_wait_for():
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{line}: asyncio.wait_for discards a cancellation on Python 3.11 when what"
        " it waits for is done; use `async with asyncio.timeout(...)`."
        for path, tree in sources()
        for line in waits_for(tree)
    ]
    assert not wrong, "\n".join(wrong)


def waits_for(tree: ast.Module) -> Iterator[int]:
    """Lines that name ``asyncio.wait_for``, however it is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("asyncio"):
            if "wait_for" in {name.name for name in node.names}:
                yield node.lineno
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("asyncio.wait_for", "asyncio.tasks.wait_for"):
            yield node.lineno


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("import asyncio\nasync def f(x):\n    await asyncio.wait_for(x, 1)", [3]),
        ("from asyncio import wait_for", [1]),
        ("import asyncio\nasync def f(x):\n    await asyncio.Condition().wait_for(x)", []),
    ],
)
def test_the_rule_about_wait_for_finds_it(code, lines):
    assert list(waits_for(ast.parse(code))) == lines


def test_no_module_is_too_long():
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{lines}: the module has {lines} lines, {LONGEST_MODULE} is the most."
        for path, _ in sources()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_MODULE
    ]
    assert not wrong, "\n".join(wrong)


def test_no_function_is_too_long():
    wrong = [
        f"{path.relative_to(PACKAGE.parent)}:{node.lineno}: {node.name} has {lines} lines without its docstring, "
        f"{LONGEST_FUNCTION} is the most."
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := length_of(node)) > LONGEST_FUNCTION
    ]
    assert not wrong, "\n".join(wrong)


def length_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end; the docstring is not held against the function."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


@pytest.mark.parametrize(
    ("file", "code", "forbidden"),
    [
        ("plan/loop/shape.py", "from dask_starburst.catalog import prices", False),
        ("catalog/prices.py", "from dask_starburst.plan.loop.shape import Shape", True),
        ("catalog/prices.py", "from dask_starburst import errors", False),
        ("cluster/starburst.py", "from dask_starburst.local import LocalAWS", True),
        ("cluster/cloud.py", "def start():\n    from dask_starburst.local import LocalAWS", False),
        ("cluster/cloud.py", "if TYPE_CHECKING:\n    from dask_starburst.local import LocalAWS", False),
        ("fleet/session.py", "if TYPE_CHECKING:\n    from dask_starburst.local import LocalAWS", True),
        ("fleet/session.py", "def start():\n    from dask_starburst.local import LocalAWS", True),
        ("local/backend/engine.py", "from dask_starburst.aws import ecs", True),
        ("runtime/host/reaper.py", "from dask_starburst.fleet.pool import lease", True),
        ("fleet/session.py", "import dask_starburst.runtime.host.reaper", True),
    ],
)
def test_the_rule_itself_tells_right_from_wrong(file, code, forbidden):
    (found,) = imports_of(PACKAGE / file, ast.parse(code))
    assert (why_forbidden(found) is not None) is forbidden


@pytest.mark.parametrize(
    ("file", "code", "forbidden"),
    [
        ("plan/money/quote.py", "from dask_starburst.plan.loop.state import HEAD", False),
        ("plan/loop/state.py", "from dask_starburst.plan.money.quote import Quote", True),
        ("plan/loop/state.py", "from dask_starburst.plan.loop import worker", False),
        ("plan/loop/state.py", "from dask_starburst.plan import money", True),
        ("fleet/session.py", "from dask_starburst.fleet.controller.loop import Controller", False),
        ("fleet/controller/loop.py", "from dask_starburst.fleet.controller.roster import Roster", False),
        ("fleet/controller/budget.py", "from dask_starburst.fleet.controller import loop", True),
        (
            "fleet/controller/budget.py",
            "if TYPE_CHECKING:\n    from dask_starburst.fleet.controller.loop import Controller",
            True,
        ),
        ("fleet/controller/loop.py", "from dask_starburst.fleet.session import Session", True),
        ("runtime/scheduler/demand.py", "from dask_starburst.runtime.worker import notices", True),
        (
            "local/services/ec2/instance_lifecycle.py",
            "from dask_starburst.local.services.autoscaling import groups",
            True,
        ),
        ("local/server.py", "from dask_starburst.local.services.autoscaling import groups", False),
    ],
)
def test_the_rule_inside_packages_tells_right_from_wrong(file, code, forbidden):
    (found,) = imports_of(PACKAGE / file, ast.parse(code))
    assert (why_forbidden_inside(found) is not None) is forbidden
