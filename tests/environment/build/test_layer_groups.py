"""Which packages share a layer."""

from __future__ import annotations

from pathlib import Path

from dask_starburst.environment.capture.model import Environment, LocalWheel, OwnModule
from dask_starburst.environment.build.layer_groups import OWN, Group, grouped
from dask_starburst.environment.resolve.lock import Lock


def lock_of(*packages: str) -> Lock:
    pairs = tuple(sorted((p, "1.0") for p in packages))
    text = "".join(f"{name}=={version} \\\n    --hash=sha256:{name}\n" for name, version in pairs)
    return Lock("linux/arm64", text, pairs)


def environment_of(wheels: tuple[LocalWheel, ...] = (), modules: tuple[OwnModule, ...] = ()) -> Environment:
    return Environment("3.11", (), (), wheels=wheels, modules=modules)


def names_in(groups: tuple[Group, ...]) -> dict[str, list[str]]:
    return {group.name: [name for name, _ in group.lock.packages] for group in groups}


def test_what_changes_least_lies_lowest():
    wheel = LocalWheel("mine", "1.0", Path("mine.whl"), "d", True, "editable")
    lock = lock_of("toolz", "dask", "mine", "pyarrow", "numpy", "pandas", "botocore", "humanize")
    found = names_in(grouped(lock, environment_of((wheel,))))
    assert list(found) == ["pyarrow", "numeric", "starburst", "dask needs", "dask", "others-1-of-1", OWN]
    assert found["numeric"] == ["numpy", "pandas"]
    assert found[OWN] == ["mine"]


def test_each_package_is_in_one_group_with_its_hashes_and_nobody_elses():
    lock = lock_of("dask", "pyarrow", "humanize", "Under_Score", *(f"package-{n}" for n in range(100)))
    groups = grouped(lock, environment_of())
    assert sorted(pair for group in groups for pair in group.lock.packages) == sorted(lock.packages)
    for group in groups:
        hashes = [line.split(":")[1] for line in group.lock.text.splitlines() if "--hash" in line]
        assert hashes == [name for name, _ in group.lock.packages]


def test_another_version_of_one_package_changes_the_key_of_its_group_only():
    lock = lock_of("dask", "pyarrow", "humanize")
    other = Lock(lock.platform, lock.text.replace("humanize==1.0", "humanize==2.0"), lock.packages)
    before, after = (grouped(each, environment_of()) for each in (lock, other))
    changed = [one.name for one, two in zip(before, after, strict=True) if one.key != two.key]
    assert changed == ["others-1-of-1"]


def test_what_dask_needs_does_not_move_dask_nor_the_other_way_round():
    lock = lock_of("dask", "distributed", "toolz", "tornado")
    before = {group.name: group.key for group in grouped(lock, environment_of())}
    for changed, layer in (("toolz", "dask needs"), ("distributed", "dask")):
        other = Lock(lock.platform, lock.text.replace(f"{changed}==1.0", f"{changed}==2.0"), lock.packages)
        after = {group.name: group.key for group in grouped(other, environment_of())}
        assert [name for name in before if before[name] != after[name]] == [layer]


def test_many_packages_are_spread_so_that_one_more_moves_a_part_of_them():
    many = [f"package-{n}" for n in range(60)]
    before, after = (grouped(lock_of(*names), environment_of()) for names in (many, [*many, "one-more"]))
    assert len(before) == len(after) == 4
    assert sum(one.key != two.key for one, two in zip(before, after, strict=True)) == 1


def test_own_modules_have_the_topmost_layer_although_no_package_is_in_it():
    module = OwnModule("helpers", Path("helpers.py"), "digest")
    groups = grouped(lock_of("dask"), environment_of(modules=(module,)))
    assert names_in(groups) == {"dask": ["dask"], OWN: []}
    assert groups[-1].environment.modules == (module,)
    assert groups[0].environment.modules == ()


def test_where_a_wheel_lies_on_this_computer_is_no_part_of_the_key():
    one, two = (
        grouped(lock_of("mine"), environment_of((LocalWheel("mine", "1.0", Path(place), "d", True, "editable"),)))
        for place in ("/here/mine.whl", "/there/mine.whl")
    )
    assert [group.key for group in one] == [group.key for group in two]
