"""Hypothesis strategies for any input of `step`, including inconsistent ones."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.state import (
    Action,
    Forget,
    Instance,
    Limits,
    Observed,
    Retire,
    RunTask,
    ScalingGroup,
    SetDesired,
    SetTypes,
    StopTask,
    Task,
    Terminate,
    Worker,
    WorkerState,
)
from tests.support.placements import ON_DEMAND, SPOT, WITH_FALLBACK

NOW = 1000.0
PLACEMENTS = (SPOT, ON_DEMAND)
TYPES = ("c7g.xlarge", "m7g.xlarge")
NAMES = tuple("abcd")
TASKS = tuple(f"task-{n}" for n in range(6))
INSTANCES = tuple(f"i-{n}" for n in range(6))
#: A time before now; many rules have a threshold at 20, 60, 120 or 180 seconds.
past = st.sampled_from([0.0, 0.5, 1.0, 19.0, 20.0, 21.0, 60.0, 61.0, 119.0, 121.0, 179.0, 181.0, 900.0]).map(
    lambda ago: NOW - ago
)


@dataclass(frozen=True)
class Situation:
    """Requested workers and an observed state that may be inconsistent."""

    workers: tuple[Worker, ...]
    observed: Observed


@st.composite
def instances(draw: st.DrawFn, name: str) -> Instance:
    arn = draw(st.sampled_from([None, f"arn:{name}", f"arn:{name}"]))
    connected = arn is not None and draw(st.booleans())
    launched = draw(past)
    return Instance(
        id=name,
        placement=draw(st.sampled_from(PLACEMENTS)),
        type="c7g.xlarge",
        arn=arn,
        connected=connected,
        seen=connected or draw(st.booleans()),
        terminating=draw(st.sampled_from([False, False, False, True])),
        launched=launched,
        idle_since=max(launched, draw(past)),
        disconnected_since=None if connected else draw(st.none() | past),
    )


places = st.sampled_from([None, "arn:elsewhere", *(f"arn:{name}" for name in INSTANCES)])


@st.composite
def tasks(draw: st.DrawFn, arn: str) -> Task:
    placed = draw(st.sampled_from([True, True, False]))
    states = ["PENDING", "RUNNING", "RUNNING", "STOPPED"] if placed else ["PROVISIONING", "STOPPED"]
    return Task(
        arn=arn,
        worker=draw(st.sampled_from([*NAMES, "unknown"])),
        launch=draw(st.integers(0, 2)),
        status=draw(st.sampled_from(states)),
        instance=draw(places),
        passing=not placed and draw(st.booleans()),
        placed=placed,
    )


@st.composite
def workers(draw: st.DrawFn, name: str) -> Worker:
    state = draw(st.sampled_from(WorkerState))
    return Worker(
        name=name,
        placement=draw(st.sampled_from(PLACEMENTS)),
        state=state,
        since=draw(past),
        requested=draw(st.sampled_from([True, True, False])),
        attempt=draw(st.integers(0, 2)),
        launch=draw(st.integers(0, 2)),
        not_before=draw(st.sampled_from([0.0, NOW - 1, NOW, NOW + 8])),
        task=draw(st.sampled_from([None, "vanished", *TASKS])),
        instance=draw(places),
        absent_since=draw(st.none() | past),
        accepted=draw(st.none() | past),
    )


actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(SetDesired, st.sampled_from(PLACEMENTS), st.integers(0, 6)),
    st.builds(SetTypes, st.sampled_from(PLACEMENTS), st.sampled_from([TYPES, TYPES[:1]])),
    st.builds(
        RunTask, st.sampled_from(NAMES), st.sampled_from(PLACEMENTS), st.integers(0, 2), st.sampled_from(INSTANCES)
    ),
    st.builds(StopTask, st.sampled_from(TASKS), st.just("no longer requested")),
    st.builds(Terminate, st.sampled_from(INSTANCES), st.sampled_from(PLACEMENTS)),
    st.builds(Retire, st.sampled_from(NAMES)),
    st.builds(Forget, st.sampled_from(NAMES)),
)


some_types = st.sampled_from([TYPES, TYPES[:1], TYPES[1:]])
refusals = st.builds(
    Refusal,
    st.sampled_from(PLACEMENTS),
    st.sampled_from(["capacity", "capacity", "quota", "fault"]),
    st.just("message of AWS"),
    past,
    st.sampled_from(["", *TYPES]),
)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Return requested workers and an observed state that may contradict each other."""
    observed = Observed(
        groups={name: ScalingGroup(name, draw(st.integers(0, 6)), draw(some_types), TYPES) for name in PLACEMENTS},
        instances={name: draw(instances(name)) for name in sorted(draw(st.sets(st.sampled_from(INSTANCES))))},
        tasks={arn: draw(tasks(arn)) for arn in sorted(draw(st.sets(st.sampled_from(TASKS))))},
        members=draw(st.frozensets(st.sampled_from(NAMES))),
        in_flight=draw(st.dictionaries(actions, past, max_size=4)),
        refusals=tuple(draw(st.lists(refusals, max_size=3))),
    )
    requested = tuple(draw(workers(name)) for name in sorted(draw(st.sets(st.sampled_from(NAMES)))))
    return Situation(requested, observed)


limits = st.builds(
    Limits,
    warm=st.sampled_from([0.0, 0.0, 30.0, 300.0]),
    spare=st.sampled_from([{}, {}, {}, {SPOT: 1}, {SPOT: 3}]),
    # Many attempts, because these tests do not cover workers that fail permanently.
    attempts=st.just(1000),
    backoff=st.just(1.0),
    starts=st.sampled_from([100, 1]),
    unplaced=st.sampled_from([400, 1, 2]),
    placements=st.sampled_from([{}, WITH_FALLBACK]),
)
