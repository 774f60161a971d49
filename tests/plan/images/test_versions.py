"""Versions that must match, and the error if they do not."""

from __future__ import annotations

import pytest

from dask_starburst.plan.images.versions import MUST_MATCH, explain, mismatches

HERE = {
    "python": "3.12.3.final.0",
    "dask": "2026.8.0",
    "distributed": "2026.8.0",
    "msgpack": "1.2.4",
    "cloudpickle": "3.1.2",
    "lz4": None,
    "numpy": "2.4.6",
}


def test_only_packages_of_dasks_protocol_must_match():
    assert mismatches(HERE, HERE | {"numpy": "1.26.4", "toolz": "0.12"}) == ()


def test_a_patch_release_of_python_does_not_matter():
    assert mismatches(HERE, HERE | {"python": "3.12.11.final.0"}) == ()


@pytest.mark.parametrize("package", MUST_MATCH)
def test_each_mismatch_is_reported_with_both_versions(package: str):
    there = HERE | {package: "3.11.9.final.0" if package == "python" else "1.0.0"}
    (found,) = mismatches(HERE, there)
    assert found.package == package
    assert (found.there or "") in str(found)


def test_a_missing_package_is_a_mismatch():
    (found,) = mismatches(HERE, HERE | {"lz4": "4.4.4"})
    assert str(found) == "lz4 missing here, 4.4.4 there"


def test_the_error_contains_the_command_to_run():
    found = mismatches(HERE, HERE | {"distributed": "2026.7.0", "dask": "2026.7.0"})
    said = explain(found, "the image team/dask:1", built=False)
    assert "pip install dask==2026.7.0 distributed==2026.7.0" in said
    assert "the image team/dask:1 is incompatible with this client" in said
    assert "leave out image=" in said


def test_the_error_for_another_python_names_the_version_to_use():
    found = mismatches(HERE, HERE | {"python": "3.11.9.final.0"})
    said = explain(found, "the image team/dask:1", built=False)
    assert "use Python 3.11" in said
    assert "pip install python" not in said
