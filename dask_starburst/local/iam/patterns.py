"""Wildcards and variables of policies.

docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_resource.html, and beside it
reference_policies_variables.html.
"""

from __future__ import annotations

import re
from functools import lru_cache

from dask_starburst.local.iam.model import Context

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
#: Stand for the three characters that a variable can escape, until the pattern is compiled.
_LITERALS = {"*": "\ue000", "?": "\ue001", "$": "\ue002"}
_SEGMENTS = 6


class UnresolvedError(Exception):
    """A policy variable has no value in a request, so its statement does not match."""


def substituted(text: str, context: Context) -> str:
    """Replace the policy variables of a string; their values are literal.

    Raises
    ------
    UnresolvedError
        The request has no such key, and the variable no default, or the key has several values.
    """

    def value(found: re.Match[str]) -> str:
        name, _, rest = found[1].partition(",")
        if name in _LITERALS:
            return _LITERALS[name]
        values = context.get(name.strip().lower(), ())
        if len(values) == 1:
            return "".join(_LITERALS.get(char, char) for char in values[0])
        if not values and rest:
            return rest.strip().strip("'")
        raise UnresolvedError(name)

    return _VARIABLE.sub(value, text)


def like(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """Return whether a text matches a pattern with ``*`` and ``?``."""
    return _compiled(pattern, ignore_case).fullmatch(text) is not None


def plain(text: str) -> str:
    """Return a substituted string without wildcards, for operators that know none."""
    for char, literal in _LITERALS.items():
        text = text.replace(literal, char)
    return text


def arn_like(pattern: str, arn: str) -> bool:
    """Return whether an ARN matches a pattern, segment by segment; only the last one may contain colons.

    >>> arn_like("arn:aws:ecs:*:*:cluster/starburst-*", "arn:aws:ecs:us-east-1:123456789012:cluster/starburst-0a")
    True
    >>> arn_like("arn:aws:ecs:*:cluster/*", "arn:aws:ecs:us-east-1:123456789012:cluster/a")
    False
    """
    if pattern == "*":
        return True
    patterns, parts = pattern.split(":", _SEGMENTS - 1), arn.split(":", _SEGMENTS - 1)
    if len(patterns) < _SEGMENTS and patterns[-1].endswith("*"):
        parts = arn.split(":", len(patterns) - 1)
    return len(patterns) == len(parts) and all(map(like, patterns, parts))


@lru_cache(maxsize=4096)
def _compiled(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    signs = {"*": ".*", "?": "."}
    literals = {literal: re.escape(char) for char, literal in _LITERALS.items()}
    source = "".join(signs.get(char) or literals.get(char) or re.escape(char) for char in pattern)
    return re.compile(source, re.DOTALL | (re.IGNORECASE if ignore_case else 0))
