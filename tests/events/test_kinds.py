"""Each kind of event has a name, a level, a subject and a sentence, and is in the documentation."""

from __future__ import annotations

import inspect
import json
import logging
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from dask_starburst import events
from dask_starburst.events import Event, HookMessage
from dask_starburst.events.event import HEAD, SCHEDULER
from dask_starburst.plan.groups import HEAD_PLACEMENT
from dask_starburst.plan.loop import state
from tests.events.samples import SAMPLES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "events.md"
CLASSES = [
    value
    for name in events.__all__
    if inspect.isclass(value := getattr(events, name)) and issubclass(value, Event) and not inspect.isabstract(value)
]


@pytest.mark.parametrize(("event", "level", "message"), SAMPLES, ids=lambda value: getattr(value, "kind", ""))
def test_an_event_has_a_level_and_a_sentence(event: Event, level: int, message: str):
    assert (event.message, event.level) == (message, level)
    assert str(event) == f"00:00:00 {message}"
    assert re.fullmatch(r"[a-z]+(-[a-z]+)+", event.kind)
    assert event.subject in [getattr(event, each.name) for each in fields(event)]


@pytest.mark.parametrize("event", [event for event, _, _ in SAMPLES], ids=lambda event: event.kind)
def test_an_event_can_be_written_as_json_and_read_again(event: Event):
    written = json.dumps({"time": event.time, **event.facts})
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(written).items()}
    made: Any = type(event)
    assert made(**values) == event


def test_events_with_the_same_values_are_equal_and_cannot_be_changed():
    one, same, other = (events.InstanceTerminated(time=at, instance="i-1") for at in (1.0, 1.0, 2.0))
    assert one == same
    assert len({one, same, other}) == 2
    with pytest.raises(AttributeError):
        one.instance = "i-2"  # type: ignore[misc]  # this is what it refuses


def test_every_kind_has_a_sample_and_a_name_of_its_own():
    sampled = {type(event) for event, _, _ in SAMPLES}
    assert sampled == set(CLASSES)
    kinds = [each.kind for each in CLASSES if each is not HookMessage]
    assert len(set(kinds)) == len(kinds)


def test_every_class_of_an_event_is_exported():
    base: Any = Event
    found = {each for each in subclasses(base) if each.__module__.startswith("dask_starburst.")}
    assert {each.__name__ for each in found if not inspect.isabstract(each)} == {each.__name__ for each in CLASSES}


def test_the_scheduler_and_its_placement_have_the_names_of_the_plan():
    assert (str(HEAD_PLACEMENT), state.SCHEDULER) == (HEAD, SCHEDULER)


def test_a_user_can_define_events_and_match_them():
    match HookMessage(kind="my-kind", subject="it", text="It happened."):
        case HookMessage(kind="my-kind", text=text):
            assert text == "It happened."
        case _:
            pytest.fail("it is a HookMessage")


def test_the_reference_page_lists_every_kind():
    """If this fails, copy the expected lines to the page."""
    _, _, table = PAGE.read_text(encoding="utf-8").partition("\n## Kinds\n")
    shown = [line for line in table.splitlines() if line.startswith("| `")]
    assert shown == [row(each) for each in sorted(CLASSES, key=kind_of)]


def kind_of(each: type[Event]) -> str:
    return "" if each is HookMessage else str(each.kind)


def row(each: type[Event]) -> str:
    levels = {level for event, level, _ in SAMPLES if type(event) is each}
    named = " or ".join(logging.getLevelName(level) for level in sorted(levels))
    values = ", ".join(f"`{field.name}`" for field in fields(each) if field.name != "time")
    what = (inspect.getdoc(each) or "").splitlines()[0].replace("``", "`")
    return f"| `{kind_of(each) or 'your own'}` | `{each.__name__}` | {named} | {values} | {what} |"


def subclasses(base: type[Event]) -> list[type[Event]]:
    return [each for child in base.__subclasses__() for each in (child, *subclasses(child))]
