"""The lifetime of images, and pruning."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_starburst.errors import ImageError
from dask_starburst.plan.images.lifetime import (
    DAY,
    REFRESHED,
    StoredImage,
    decide,
    free_tag,
    in_repository,
    lifecycle_policy,
    members,
    monthly_cost,
    newest,
    prunable,
    recipe_of,
    refresh_tag,
    refreshed,
    seconds_left,
    stored_bytes,
    ttl_of,
    users_of,
)

NOW = 1_795_000_000.0
HASH = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
URI = "123456789012.dkr.ecr.us-east-1.amazonaws.com/starburst/worker"
INDEX = "application/vnd.oci.image.index.v1+json"


def aged(days: float, *tags: str, digest: str = "", children: tuple[str, ...] = ()) -> StoredImage:
    name = digest or f"sha256:{'-'.join(tags)}"
    return StoredImage(name, tags, NOW - days * DAY, 100, children=children)


def multi(days: float, *tags: str, name: str = "a") -> list[StoredImage]:
    """Return an index with the images of its two platforms."""
    parts = [aged(days, digest=f"sha256:{name}-{arch}") for arch in ("amd64", "arm64")]
    return [aged(days, *tags, digest=f"sha256:{name}", children=tuple(p.digest for p in parts)), *parts]


def gone(
    images: list[StoredImage], in_use: set[str] | None = None, *, ttl: int | None = 30, keep: int = 0
) -> list[str]:
    return [each.image.digest for each in prunable(images, in_use or set(), NOW, ttl, keep)]


@pytest.mark.parametrize(
    ("age", "ttl", "decision"),
    [
        (0, 30, "use"),
        (24.9, 30, "use"),
        (25.1, 30, "warn"),
        (27.9, 30, "warn"),
        (28.1, 30, "refresh"),
        (29.9, 30, "refresh"),
        (29.97, 30, "rebuild"),
        (30.5, 30, "rebuild"),
        (365, None, "use"),
        (0, 3, "use"),
        (0.9, 3, "use"),
        (1.1, 3, "refresh"),
        (3.4, 7, "use"),
        (3.6, 7, "warn"),
    ],
)
def test_the_decision_depends_on_the_age_of_an_image(age: float, ttl: int | None, decision: str):
    assert decide(aged(age, HASH), NOW, ttl) == decision


def test_a_missing_image_is_built():
    assert decide(None, NOW, 30) == "rebuild"
    assert decide(None, NOW, None) == "rebuild"


@given(st.integers(3, 365), st.floats(0, 400), st.floats(0, 400))
def test_decisions_only_escalate_with_age(ttl: int, age: float, more: float):
    order = ["use", "warn", "refresh", "rebuild"]
    young, old = (order.index(decide(aged(days, HASH), NOW, ttl)) for days in (age, age + more))
    assert young <= old


@given(st.integers(3, 365), st.floats(0, 400))
def test_an_image_in_use_lasts_at_least_two_days(ttl: int, age: float):
    image = aged(age, HASH)
    left = seconds_left(image, NOW, ttl)
    assert left is not None
    assert (decide(image, NOW, ttl) in ("use", "warn")) == (left >= 2 * DAY)


def test_a_policy_has_one_rule_for_untagged_images_and_ends_with_the_one_for_any():
    rules = lifecycle_policy(14)["rules"]
    assert [rule["selection"]["tagStatus"] for rule in rules] == ["untagged", "any"]
    assert [rule["rulePriority"] for rule in rules] == [1, 2]
    assert ttl_of(lifecycle_policy(14)) == 14


def test_untagged_images_expire_even_if_images_are_kept_forever():
    (rule,) = lifecycle_policy(None)["rules"]
    assert rule["selection"]["tagStatus"] == "untagged"
    assert ttl_of(lifecycle_policy(None)) is None


def test_the_newest_image_of_a_recipe_is_the_one_pushed_last():
    first, again, foreign = aged(20, HASH), aged(1, refresh_tag(HASH, NOW)), aged(0, OTHER)
    assert newest([first, again, foreign], HASH) == again
    assert newest([foreign], HASH) is None


def test_a_refresh_tag_has_the_same_recipe_and_can_be_refreshed_again():
    tag = refresh_tag(HASH, NOW)
    assert tag == f"{HASH}-r20261118110640"
    assert recipe_of(tag) == recipe_of(HASH) == HASH
    assert refresh_tag(tag, NOW + DAY) == f"{HASH}-r20261119110640"


def test_a_rebuild_gets_another_tag_if_the_first_one_exists():
    assert free_tag([], HASH, NOW) == HASH
    assert free_tag([aged(40, HASH)], HASH, NOW) == refresh_tag(HASH, NOW)


def test_a_refreshed_manifest_has_another_digest_and_the_same_content():
    index = {"mediaType": INDEX, "manifests": [{"digest": "sha256:a"}], "annotations": {"a": "b"}}
    again = json.loads(refreshed(json.dumps(index), NOW))
    assert again.pop("annotations") == {"a": "b", REFRESHED: "2026-11-18T11:06:40+00:00"}
    assert again == {key: value for key, value in index.items() if key != "annotations"}
    assert refreshed(json.dumps(index), NOW) != refreshed(json.dumps(index), NOW + 1)


def test_refreshing_a_docker_manifest_is_an_error_that_says_what_to_do():
    with pytest.raises(ImageError, match="cannot be refreshed; rebuild it"):
        refreshed(json.dumps({"mediaType": "application/vnd.docker.distribution.manifest.list.v2+json"}), NOW)


def test_an_index_is_deleted_before_its_images():
    assert gone(multi(10, HASH)) == ["sha256:a", "sha256:a-amd64", "sha256:a-arm64"]


@pytest.mark.parametrize("reference", [f"{URI}@sha256:a", f"{URI}:{HASH}", f"{URI}@sha256:a-arm64"])
def test_an_image_in_use_is_kept_with_its_index_and_children(reference: str):
    assert gone(multi(400, HASH), {reference}) == []


def test_a_newly_pushed_image_is_kept_for_a_launch():
    assert gone(multi(0.02, HASH)) == []
    assert gone([aged(0.02, digest="sha256:x")]) == []
    assert gone([aged(0.05, digest="sha256:x")]) == ["sha256:x"]


def test_images_of_an_old_index_are_kept_while_a_refreshed_one_names_them():
    old = multi(29, HASH)
    fresh = replace(old[0], digest="sha256:b", tags=(refresh_tag(HASH, NOW),), pushed_at=NOW)
    assert gone([*old, fresh]) == ["sha256:a"]


def test_of_the_newest_recipes_the_latest_image_is_kept():
    images = [*multi(20, HASH, name="a"), *multi(10, refresh_tag(HASH, NOW), name="b"), *multi(5, OTHER, name="c")]
    heads = {"sha256:a", "sha256:b", "sha256:c"}
    assert heads.intersection(gone(images, keep=1)) == {"sha256:a", "sha256:b"}
    assert heads.intersection(gone(images, keep=2)) == {"sha256:a"}
    assert heads.intersection(gone(images, keep=0)) == heads


def test_each_prunable_image_has_a_reason():
    images = [
        *multi(31, "over", name="o"),
        *multi(20, HASH, name="a"),
        aged(10, refresh_tag(HASH, NOW)),
        aged(3, OTHER),
        aged(2, digest="sha256:lost"),
    ]
    why = {each.image.digest: each.why for each in prunable(images, set(), NOW, 30, keep=0)}
    assert why["sha256:o"] == "expired"
    assert why["sha256:a"] == "refreshed since"
    assert why["sha256:a-arm64"] == "part of a deleted index"
    assert why["sha256:lost"] == "untagged, and not part of an index"
    assert why[f"sha256:{OTHER}"] == "unused"


_ages = st.floats(0, 60)


@st.composite
def repositories(draw: st.DrawFn) -> list[StoredImage]:
    """Return images with and without indexes; some images are in several."""
    parts = [aged(draw(_ages), digest=f"sha256:p{n}") for n in range(draw(st.integers(0, 5)))]
    names = [part.digest for part in parts]
    heads = []
    for number in range(draw(st.integers(0, 5))):
        children = tuple(draw(st.lists(st.sampled_from(names), unique=True))) if names else ()
        tags = tuple(draw(st.sets(st.sampled_from([HASH, OTHER, "mine"]), max_size=1)))
        heads.append(aged(draw(_ages), *(f"{t}-{number}" for t in tags), digest=f"sha256:h{number}", children=children))
    return [*parts, *heads]


@given(repositories(), st.data(), st.integers(0, 3))
def test_pruning_never_deletes_an_image_in_use_or_a_part_of_a_kept_index(
    images: list[StoredImage], data: st.DataObject, keep: int
):
    digests = [image.digest for image in images]
    used = set(data.draw(st.lists(st.sampled_from(digests)))) if digests else set()
    deleted = gone(images, {f"{URI}@{digest}" for digest in used}, keep=keep)
    assert not used.intersection(deleted)
    for image in images:
        if image.digest not in deleted:
            assert not set(image.children).intersection(deleted)
    order = {digest: number for number, digest in enumerate(deleted)}
    for image in images:
        assert all(order[image.digest] < order[c] for c in image.children if image.digest in order and c in order)


def test_users_are_found_by_tag_and_by_digest():
    image = aged(1, HASH, digest="sha256:a")
    in_use = {f"{URI}@sha256:a": ("pool-1",), f"{URI}:{HASH}": ("pool-0", "pool-1"), f"{URI}@sha256:b": ("pool-2",)}
    assert users_of(image, in_use) == ("pool-0", "pool-1")


def test_references_match_by_repository_on_any_host():
    ours, same = f"{URI}@sha256:a", "123456789012.dkr-ecr.us-east-1.on.aws/starburst/worker:x"
    others = ("host:5000/other@sha256:a", "host/starburst/worker/deeper:x", "python:3.12", "worker")
    in_use = dict.fromkeys((ours, same, *others), ("pool",))
    assert set(in_repository(in_use, "starburst/worker")) == {ours, same}


def test_a_shared_layer_is_stored_and_billed_once():
    shared, own = ("sha256:base", 3_000_000_000), ("sha256:own", 1_000_000_000)
    one = replace(aged(1, digest="sha256:1"), blobs=(shared,))
    two = replace(aged(1, digest="sha256:2"), blobs=(shared, own))
    head = aged(1, HASH, children=("sha256:1", "sha256:2"))
    stranger = replace(aged(1, digest="sha256:3"), blobs=(("sha256:more", 1),))
    assert members(head, [one, two, head, stranger]) == (head, one, two)
    assert stored_bytes([one, two, head]) == 4_000_000_000
    assert monthly_cost(4_000_000_000) == pytest.approx(0.40)
