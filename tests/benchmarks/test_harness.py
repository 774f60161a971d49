"""What benchmarks share: turns, ratios, tables, the last line and the options."""

from __future__ import annotations

import json
from unittest import SkipTest

import pytest

from benchmarks.harness.arguments import parser
from benchmarks.harness.compare import alternate, median_ratio
from benchmarks.harness.report import Table, finish
from benchmarks.harness.unavailable import NOTHING, Unavailable, exits_if_unavailable, require


def test_programs_run_in_turns_and_the_warm_up_does_not_count() -> None:
    turns: list[str] = []

    def program(name: str) -> int:
        turns.append(name)
        return len(turns)

    found = alternate({"a": lambda: program("a"), "b": lambda: program("b")}, 2, warm_up=True)
    assert turns == ["a", "b", "a", "b", "a", "b"]
    assert found == {"a": [3, 5], "b": [4, 6]}


def test_a_ratio_compares_what_ran_in_the_same_turn() -> None:
    # A computer that was busy in one turn slows both: the ratio of each turn is two.
    assert median_ratio([2.0, 20.0, 4.0], [1.0, 10.0, 2.0]) == 2.0


def test_a_row_without_a_number_stays_in_its_column(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table({"job": "<6", "time": ">8.2f"})
    table.row("bag", 1.5)
    table.row("bag", "never")
    assert capsys.readouterr().out.splitlines() == ["job       time", "bag       1.50", "bag      never"]


def test_the_last_line_says_what_was_measured_and_whether_it_is_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    finish("step", simulated=False, step_ms=0.5)
    assert json.loads(capsys.readouterr().out) == {"benchmark": "step", "simulated": False, "step_ms": 0.5}


def test_a_benchmark_has_only_the_common_options_that_mean_something_to_it() -> None:
    assert vars(parser("").parse_args([])) == {"smallest": False}
    given = parser("", seeds=(0,), repeat=7).parse_args(["--seeds", "3", "4", "--smallest"])
    assert (given.seeds, given.repeat, given.smallest) == ([3, 4], 7, True)


def test_a_benchmark_that_cannot_run_here_says_why() -> None:
    with pytest.raises(SystemExit, match=f"{NOTHING} runc is not installed"), exits_if_unavailable():
        require("", "runc is not installed")


def test_pytest_skips_a_test_if_this_computer_lacks_something() -> None:
    assert issubclass(Unavailable, SkipTest)
