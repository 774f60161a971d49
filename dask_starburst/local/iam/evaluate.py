"""The evaluation of policies: an explicit deny wins, then an allow, else the call is denied implicitly.

docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html. Identity-based policies, permissions
boundaries and session policies; the services here have no resource-based ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dask_starburst.local.iam.conditions import UnknownOperatorError, holds
from dask_starburst.local.iam.model import Check, Context, Decision, Document, Principal
from dask_starburst.local.iam.patterns import UnresolvedError, arn_like, like, substituted


def decide(principal: Principal, check: Check) -> Decision:
    """Answer one check for a principal."""
    context = {**check.context, **principal.context}
    decision = decide_by(principal.policies, check, context)
    for number, bound in enumerate(principal.bounds):
        limit = decide_by({f"bound {number}": bound}, check, context)
        if not limit.allowed:
            return limit
    return decision


def decide_by(policies: Mapping[str, Document], check: Check, context: Context) -> Decision:
    """Answer one check by a set of policies."""
    found = [(name, one) for name, one in _statements(policies) if applies(one, check, context)]
    denying = tuple(name for name, one in found if one["Effect"] == "Deny")
    if denying:
        return Decision(False, denying, explicit=True)
    return Decision(bool(found), tuple(name for name, _ in found))


def applies(statement: Mapping[str, Any], check: Check, context: Context) -> bool:
    """Return whether a statement is about a check: its action, its resource and its conditions match."""
    try:
        return (
            _action_matches(statement, check.action)
            and _resource_matches(statement, check.resource, context)
            and holds(statement.get("Condition", {}), context)
        )
    except UnresolvedError:
        return False
    except UnknownOperatorError:
        # IAM does not store such a policy; an unknown condition must never widen one.
        return bool(statement["Effect"] == "Deny")


def _statements(policies: Mapping[str, Document]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for policy, document in policies.items():
        for number, statement in enumerate(listed(document.get("Statement", []))):
            yield f"{policy}/{statement.get('Sid', number)}", statement


def _action_matches(statement: Mapping[str, Any], action: str) -> bool:
    if "NotAction" in statement:
        return not _any_like(listed(statement["NotAction"]), action)
    return _any_like(listed(statement.get("Action", [])), action)


def _any_like(patterns: Iterable[str], action: str) -> bool:
    return any(like(pattern, action, ignore_case=True) for pattern in patterns)


def _resource_matches(statement: Mapping[str, Any], resource: str, context: Context) -> bool:
    negated = "NotResource" in statement
    patterns = listed(statement["NotResource" if negated else "Resource"])
    return any(arn_like(substituted(pattern, context), resource) for pattern in patterns) is not negated


def listed(element: Any) -> list[Any]:
    """Return an element of a policy as a list: one value may stand alone."""
    return list(element) if isinstance(element, list | tuple) else [element]
