"""Group packages into layers: those that change together share one, so that a change uploads little.

The layers are stacked in this order, the most stable at the bottom. Users rarely change the large packages, so those
have layers of their own.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from hashlib import sha256

from dask_starburst.environment.capture.model import Environment
from dask_starburst.environment.resolve.lock import Lock
from packaging.utils import canonicalize_name

#: Increment when `venv_layout` changes: cached layers are then invalid.
LAYOUT = "1"
# Compressed megabytes per platform on 2026-11-23: pyarrow 52, numpy 15, pandas 11.
_LAYERS = {
    "pyarrow": ("pyarrow",),
    "accelerators": ("nvidia-*", "cuda-*", "cupy*", "torch*", "triton", "tensorflow*", "jax*", "*-cu1[0-9]"),
    "numeric": ("numpy", "pandas", "scipy", "scikit-learn", "numba", "llvmlite", "polars*", "xgboost*", "statsmodels"),
    "plots": ("bokeh", "contourpy", "fonttools", "kiwisolver", "matplotlib", "pillow", "xyzservices"),
    # Dependencies of dask_starburst, other than Dask.
    "starburst": (
        *("boto3", "botocore", "cffi", "cryptography", "jmespath", "markdown-it-py", "mdurl", "pycparser", "pygments"),
        *("python-dateutil", "rich", "s3transfer", "six"),
    ),
    # Dependencies of Dask. They are released independently, so this layer should be small.
    "dask needs": (
        *("click", "cloudpickle", "fsspec", "importlib-metadata", "jinja2", "locket", "lz4", "markupsafe", "msgpack"),
        *("packaging", "partd", "psutil", "pyyaml", "sortedcontainers", "tblib", "toolz", "tornado", "urllib3", "zict"),
        "zipp",
    ),
    # These two are released together.
    "dask": ("dask", "distributed"),
}
#: Local wheels and modules: the top layer.
OWN = "own"
#: Above this number of packages, the others are spread over more layers.
_PER_LAYER = 24
_MOST = 8


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """The packages of one layer, with a lock and an environment of only these."""

    name: str
    lock: Lock
    environment: Environment

    @property
    def key(self) -> str:
        """All inputs of the group's files, except the compiler of its Python files."""
        wheels = [(wheel.name, wheel.version, wheel.digest) for wheel in self.environment.wheels]
        modules = [(module.name, module.digest) for module in self.environment.modules]
        return f"{LAYOUT} {self.environment.python} {self.lock.platform} {self.lock.text} {wheels} {modules}"


def group_packages(lock: Lock, environment: Environment) -> tuple[LayerGroup, ...]:
    """Split the packages of a lock into groups, lowest layer first; omit empty groups.

    Parameters
    ----------
    lock : Lock
        The packages of a platform.
    environment : Environment
        Its local wheels and modules.
    """
    own: set[str] = {canonicalize_name(wheel.name) for wheel in environment.wheels}
    shared = [name for name, _ in lock.packages if canonicalize_name(name) not in own]
    others = sum(_layer(name) is None for name in shared)
    members: dict[str, set[str]] = defaultdict(set)
    for name in shared:
        members[_layer(name) or _other(name, others)].add(canonicalize_name(name))
    order = [*_LAYERS, *sorted(members.keys() - _LAYERS.keys())]
    bare = replace(environment, wheels=(), modules=())
    groups = [LayerGroup(name, select(lock, members[name]), bare) for name in order if name in members]
    if own or environment.modules:
        groups.append(LayerGroup(OWN, select(lock, own), environment))
    return tuple(groups)


def select(lock: Lock, names: set[str]) -> Lock:
    """Return the part of a lock for some packages, by their normalized names."""
    text = "".join(piece for name, piece in _pieces(lock.text) if name in names)
    return Lock(lock.platform, text, tuple(pair for pair in lock.packages if canonicalize_name(pair[0]) in names))


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """Yield each requirement of a lock with its hashes, by name."""
    joined = ""
    for line in text.splitlines(keepends=True):
        if (not joined and line.lstrip().startswith(("#", "-"))) or not line.strip():
            continue
        joined += line
        if not line.rstrip().endswith("\\"):
            found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", joined)
            if found:
                yield canonicalize_name(found[1]), joined
            joined = ""


def _layer(name: str) -> str | None:
    fits = partial(fnmatchcase, canonicalize_name(name))
    return next((layer for layer, patterns in _LAYERS.items() if any(map(fits, patterns))), None)


def _other(name: str, others: int) -> str:
    """Return the layer of a package that matches no pattern; stable while their number is about the same."""
    layers = 1
    while layers < _MOST and others > _PER_LAYER * layers:
        layers *= 2
    return f"others-{int(sha256(canonicalize_name(name).encode()).hexdigest(), 16) % layers + 1}-of-{layers}"
