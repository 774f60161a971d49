"""Which workers fit on which instance types, and the messages for those that do not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_starburst.catalog import price_table, regions
from dask_starburst.catalog.instance_types import InstanceType, catalogue
from dask_starburst.errors import BadArgument
from dask_starburst.plan.requests.sizing import (
    MIB,
    MOST_TYPES,
    SMALLEST_MIB,
    accelerated,
    head_type,
    memory_limit,
    task_memory,
    worker_size,
    worker_types,
)

GIB = 2**30
#: The smallest burstable types have no memory left besides the ECS agent.
TYPES = [kind for kind in catalogue().values() if kind.size != "nano"]


def chosen(arch: str = "arm64", names: tuple[str, ...] | None = None, **shape: Any) -> list[str]:
    found = worker_types(catalogue(), arch, names, shape.get("nthreads"), shape.get("limit"))
    return [t.name for t in found]


def refusal(arch: str = "arm64", names: tuple[str, ...] | None = None, **shape: Any) -> str:
    with pytest.raises(BadArgument) as caught:
        chosen(arch, names, **shape)
    return str(caught.value)


def test_the_task_fits_into_what_ecs_registers_and_the_worker_into_the_task():
    for each in TYPES:
        registered = int(0.95 * each.memory_mib)
        assert 0 < task_memory(each) < registered, each.name
        assert SMALLEST_MIB * MIB <= memory_limit(task_memory(each)) < task_memory(each) * MIB, each.name


def test_the_default_worker_of_a_type_uses_all_its_threads_and_fits():
    for each in (kind for kind in TYPES if not accelerated(kind)):
        size = worker_size((each,), None, None)
        assert (size.nthreads, size.task_cpu) == (each.vcpus, each.vcpus * 1024), each.name
        assert chosen(each.arch, (each.name,), nthreads=size.nthreads, limit=size.memory_limit) == [each.name]


@pytest.mark.parametrize("region", [*regions(), "xx-north-9"])
@pytest.mark.parametrize("arch", ["arm64", "x86_64"])
def test_default_types_have_a_price_and_are_neither_gpu_nor_burstable_types(arch: str, region: str):
    for nthreads, limit in ((None, None), (2, None), (4, 24 * GIB), (64, None)):
        types = worker_types(catalogue(), arch, None, nthreads, limit, region=region)
        assert types
        assert not [t.name for t in types if t.gpus or t.burstable or t.arch != arch]
        if region in regions():
            assert all(price_table(region).has(t) for t in types)


@pytest.mark.parametrize("name", ["t3.large", "m5.xlarge", "x1e.xlarge"])
def test_any_named_type_is_used(name: str):
    assert chosen("x86_64", (name,)) == [name]


def test_types_with_accelerators_are_rejected():
    refused = [t for t in TYPES if t.gpus or re.match(r"(inf|trn|dl|vt|f)\d", t.name)]
    assert {"g5.xlarge", "g5g.xlarge", "p4d.24xlarge", "inf2.xlarge", "f2.6xlarge"} <= {t.name for t in refused}
    for each in refused:
        with pytest.raises(BadArgument) as as_head:
            head_type(catalogue(), each.arch, each.name)
        for text in (refusal(each.arch, (each.name,)), str(as_head.value)):
            assert text.startswith(f"instance type {each.name} has ")
            assert "not supported yet" in text


def test_a_type_too_small_for_any_worker_is_rejected():
    text = refusal("arm64", ("t4g.nano",))
    assert text.startswith("a worker of the smallest size does not fit on t4g.nano, which leaves 2 threads and ")


@given(st.lists(st.sampled_from(TYPES), min_size=1, max_size=4))
def test_a_worker_of_several_types_fits_on_each(types: list[InstanceType]):
    size = worker_size(tuple(types), None, None)
    for each in types:
        assert size.task_cpu <= each.vcpus * 1024
        assert size.task_memory <= task_memory(each)


@given(st.sampled_from(["arm64", "x86_64"]), st.integers(1, 192), st.integers(1, 700))
def test_the_chosen_types_are_the_smallest_that_fit_the_worker(arch: str, nthreads: int, gib: int):
    try:
        types = worker_types(catalogue(), arch, None, nthreads, gib * GIB)
    except BadArgument:
        return
    assert len({t.name for t in types}) == len(types)
    for found in types:
        assert (found.arch, found.vcpus) == (arch, types[0].vcpus)
        assert found.vcpus >= nthreads
        assert memory_limit(task_memory(found)) >= gib * GIB


def test_the_default_type_is_a_current_graviton_or_intel():
    assert chosen("arm64")[0] == "c7g.xlarge"
    assert chosen("x86_64")[0] == "c7i.xlarge"
    assert head_type(catalogue(), "arm64", None).name == "m7g.medium"
    assert head_type(catalogue(), "x86_64", None).name == "m7i.large"


@pytest.mark.parametrize("arch", ["arm64", "x86_64"])
def test_without_a_list_at_least_ten_types_of_one_size_are_chosen(arch: str):
    types = worker_types(catalogue(), arch, None, None, None)
    assert 10 <= len(types) <= MOST_TYPES
    assert {t.vcpus for t in types} == {4}
    prices = [price_table().on_demand(t).usd_per_hour for t in types[1:]]
    assert prices == sorted(prices)


def test_more_memory_selects_another_family_rather_than_more_cores():
    assert chosen(nthreads=4, limit=12 * GIB) == ["m7g.xlarge", "m6g.xlarge", "m8g.xlarge", "r7g.xlarge", "r8g.xlarge"]
    assert chosen(nthreads=4, limit=24 * GIB) == ["r7g.xlarge", "r8g.xlarge"]


def test_the_message_for_a_too_large_worker_names_the_largest_type():
    text = refusal(limit=10_000 * GIB)
    assert re.fullmatch(
        r"no arm64 instance type holds a worker of 9\.77 TiB; the largest, r7g\.16xlarge, leaves 64 threads"
        r" and \d+\.\d\d GiB\.",
        text,
    )
    assert "1000 threads" in refusal(nthreads=1000)


def test_the_message_for_a_too_small_type_states_its_usable_size():
    text = refusal(names=("c7g.xlarge", "c7g.large"), nthreads=4, limit=4 * GIB)
    assert text.startswith("a worker of 4 threads and 4.00 GiB does not fit on c7g.large, which leaves 2 threads and ")
    assert text.endswith("give a larger instance type or a smaller worker=.")


@pytest.mark.parametrize(
    ("arch", "name", "other"), [("arm64", "c7i.xlarge", "x86_64"), ("x86_64", "c7g.large", "arm64")]
)
def test_a_type_of_the_other_architecture_is_rejected(arch: str, name: str, other: str):
    for text in (refusal(arch, (name,)), _head_refusal(arch, name)):
        assert text.startswith(f"instance type {name} is {other}, but arch={arch!r}: give arch={other!r}, or a type")


@pytest.mark.parametrize(
    ("typed", "meant"), [("c7g.xlrge", "c7g.xlarge"), ("C7g.large", "c7g.large"), ("c7gxlarge", "c7g.")]
)
def test_the_message_for_an_unknown_type_suggests_similar_names(typed: str, meant: str):
    for text in (refusal("arm64", (typed,)), _head_refusal("arm64", typed)):
        assert text.startswith(f"instance type {typed!r} is not in the catalogue of {len(catalogue())} types.")
        assert meant in text.partition("Did you mean ")[2]


def test_the_message_for_an_unrecognizable_type_has_no_suggestion():
    assert refusal("arm64", ("?",)).endswith(" types.")


def _head_refusal(arch: str, name: str) -> str:
    with pytest.raises(BadArgument) as caught:
        head_type(catalogue(), arch, name)
    return str(caught.value)
