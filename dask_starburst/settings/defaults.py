"""Add the default settings to Dask's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import dask.config
import yaml


def add_defaults() -> None:
    """Add the defaults to Dask's configuration, but keep the user's values of a wrong type.

    Dask would replace a value that is not a mapping by the defaults. Keep it, so that it is refused when used.
    """
    values = {"starburst": defaults()}
    written = dask.config.get("starburst", None)
    groups = {name for name, value in defaults().items() if isinstance(value, dict)}
    wrong: dict[str, Any] = {}
    if isinstance(written, Mapping):  # checked now: the next call modifies it in place
        wrong = {k: v for k, v in written.items() if k in groups and v is not None and not isinstance(v, Mapping)}
    dask.config.update_defaults(values)
    if written is not None and not isinstance(written, Mapping):
        dask.config.config["starburst"] = written
    elif wrong:
        dask.config.config["starburst"].update(wrong)


@cache
def defaults() -> dict[str, Any]:
    """Return the defaults as ``starburst.yaml`` has them."""
    text = resources.files("dask_starburst").joinpath("starburst.yaml").read_text()
    # libyaml's loader, if PyYAML has it, is ten times faster; this runs on every import of the cluster class.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loaded: dict[str, Any] = yaml.load(text, loader)["starburst"]
    return loaded
