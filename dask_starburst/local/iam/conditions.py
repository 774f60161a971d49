"""The Condition element of policies.

docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html, and for several values
reference_policies_condition-single-vs-multi-valued-context-keys.html.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from dask_starburst.local.iam.model import Context
from dask_starburst.local.iam.patterns import arn_like, like, plain, substituted

_Test = Callable[[str, str], bool]  # of a value of the policy, and one of the request


def _number(test: Callable[[float, float], bool]) -> _Test:
    def compare(wanted: str, given: str) -> bool:
        with suppress(ValueError):
            return test(float(given), float(wanted))
        return False

    return compare


def _date(test: Callable[[datetime, datetime], bool]) -> _Test:
    def compare(wanted: str, given: str) -> bool:
        with suppress(ValueError):
            return test(_moment(given), _moment(wanted))
        return False

    return compare


def _moment(text: str) -> datetime:
    if text.replace(".", "", 1).isdigit():
        return datetime.fromtimestamp(float(text), UTC)
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _in_range(wanted: str, given: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(given) in ipaddress.ip_network(wanted, strict=False)
    return False


#: The negation of each has a "Not" in its name: StringNotEquals, NumericNotEquals, NotIpAddress.
_OPERATORS: Mapping[str, _Test] = {
    "StringEquals": lambda wanted, given: plain(wanted) == given,
    "StringEqualsIgnoreCase": lambda wanted, given: plain(wanted).casefold() == given.casefold(),
    "StringLike": like,
    "ArnEquals": arn_like,
    "ArnLike": arn_like,
    "Bool": lambda wanted, given: wanted.lower() == given.lower(),
    "BinaryEquals": lambda wanted, given: wanted == given,
    "IpAddress": _in_range,
    "NumericEquals": _number(lambda given, wanted: given == wanted),
    "NumericLessThan": _number(lambda given, wanted: given < wanted),
    "NumericLessThanEquals": _number(lambda given, wanted: given <= wanted),
    "NumericGreaterThan": _number(lambda given, wanted: given > wanted),
    "NumericGreaterThanEquals": _number(lambda given, wanted: given >= wanted),
    "DateEquals": _date(lambda given, wanted: given == wanted),
    "DateLessThan": _date(lambda given, wanted: given < wanted),
    "DateLessThanEquals": _date(lambda given, wanted: given <= wanted),
    "DateGreaterThan": _date(lambda given, wanted: given > wanted),
    "DateGreaterThanEquals": _date(lambda given, wanted: given >= wanted),
}
_ALL, _ANY = "ForAllValues:", "ForAnyValue:"


class UnknownOperatorError(ValueError):
    """A condition operator that IAM does not have."""


def holds(condition: Mapping[str, Any], context: Context) -> bool:
    """Return whether every condition of a statement holds.

    Raises
    ------
    UnknownOperatorError
        IAM has no such operator.
    UnresolvedError
        A variable in it has no value.
    """
    return all(
        _one_holds(operator, _texts(wanted, context), context.get(key.lower()))
        for operator, keys in condition.items()
        for key, wanted in keys.items()
    )


def _texts(wanted: Any, context: Context) -> list[str]:
    values = wanted if isinstance(wanted, list) else [wanted]
    return [substituted(str(value).lower() if isinstance(value, bool) else str(value), context) for value in values]


def _one_holds(operator: str, wanted: list[str], given: tuple[str, ...] | None) -> bool:
    if operator == "Null":
        return any((given is None) == (each.lower() == "true") for each in wanted)
    word = operator.removeprefix(_ALL).removeprefix(_ANY)
    name, if_exists = word.removesuffix("IfExists"), word.endswith("IfExists")
    test, negated = _test_of(name)

    def matches(value: str) -> bool:
        return any(test(each, value) for each in wanted) is not negated

    if operator.startswith(_ALL):
        return all(map(matches, given or ()))
    if given is None:
        return if_exists or (negated and not operator.startswith(_ANY))
    if operator.startswith(_ANY):
        return any(map(matches, given))
    # AWS: "do not use a key with several values without a set operator"; what then happens is not defined.
    return len(given) == 1 and matches(given[0])


def _test_of(name: str) -> tuple[_Test, bool]:
    """Return the test of an operator, and whether its result is negated."""
    if name in _OPERATORS:
        return _OPERATORS[name], False
    positive = name.replace("Not", "", 1)
    if "Not" in name and positive in _OPERATORS:
        return _OPERATORS[positive], True
    raise UnknownOperatorError(f"IAM has no condition operator {name!r}")
