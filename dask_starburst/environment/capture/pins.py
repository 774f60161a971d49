"""Versions pinned by requirements and lock files."""

from __future__ import annotations

import re

from packaging.utils import canonicalize_name

from dask_starburst.environment.capture.model import Environment

#: One pin at the start of a line, without hashes and markers.
PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


def pins_of(environment: Environment) -> dict[str, str]:
    """Return the versions that an environment pins, by normalized name (PEP 503)."""
    text = "\n".join([*environment.requirements, *environment.constraints, environment.lock or ""])
    return {canonicalize_name(name): version for name, version in PINNED.findall(text)}
