"""Which actions IAM has, the resources that they take and the condition keys that they know.

The data is AWS's service authorization reference, written by ``tools/iam_reference.py``. A condition on a key that an
action does not have never matches, as on AWS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from dask_starburst.local.iam.model import Check, Context

#: Keys of every call; those of the principal are in `Principal.context`.
GLOBAL_KEYS = frozenset({"aws:currenttime", "aws:requestedregion", "aws:securetransport", "aws:sourceip"})


@cache
def _services() -> Mapping[str, Any]:
    text = resources.files("dask_starburst.local.iam").joinpath("reference.json").read_text("utf-8")
    services: Mapping[str, Any] = json.loads(text)["services"]
    return services


def _types(action: str) -> Mapping[str, list[str]] | None:
    service, _, name = action.partition(":")
    types: Mapping[str, list[str]] | None = _services().get(service, {}).get("actions", {}).get(name)
    return types


def exists(action: str) -> bool:
    """Return whether IAM has an action, such as ``"ecs:RunTask"``, among those kept here."""
    return _types(action) is not None


def actions() -> frozenset[str]:
    """Return every action that is kept here."""
    return frozenset(f"{service}:{name}" for service, parts in _services().items() for name in parts["actions"])


def resource_types(action: str) -> frozenset[str]:
    """Return the types of resources that an action takes; empty if a policy can only name ``*`` for it."""
    return frozenset(_types(action) or ()) - {""}


def type_of(action: str, resource: str) -> str | None:
    """Return the type of a resource of an action; None if the action does not take such a resource."""
    for kind in resource_types(action):
        arn = _services()[action.partition(":")[0]]["resources"].get(kind)
        if arn is not None and _template(arn).fullmatch(resource):
            return kind
    return None


def condition_keys(action: str, resource: str) -> frozenset[str]:
    """Return the condition keys, in lower case, of an action on a resource; ``/*`` stands for the key of a tag."""
    types = _types(action) or {}
    kind = type_of(action, resource)
    found = [*types.get("", ()), *(types.get(kind, ()) if kind else ())]
    return frozenset(re.sub(r"\$\{\w+\}", "*", key).lower() for key in found)


def visible(check: Check) -> Context:
    """Return the context of a check without the keys that its action does not have."""
    known = condition_keys(check.action, check.resource) | GLOBAL_KEYS
    return {key: values for key, values in check.context.items() if _generic(key) in known}


def _generic(key: str) -> str:
    head, slash, _ = key.partition("/")
    return f"{head}/*" if slash else head


@cache
def _template(arn: str) -> re.Pattern[str]:
    """Return the pattern of the ARNs of one type of resource."""
    head, body = arn.split(":", 5)[:5], arn.split(":", 5)[5]
    parts = [re.sub(r"\\\$\\\{\w+\\\}", "[^:]*", re.escape(part)) for part in head]
    return re.compile(":".join([*parts, re.sub(r"\\\$\\\{\w+\\\}", ".+", re.escape(body))]))
