"""The tables and the plot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import plot

STAGES = ("constructor", "first worker", "ready", "more", "close", "exit")
#: Actions that every product called less often than this share a row of the table.
FEW = 4
WITH_INSTANCES = "ECSCluster, instances included"


@dataclass(frozen=True)
class Run:
    """One product's run with one seed. Seconds are simulated."""

    product: str
    seed: int
    workers: int
    more: int
    seconds: Mapping[str, float]
    calls: Mapping[str, int]
    calls_until: Mapping[str, int]
    throttled: int
    left: Mapping[str, Mapping[str, int]]
    settled_seconds: float
    waited: Mapping[str, float]  # for instances that were created outside of the product
    versions: Mapping[str, str]
    load: float  # of the computer, over five minutes

    def as_dict(self) -> dict[str, Any]:
        """Return the run as JSON values."""
        rounded = {"seconds": self.seconds, "waited": self.waited}
        short = {key: {name: round(value, 2) for name, value in values.items()} for key, values in rounded.items()}
        return {**asdict(self), **short, "settled_seconds": round(self.settled_seconds, 1), "load": round(self.load, 1)}


def times(runs: Sequence[Run]) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of every stage of every product, one for each run.

    A product with externally created instances has two rows: with the instances running already, and with their launch
    time added to every stage that needs them.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        name = f"{run.product}, instances there already" if run.waited else run.product
        _add(found, name, run.seconds)
        if run.waited:
            early = run.waited["ready"]
            extra = {"constructor": early, "first worker": early, "ready": early, "more": run.waited["more"]}
            _add(found, WITH_INSTANCES, {stage: run.seconds[stage] + extra.get(stage, 0.0) for stage in STAGES})
    return found


def polls(calls: Mapping[str, int]) -> int:
    """Return the number of calls that only read."""
    return sum(count for action, count in calls.items() if action.split(":")[1].startswith(("Describe", "List", "Get")))


def markdown(runs: Sequence[Run]) -> str:
    """Return the tables."""
    first = runs[0]
    titles = (
        "constructor",
        "first worker",
        f"{first.workers} ready",
        f"{first.more} more",
        "close",
        "exit after it",
    )
    lines = [_row("seconds, *simulated*", *titles), _row(*["---"] + ["--:"] * len(titles))]
    for name, stages in times(runs).items():
        lines.append(_row(name, *[_spread(stages[stage]) for stage in STAGES]))
    lines += ["", *_calls(runs), "", *_left(runs)]
    return "\n".join(lines)


def _calls(runs: Sequence[Run]) -> list[str]:
    by_product = _by_product(runs)
    lines = [_row("AWS calls", *by_product), _row(*["---"] + ["--:"] * len(by_product))]
    actions = {action for run in runs for action in run.calls}
    totals = {action: max(run.calls.get(action, 0) for run in runs) for action in actions}
    rare = sorted(action for action in actions if totals[action] < FEW)
    for action in sorted(actions - set(rare), key=lambda one: (-totals[one], one)):
        cells = [_count([run.calls.get(action, 0) for run in group]) for group in by_product.values()]
        lines.append(_row(f"`{action}`", *cells))
    others = [_count([sum(run.calls.get(one, 0) for one in rare) for run in g]) for g in by_product.values()]
    lines.append(_row(f"{len(rare)} other actions", *others))
    lines.append(_row("**all**", *[_count([sum(r.calls.values()) for r in g]) for g in by_product.values()]))
    lines.append(_row("until ready", *[_count([r.calls_until["ready"] for r in g]) for g in by_product.values()]))
    lines.append(_row("throttled", *[_count([r.throttled for r in g]) for g in by_product.values()]))
    return lines


def _left(runs: Sequence[Run]) -> list[str]:
    lines = [_row("left afterwards", "costs money", "free"), _row("---", "---", "---")]
    for name, group in _by_product(runs).items():
        cells = [sorted({_counts(run.left[kind]) for run in group}) for kind in ("costs", "free")]
        lines.append(_row(name, *[" or ".join(texts) for texts in cells]))
    return lines


def draw(runs: Sequence[Run], path: Path) -> None:
    """Draw times and calls side by side."""
    first = runs[0]
    title = f"{first.workers} workers, then {first.more} more, on the embedded AWS: all times are simulated"
    figure = plot.figure(11, 5.2, title)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _draw_times(left, runs)
    _draw_calls(right, runs)
    plot.save(figure, path)


COLOURS = ("#d95f02", "#1f5fa8", "#9ecae1", "#5a9bd4", "#8a8a8a")


def _draw_times(axes: Any, runs: Sequence[Run]) -> None:
    found = times(runs)
    first = runs[0]
    stages = {
        "first worker": "first worker",
        "ready": f"{first.workers} ready",
        "more": f"{first.more} more ready",
        "close": "close",
    }
    height = 0.8 / len(found)
    for number, (name, values) in enumerate(found.items()):
        widths = [median(values[stage]) for stage in stages]
        places = [row + number * height for row in range(len(stages))]
        bars = axes.barh(places, widths, height * 0.92, color=COLOURS[number % len(COLOURS)], label=name)
        axes.bar_label(
            bars, [f"{width:.0f}" if width >= 10 else f"{width:.1f}" for width in widths], padding=3, fontsize=8
        )
    middle = 0.4 - height / 2
    axes.set_yticks([row + middle for row in range(len(stages))], list(stages.values()))
    axes.invert_yaxis()
    axes.set_xlabel("seconds (simulated)")
    axes.margins(x=0.1)
    plot.legend(axes, loc="lower right")


def _draw_calls(axes: Any, runs: Sequence[Run]) -> None:
    groups = _by_product(runs)
    looked = [median(polls(run.calls) for run in group) for group in groups.values()]
    all_calls = [median(sum(run.calls.values()) for run in group) for group in groups.values()]
    did = [whole - part for whole, part in zip(all_calls, looked, strict=True)]
    axes.barh(list(groups), did, color="#3d3d3d", label="changes something")
    bars = axes.barh(list(groups), looked, left=did, color="#c4c4c4", label="reads (Describe, List, Get)")
    labels = [
        f"{whole:,.0f}" + (f" ({thrown:,.0f} throttled)" if thrown else "")
        for whole, thrown in zip(
            all_calls, [median(run.throttled for run in group) for group in groups.values()], strict=True
        )
    ]
    axes.bar_label(bars, labels, padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("AWS calls until the process has ended")
    axes.margins(x=0.35)
    plot.legend(axes, loc="lower right")


def _add(found: dict[str, dict[str, list[float]]], name: str, seconds: Mapping[str, float]) -> None:
    stages = found.setdefault(name, {stage: [] for stage in STAGES})
    for stage in STAGES:
        stages[stage].append(seconds[stage])


def _by_product(runs: Iterable[Run]) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.product, []).append(run)
    return groups


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{median(values):.1f} ({min(values):.1f}–{max(values):.1f})"


def _count(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    if high == 0:
        return ""
    return f"{low:,}" if low == high else f"{low:,}–{high:,}"


def _counts(counted: Mapping[str, int]) -> str:
    return (
        ", ".join(f"{count} {kind if count > 1 else kind.removesuffix('s')}" for kind, count in counted.items())
        or "nothing"
    )
