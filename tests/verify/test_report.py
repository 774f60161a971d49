"""Verifications: the report has nothing that identifies the account, and a cap or a failure ends no verification."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from dask_starburst.aws.session import AWS
from dask_starburst.cli import main
from dask_starburst.errors import AWSError, ImageError
from dask_starburst.local import LocalAWS
from dask_starburst.verify.model import Answer, Context, Question
from dask_starburst.verify.report import as_dict, as_lines, without_identity
from dask_starburst.verify.run import Result, verify


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("arn:aws:ecs:us-east-1:123456789012:task/pool/0a1b is stopped", "arn:aws:ecs:us-east-1:… is stopped"),
        ("arn:aws-us-gov:iam::123456789012:role/x, denied", "arn:aws-us-gov:iam::…, denied"),
        ("account 123456789012", "account <account>"),
        ("i-0123456789abcdef0 in subnet-01234567", "i-… in subnet-…"),
        ("from 10.1.2.3 with ASIAIOSFODNN7EXAMPLE", "from <address> with <key>"),
        ("MEMORY 3891 MiB after 12 s", "MEMORY 3891 MiB after 12 s"),
    ],
)
def test_what_identifies_an_account_is_removed(text: str, shown: str):
    assert without_identity(text) == shown


def question(name: str, answer: Answer | Exception, spends: float = 0.0) -> Question:
    async def ask(context: Context) -> Answer:
        context.spent += spends
        if isinstance(answer, Exception):
            raise answer
        return answer

    return Question(name, f"{name}?", "yes", ask, needs_pool=False)


def asked(aws: LocalAWS, max_cost: float, *questions: Question) -> tuple[Context, list[Result], list[str]]:
    said: list[str] = []
    context = Context(
        AWS(endpoint_url=aws.endpoint_url, session=aws.session()), {}, max_cost, said.append, simulated=True
    )
    return context, asyncio.run(verify(context, questions)), said


def test_a_question_that_fails_is_told_and_the_next_is_asked(aws: LocalAWS):
    refused = AWSError("ecs:RunTask: refused", code="X", operation="ecs:RunTask")
    context, results, _ = asked(aws, 1.0, question("a", refused), question("b", Answer(("seen",), True)))
    report = as_dict(context, results)
    assert [answer["as_assumed"] for answer in json.loads(json.dumps(report))["answers"]] == [False, True]
    lines = as_lines(report)
    assert "  seen: failed: ecs:RunTask: refused" in lines
    assert lines[-1] == "simulated cost: $0.00"


def test_no_question_is_asked_once_the_cap_is_spent(aws: LocalAWS):
    first, second = question("a", Answer((), True), spends=0.97), question("b", Answer((), True))
    _, results, _ = asked(aws, 1.0, first, second)
    assert results[1].answer == Answer(("not asked: $0.97 of $1.00 are spent",), None)


def test_what_is_missing_on_this_computer_is_no_answer_of_aws(aws: LocalAWS):
    _, results, _ = asked(aws, 1.0, question("a", ImageError("uv is not installed")))
    assert results[0].answer == Answer(("failed: uv is not installed",), None)


def test_without_a_cluster_no_question_about_its_pool_is_asked(aws: LocalAWS):
    about_pool = replace(question("b", Answer((), True)), needs_pool=True)
    _, results, _ = asked(aws, 1.0, question("a", ImageError("x")), about_pool)
    assert results[1].answer == Answer(("not asked: no cluster has started",), None)


@pytest.mark.parametrize("amount", ["nan", "inf", "0.01", "-1"])
def test_a_cap_that_is_not_an_amount_is_refused(amount: str):
    done = CliRunner().invoke(main, ["verify", "--local", "--max-cost", amount])
    assert done.exit_code == 2
    assert "--max-cost" in done.output
