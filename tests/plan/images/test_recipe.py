"""The hash that identifies equal images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_starburst.plan.images.recipe import Recipe, recipe_hash

BASE = f"registry.test/python@sha256:{'1' * 64}"
RECIPE = Recipe(
    python="3.12",
    platforms=("linux/amd64", "linux/arm64"),
    packages={"linux/amd64": (("dask", "1"), ("numpy", "2")), "linux/arm64": (("dask", "1"), ("numpy", "2"))},
    wheels=(("ours", "1.0", "d1"), ("other", "1.0", "d2")),
    modules=(("mine", "m1"),),
    base=BASE,
)


def test_the_hash_has_32_hex_digits_and_is_stable_across_releases():
    assert recipe_hash(RECIPE) == recipe_hash(replace(RECIPE))
    assert len(recipe_hash(RECIPE)) == 32
    assert int(recipe_hash(RECIPE), 16)


@given(
    st.permutations(RECIPE.wheels), st.permutations(RECIPE.platforms), st.permutations(RECIPE.packages["linux/amd64"])
)
def test_the_hash_does_not_depend_on_order(wheels: Any, platforms: Any, packages: Any):
    same = replace(
        RECIPE,
        wheels=tuple(wheels),
        platforms=tuple(platforms),
        packages={platform: tuple(packages) for platform in reversed(platforms)},
    )
    assert recipe_hash(same) == recipe_hash(RECIPE)


@pytest.mark.parametrize(
    "change",
    [
        {"python": "3.13"},
        {"platforms": ("linux/arm64",)},
        {"packages": {**RECIPE.packages, "linux/arm64": (("dask", "1"), ("numpy", "2.1"))}},
        {"packages": {**RECIPE.packages, "linux/arm64": (("dask", "1"),)}},
        {"wheels": (("ours", "1.0", "d3"), ("other", "1.0", "d2"))},
        {"modules": (("mine", "m2"),)},
        {"base": BASE.replace("1", "2")},
        {"compression": "gzip"},
        {"template": "other"},
    ],
    ids=lambda change: ", ".join(change),
)
def test_every_input_of_the_image_changes_the_hash(change: dict[str, Any]):
    assert recipe_hash(replace(RECIPE, **change)) != recipe_hash(RECIPE)


def test_the_same_base_from_another_registry_has_the_same_hash():
    assert recipe_hash(replace(RECIPE, base=BASE.replace("registry.test", "mirror.test"))) == recipe_hash(RECIPE)
