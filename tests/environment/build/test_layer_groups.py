"""Grouping of packages into layers."""

from __future__ import annotations

from pathlib import Path

from dask_starburst.environment.capture.model import Environment, LocalWheel, OwnModule
from dask_starburst.environment.build.layer_groups import OWN, LayerGroup, group_packages
from dask_starburst.environment.resolve.lock import Lock


def lock_of(*packages: str) -> Lock:
    pairs = tuple(sorted((p, "1.0") for p in packages))
    text = "".join(f"{name}=={version} \\\n    --hash=sha256:{name}\n" for name, version in pairs)
    return Lock("linux/arm64", text, pairs)


def environment_of(wheels: tuple[LocalWheel, ...] = (), modules: tuple[OwnModule, ...] = ()) -> Environment:
    return Environment("3.11", (), (), wheels=wheels, modules=modules)


def names_in(groups: tuple[LayerGroup, ...]) -> dict[str, list[str]]:
    return {group.name: [name for name, _ in group.lock.packages] for group in groups}


def test_stable_layers_are_at_the_bottom():
    wheel = LocalWheel("mine", "1.0", Path("mine.whl"), "d", True, "editable")
    lock = lock_of("toolz", "dask", "mine", "pyarrow", "numpy", "pandas", "botocore", "humanize")
    found = names_in(group_packages(lock, environment_of((wheel,))))
    assert list(found) == ["pyarrow", "numeric", "starburst", "dask needs", "dask", "others-1-of-1", OWN]
    assert found["numeric"] == ["numpy", "pandas"]
    assert found[OWN] == ["mine"]


def test_each_package_is_in_one_group_with_its_own_hashes():
    lock = lock_of("dask", "pyarrow", "humanize", "Under_Score", *(f"package-{n}" for n in range(100)))
    groups = group_packages(lock, environment_of())
    assert sorted(pair for group in groups for pair in group.lock.packages) == sorted(lock.packages)
    for group in groups:
        hashes = [line.split(":")[1] for line in group.lock.text.splitlines() if "--hash" in line]
        assert hashes == [name for name, _ in group.lock.packages]


def test_a_new_version_of_a_package_changes_only_the_key_of_its_group():
    lock = lock_of("dask", "pyarrow", "humanize")
    other = Lock(lock.platform, lock.text.replace("humanize==1.0", "humanize==2.0"), lock.packages)
    before, after = (group_packages(each, environment_of()) for each in (lock, other))
    changed = [one.name for one, two in zip(before, after, strict=True) if one.key != two.key]
    assert changed == ["others-1-of-1"]


def test_dask_and_its_dependencies_change_independently():
    lock = lock_of("dask", "distributed", "toolz", "tornado")
    before = {group.name: group.key for group in group_packages(lock, environment_of())}
    for changed, layer in (("toolz", "dask needs"), ("distributed", "dask")):
        other = Lock(lock.platform, lock.text.replace(f"{changed}==1.0", f"{changed}==2.0"), lock.packages)
        after = {group.name: group.key for group in group_packages(other, environment_of())}
        assert [name for name in before if before[name] != after[name]] == [layer]


def test_adding_a_package_to_many_changes_only_some_layers():
    many = [f"package-{n}" for n in range(60)]
    before, after = (group_packages(lock_of(*names), environment_of()) for names in (many, [*many, "one-more"]))
    assert len(before) == len(after) == 4
    assert sum(one.key != two.key for one, two in zip(before, after, strict=True)) == 1


def test_own_modules_get_a_top_layer_without_packages():
    module = OwnModule("helpers", Path("helpers.py"), "digest")
    groups = group_packages(lock_of("dask"), environment_of(modules=(module,)))
    assert names_in(groups) == {"dask": ["dask"], OWN: []}
    assert groups[-1].environment.modules == (module,)
    assert groups[0].environment.modules == ()


def test_the_path_of_a_wheel_is_not_part_of_the_key():
    one, two = (
        group_packages(lock_of("mine"), environment_of((LocalWheel("mine", "1.0", Path(place), "d", True, "editable"),)))
        for place in ("/here/mine.whl", "/there/mine.whl")
    )
    assert [group.key for group in one] == [group.key for group in two]
