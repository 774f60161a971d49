"""The bundled types are those that AWS sells."""

import pytest

from dask_starburst.catalog import catalogue, find
from dask_starburst.errors import BadArgument
from tools import make_catalog


def test_the_bundled_files_are_what_the_tool_writes():
    written = {name: (make_catalog.DATA / name).read_text(encoding="utf-8") for name in make_catalog.rendered()}
    assert written == make_catalog.rendered(), "run tools/make_catalog.py"


def test_every_type_has_the_processor_and_memory_that_ec2_describes():
    described = make_catalog.described_types()
    for kind in catalogue().values():
        there = described[kind.name]
        assert kind.vcpus == there["VCpuInfo"]["DefaultVCpus"]
        assert kind.memory_mib == there["MemoryInfo"]["SizeInMiB"]
        assert kind.arch in there["ProcessorInfo"]["SupportedArchitectures"]


def test_metal_and_burstable_types_are_left_out():
    assert not [name for name in catalogue() if "metal" in name or name.startswith("t")]


def test_graviton_families_are_arm64_and_the_others_x86():
    arm = {kind.family for kind in catalogue().values() if kind.arch == "arm64"}
    assert arm == {"c6g", "c7g", "c8g", "m6g", "m7g", "m8g", "r7g", "r8g", "c7gd", "c8gd"}


def test_no_size_of_a_family_is_missing():
    described = make_catalog.described_types()
    families = {kind.family for kind in catalogue().values()}
    all_sizes = {name for name in described if name.partition(".")[0] in families and "metal" not in name}
    assert set(catalogue()) == all_sizes


def test_a_type_is_found_by_its_name():
    kind = find("c7g.xlarge")
    assert (kind.arch, kind.vcpus, kind.memory_mib) == ("arm64", 4, 8192)
    assert (kind.family, kind.size) == ("c7g", "xlarge")


def test_a_misspelt_type_is_answered_with_close_names():
    with pytest.raises(BadArgument, match=r"'c7gxlarge' is not .* Did you mean c7g\.xlarge"):
        find("c7gxlarge")


def test_an_alien_type_is_answered_with_the_families():
    with pytest.raises(BadArgument, match="Its families are c6g, c7g"):
        find("quantum")


def test_the_catalogue_cannot_be_changed_by_its_users():
    with pytest.raises(TypeError):
        catalogue()["c7g.xlarge"] = None  # type: ignore[index]
