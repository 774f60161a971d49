"""Translate conda's package specifications to PyPI requirements."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

#: Packages with another name on PyPI.
_NAMES = {
    "dask-core": "dask",
    "dask": "dask[complete]",
    "msgpack-python": "msgpack",
    "pytorch": "torch",
    "python-graphviz": "graphviz",
    "python-snappy": "python-snappy",
    "tensorflow-base": "tensorflow",
    "xarray-core": "xarray",
    "pyarrow-core": "pyarrow",
    "matplotlib-base": "matplotlib",
    "jupyterlab": "jupyterlab",
}
#: Packages that are not Python packages, or are part of the image.
_NOT_TAKEN = {
    "python",
    "pip",
    "setuptools",
    "wheel",
    "conda",
    "nomkl",
    "mkl",
    "blas",
    "libblas",
    "openssl",
    "cudatoolkit",
}
#: Python packages whose names start like a C library's.
_PYTHONS = {"libarchive-c", "libclang", "libcloud", "libcst", "librosa", "libsass", "libtmux", "libusb1"}
_SPEC = re.compile(r"^(?:[\w.-]+::)?(?P<name>[A-Za-z0-9][\w.-]*)\s*(?P<version>[=<>!~ ].*)?$")


def as_requirements(specs: Iterable[str]) -> tuple[str, ...]:
    """Return conda packages as PyPI requirements, without those that are not Python packages.

    Parameters
    ----------
    specs : iterable of str
        Specifications of an ``environment.yml``: ``"numpy=2.1"``, ``"conda-forge::dask >=2026.8"``.
    """
    parsed = (match for spec in specs if (match := _SPEC.match(spec.strip())))
    return tuple(
        f"{_NAMES.get(match['name'], match['name'])}{_version(match['version'] or '')}"
        for match in parsed
        if _is_pythons(match["name"])
    )


def left_out(specs: Iterable[str]) -> tuple[str, ...]:
    """Return the packages that are not Python packages, except Python and its installers."""
    names = {match["name"] for spec in specs if (match := _SPEC.match(spec.strip()))}
    return tuple(sorted(name for name in names - {"python", "pip", "setuptools", "wheel"} if not _is_pythons(name)))


def _is_pythons(name: str) -> bool:
    return name in _PYTHONS or (name not in _NOT_TAKEN and not name.startswith("lib"))


def python_of(listed: Iterable[Any]) -> str:
    """Return the Python version specifier of an environment (PEP 440); empty if it has none."""
    for each in listed:
        match = _SPEC.match(each.strip()) if isinstance(each, str) else None
        if match and match["name"] == "python":
            return _version(match["version"] or "")
    return ""


def _version(text: str) -> str:
    """Return a conda version as a PEP 440 specifier, without the build after a second ``=``."""
    text = text.strip()
    if not text:
        return ""
    if text.startswith("=") and not text.startswith("=="):  # "=2.1": any 2.1; "=2.1=py311_0": one build of it
        version, _, build = text[1:].partition("=")
        return f"=={version.strip()}" if build or version.strip().endswith("*") else f"=={version.strip()}.*"
    if text[0].isdigit():
        return f"=={text.split()[0]}"
    exact = re.match(r"^==([^=,\s]+)=", text)
    return f"=={exact[1]}" if exact else text.replace(" ", "")
