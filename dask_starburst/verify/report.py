"""The report of a verification, without what identifies the account."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from dask_starburst.verify.model import Context
from dask_starburst.verify.run import Result

#: Account numbers, access keys, ids of resources, addresses: replaced in every line.
_IDENTIFYING = (
    (re.compile(r"\b\d{12}\b"), "<account>"),
    (re.compile(r"\b(?:AKIA|ASIA|AROA|AIDA)[A-Z0-9]{12,}\b"), "<key>"),
    (re.compile(r"\b(i|sg|subnet|vpc|lt|ami|eni)-[0-9a-f]{8,17}\b"), r"\1-…"),
    (re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b"), "<address>"),
    (re.compile(r"(arn:[\w-]+:[\w-]+:[\w-]*:)[^\s,;]*"), r"\1…"),
)
_MARKS = {True: "as assumed", False: "NOT as assumed", None: "not known"}


def without_identity(text: str) -> str:
    """Return a text without account numbers, keys, ids and addresses."""
    for pattern, instead in _IDENTIFYING:
        text = pattern.sub(instead, text)
    return text


def as_dict(context: Context, results: Sequence[Result]) -> dict[str, Any]:
    """Return the report as JSON values."""
    return {
        "dask_starburst": version("dask-starburst"),
        "region": context.aws.region,
        "simulated": context.simulated,
        "cost_usd": round(context.spent, 4),
        "answers": [
            {
                "name": result.question.name,
                "question": result.question.title,
                "assumed": result.question.assumed,
                "seen": [without_identity(line) for line in result.answer.seen],
                "as_assumed": result.answer.agrees,
            }
            for result in results
        ],
    }


def as_lines(report: dict[str, Any]) -> list[str]:
    """Return the report as lines of text."""
    lines = []
    for answer in report["answers"]:
        lines += [f"{answer['name']}: {_MARKS[answer['as_assumed']]}", f"  {answer['question']}"]
        lines += [f"  assumed: {answer['assumed']}", *(f"  seen: {line}" for line in answer["seen"])]
    what = "simulated cost" if report["simulated"] else "cost"
    return [*lines, f"{what}: ${report['cost_usd']:.2f}"]
