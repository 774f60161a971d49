"""The bundled instance types."""

import pytest

from dask_starburst.catalog import catalogue, find
from dask_starburst.catalog.instance_types import size_units
from dask_starburst.errors import BadArgument
from tools import from_packages
from tools.offered import sold


def test_every_type_agrees_with_describe_instance_types():
    types = from_packages.moto_types()
    for kind in catalogue().values():
        there = types[kind.name]
        assert kind.vcpus == there["VCpuInfo"]["DefaultVCpus"]
        assert kind.cores == there["VCpuInfo"]["DefaultCores"]
        assert kind.memory_mib == there["MemoryInfo"]["SizeInMiB"]
        assert kind.arch in there["ProcessorInfo"]["SupportedArchitectures"]
        assert kind.network == there["NetworkInfo"]["NetworkPerformance"]
        assert kind.local_disk_gb == there.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0)
        assert kind.burstable == there["BurstablePerformanceSupported"]
        assert bool(kind.gpus) == bool(kind.gpu_name) == ("GpuInfo" in there)


def test_no_available_type_is_missing():
    assert set(catalogue()) == {name for name, about in from_packages.moto_types().items() if sold(about)}
    assert len(catalogue()) > 1000


def test_bare_metal_and_types_without_gpu_data_are_left_out():
    assert not [name for name in catalogue() if "metal" in name or name.startswith(("mac", "g4ad", "m1.", "t1."))]


def test_a_core_of_graviton_is_a_vcpu_and_one_of_intel_is_two():
    assert (find("c7g.xlarge").cores, find("c7a.xlarge").cores, find("c7i.xlarge").cores) == (4, 4, 2)


def test_a_type_is_found_by_its_name():
    kind = find("c7g.xlarge")
    assert (kind.arch, kind.vcpus, kind.memory_mib) == ("arm64", 4, 8192)
    assert (kind.family, kind.size, kind.network) == ("c7g", "xlarge", "Up to 12.5 Gigabit")
    assert (kind.gpus, kind.gpu_name, kind.local_disk_gb, kind.burstable) == (0, "", 0, False)


def test_gpus_disks_and_credits_are_known():
    gpu = find("g5.12xlarge")
    assert (gpu.gpus, gpu.gpu_name, gpu.local_disk_gb) == (4, "A10G", 3800)
    assert find("g6f.xlarge").gpus == 1, "a part of a GPU is one for whom it is given to"
    assert find("t4g.small").burstable


@pytest.mark.parametrize(
    ("name", "units"), [("t3.nano", 1 / 32), ("c7g.medium", 1 / 4), ("c7g.xlarge", 1), ("c5.9xlarge", 9), ("a.b", 0)]
)
def test_a_size_is_a_multiple_of_an_xlarge(name: str, units: float):
    assert size_units(name) == units


def test_a_misspelt_type_is_answered_with_close_names():
    with pytest.raises(BadArgument, match=r"'c7gxlarge' is not .* Did you mean c7g\.xlarge"):
        find("c7gxlarge")


def test_an_alien_type_is_answered_with_where_they_are_listed():
    with pytest.raises(BadArgument, match="`starburst prices` lists all"):
        find("quantum")


def test_the_catalogue_cannot_be_changed_by_its_users():
    with pytest.raises(TypeError):
        catalogue()["c7g.xlarge"] = None  # type: ignore[index]  # what is tested
