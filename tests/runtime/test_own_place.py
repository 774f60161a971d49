"""A container of a batch finds its worker by its instance."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from dask_starburst.plan.requests.tasks import Place
from dask_starburst.runtime.__main__ import own_place

BATCH = json.dumps([asdict(Place(f"i-{n}", f"c{n}", f"w{n}", 0, 2**30 * (n + 1))) for n in range(3)])


def test_each_instance_has_a_worker_with_a_name_and_memory_of_its_own():
    own = [own_place(BATCH, f"i-{n}".lower) for n in range(3)]
    assert [(p.worker, p.memory_limit) for p in own] == [("w0", 2**30), ("w1", 2**31), ("w2", 3 * 2**30)]


def test_a_container_on_an_instance_that_the_batch_does_not_name_ends_with_a_sentence():
    with pytest.raises(SystemExit, match="names i-0, i-1, i-2, but this is i-9"):
        own_place(BATCH, lambda: "i-9")


def test_a_container_that_was_started_alone_does_not_look_up_its_instance():
    alone = json.dumps(json.loads(BATCH)[:1])
    assert own_place(alone, lambda: pytest.fail("looked up")).worker == "w0"
