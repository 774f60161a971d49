"""The direct builder against a real registry: what comes out, what is sent, and what happens when it breaks off."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dask_starburst.environment.build.tar import opened
from dask_starburst.environment.build.base_image import BaseImage
from dask_starburst.environment.build.interface import Destination, Image
from dask_starburst.environment.capture.model import Environment, OwnModule
from dask_starburst.environment.build.direct import DirectBuilder
from dask_starburst.environment.build.push import LAYER, RECIPE
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.build.image_tree import read_tree
from dask_starburst.errors import BadArgument, ImageError
from dask_starburst.local import LocalAWS
from dask_starburst.plan.images.recipe import recipe_hash
from tests.support.image_fixtures import REPOSITORY, Built, Kitchen, doll_kitchen
from tests.support.packages import PYTHON
from tests.support.base_rootfs import PLATFORMS

CACHE_TAG = sys.implementation.cache_tag

# The first of these tests waits for the base and the image to be made.
pytestmark = pytest.mark.timeout(300)

# One for the layer of what Dask needs, one for the others', both small and of Python only.
SMALL = Environment(PYTHON, ("iniconfig==2.1.0", "toolz==1.0.0"), ())
OTHER = replace(SMALL, requirements=("iniconfig==2.1.0", "toolz==0.12.1"))


@pytest.fixture(scope="module")
def kitchen(registry_server: str, tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    """One whose base need not be run: nothing of it is when an image is built."""
    return doll_kitchen(Registry(registry_server), tmp_path_factory.mktemp("kitchen"))


@pytest.fixture(scope="module")
def cache(kitchen: Kitchen) -> Path:
    return kitchen.shared / "small"


@pytest.fixture(scope="module")
def small(kitchen: Kitchen, cache: Path) -> Built:
    return kitchen.build(kitchen.order(SMALL, cache), cache, "small")


def config_of(built: Built, platform: str) -> dict[str, Any]:
    digest = built.manifest(platform).document["config"]["digest"]
    found: dict[str, Any] = json.loads(built.registry.blob(built.repository, digest))
    return found


def skopeo(*arguments: str) -> bytes:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    return subprocess.run(["skopeo", *arguments], check=True, capture_output=True).stdout


def test_the_index_has_both_platforms_and_skopeo_agrees(small):
    name = f"docker://{small.registry.host}/small:{small.image.tag}"
    raw = skopeo("inspect", "--raw", "--tls-verify=false", name)
    index = json.loads(raw)
    assert [each["platform"] for each in index["manifests"]] == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64"},
    ]
    assert index["annotations"][RECIPE] == recipe_hash(small.order.recipe)
    for architecture in PLATFORMS.values():
        found = json.loads(skopeo("--override-arch", architecture, "inspect", "--tls-verify=false", name))
        assert (found["Digest"], found["Architecture"]) == (small.image.digest, architecture)
        assert found["Layers"] == [layer.digest for layer in small.layers(f"linux/{architecture}")]


def test_skopeo_takes_every_layer_for_what_its_digests_say(small, tmp_path):
    source = f"docker://{small.registry.host}/small:{small.image.tag}"
    skopeo("copy", "--all", "--src-tls-verify=false", source, f"oci:{tmp_path}/copy:small")
    index = json.loads((tmp_path / "copy" / "index.json").read_text())
    assert [each["digest"] for each in index["manifests"]] == [small.image.digest]


def test_the_reference_is_by_digest_and_the_tag_means_it(small):
    assert small.image.reference == f"{small.registry.host}/small@{small.image.digest}"
    tagged = small.registry.manifest("small", small.image.tag)
    assert tagged is not None
    assert tagged.digest == small.image.digest


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_container_runs_as_nobody_special_and_with_its_own_python(small, platform):
    config = config_of(small, platform)["config"]
    environment = dict(pair.split("=", 1) for pair in config["Env"])
    assert environment["PATH"].startswith("/opt/venv/bin:")
    assert environment["LANG"] == "C.UTF-8"  # the base's own variables stay
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("1000:1000", "/home/dask", "SIGTERM")
    assert "Entrypoint" not in config  # the base has one, which would get in the way


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_base_lies_below_and_what_changes_most_on_top(small, platform):
    base, *own = small.layers(platform)
    assert base.digest == small.order.base.part(platform).layers[0].digest
    names = [layer.annotations[LAYER] for layer in own]
    assert names == ["system", "standard library", "dask needs", "others-1-of-1"]


def test_what_is_built_anew_under_another_tag_is_another_image_of_the_same_layers(kitchen, small, cache):
    """ECR counts the days of an image from its first push: the same one would not live longer."""
    again = kitchen.build(kitchen.order(SMALL, cache), cache, "small", "anew")
    assert again.image.digest != small.image.digest
    assert again.image.bytes_uploaded == 0
    assert [again.manifest(p).digest for p in PLATFORMS] == [small.manifest(p).digest for p in PLATFORMS]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_everything_that_a_worker_imports_is_compiled(small, platform, tmp_path):
    layers = []
    for layer in small.layers(platform):
        path = small.registry.pull_blob("small", layer.digest, tmp_path / layer.digest.partition(":")[2])
        layers.append((path, layer.media_type))
    names = read_tree(layers, lambda name: False).names
    site, library = f"opt/venv/lib/python{PYTHON}/site-packages", f"usr/local/lib/python{PYTHON}"
    for module in (f"{site}/toolz/functoolz", f"{site}/iniconfig/__init__", f"{library}/json/decoder"):
        folder, _, last = module.rpartition("/")
        assert {f"{module}.py", f"{folder}/__pycache__/{last}.{CACHE_TAG}.pyc"} <= names
    assert not [name for name in names if "/tests/" in name and name.endswith(".pyc")]


def test_two_builds_on_two_directories_give_the_same_digests(kitchen, small, tmp_path):
    cache = tmp_path / "elsewhere"
    again = kitchen.build(kitchen.order(SMALL, cache), cache, "small-again")
    assert set(again.made("linux/amd64")) == {"dask needs", "others-1-of-1", "standard library", "system"}
    assert again.image.digest == small.image.digest


def test_a_second_push_uploads_nothing(kitchen, small, cache):
    again = kitchen.build(kitchen.order(SMALL, cache), cache, "small")
    assert again.image.bytes_uploaded == 0
    assert again.image.digest == small.image.digest
    assert again.made("linux/amd64") == again.made("linux/arm64") == []


def test_one_changed_package_moves_only_its_layer(kitchen, small, cache):
    changed = kitchen.build(kitchen.order(OTHER, cache), cache, "small")
    moved = set()
    for platform in PLATFORMS:
        before, after = small.layers(platform), changed.layers(platform)
        assert [one.digest == two.digest for one, two in zip(before, after, strict=True)] == [True] * 3 + [False, True]
        config = changed.manifest(platform).document["config"]
        moved |= {(after[3].digest, after[3].size), (config["digest"], config["size"])}
    assert changed.image.bytes_uploaded == sum(size for _, size in moved)


def test_layers_are_mounted_from_the_base_where_they_are_in_the_same_registry(kitchen, small):
    """The two base layers are most of the image, and none of their bytes went through this computer again."""
    base = sum(small.layers(platform)[0].size for platform in PLATFORMS)
    assert base > 6_000_000
    assert small.image.bytes_uploaded < base / 2


@pytest.fixture(scope="module")
def ecr(aws: LocalAWS) -> Registry:
    """The embedded AWS's own ECR, with a repository as ours is: tags there cannot be moved."""
    client = aws.client("ecr")
    client.create_repository(repositoryName=REPOSITORY, imageTagMutability="IMMUTABLE")
    data = client.get_authorization_token()["authorizationData"][0]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return Registry(data["proxyEndpoint"].partition("://")[2], lambda: (user, password))


@pytest.fixture(scope="module")
def in_ecr(kitchen: Kitchen, cache: Path, ecr: Registry) -> Image:
    order = kitchen.order(SMALL, cache)
    to = Destination(ecr, REPOSITORY, recipe_hash(order.recipe))
    return DirectBuilder(cache).build(order, to, deaf)


def deaf(kind: str, facts: Mapping[str, Any]) -> None:
    """Hear nothing of what is built."""


def test_the_embedded_ecr_gets_the_base_copied_and_lists_what_was_pushed(small, in_ecr, aws):
    base = sum(small.layers(platform)[0].size for platform in PLATFORMS)
    assert in_ecr.bytes_uploaded > base
    found = aws.client("ecr").describe_images(repositoryName=REPOSITORY)["imageDetails"]
    tags = {detail["imageDigest"]: detail.get("imageTags") for detail in found}
    assert tags == {in_ecr.digest: [in_ecr.tag], **{small.manifest(p).digest: None for p in PLATFORMS}}
    assert in_ecr.digest == small.image.digest


def test_where_tags_cannot_be_moved_who_builds_the_same_gets_what_was_there_first(kitchen, cache, ecr, in_ecr):
    order = kitchen.order(SMALL, cache)
    # The base has another name there, which is noted in the index and is not what the image is made of.
    name = order.base.name.replace(f":{PYTHON}", ":latest")
    order = replace(order, base=BaseImage(name, order.base.digest, order.base.registry, cache / "bases"))
    to = Destination(ecr, REPOSITORY, in_ecr.tag)
    again = DirectBuilder(cache).build(order, to, deaf)
    assert again.digest == in_ecr.digest
    with pytest.raises(ImageError, match="immutable"):
        DirectBuilder(cache).build(kitchen.order(OTHER, cache), to, deaf)


def test_gzip_makes_an_image_with_the_same_contents(kitchen, small, cache):
    gzip = kitchen.build(kitchen.order(SMALL, cache, "gzip"), cache, "small")
    for platform in PLATFORMS:
        assert {layer.media_type for layer in gzip.layers(platform)} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
        assert config_of(gzip, platform)["rootfs"] == config_of(small, platform)["rootfs"]


def test_the_users_own_modules_are_in_the_topmost_layer(kitchen, cache, tmp_path):
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("ANSWER = 42\n")
    (tmp_path / "single.py").write_text("ONE = 1\n")
    modules = tuple(OwnModule(p.stem, p, f"digest of {p.name}") for p in sorted(tmp_path.iterdir()))
    built = kitchen.build(kitchen.order(replace(SMALL, modules=modules), cache), cache, "small")
    top = built.layers("linux/arm64")[-1]
    path = built.registry.pull_blob("small", top.digest, tmp_path / "top")
    tree = read_tree([(path, top.media_type)], lambda name: name.endswith(".py"))
    assert {name.rpartition("site-packages/")[2]: data for name, data in tree.contents.items()} == {
        "helpers/__init__.py": b"ANSWER = 42\n",
        "single.py": b"ONE = 1\n",
    }


def test_a_build_that_was_broken_off_has_no_tag_and_goes_on_where_it_was(kitchen, cache, tmp_path):
    (tmp_path / "large.py").write_bytes(b"#" + random.Random(0).randbytes(6 << 20))
    large = OwnModule("large", tmp_path / "large.py", "digest of large.py")
    order = kitchen.order(replace(SMALL, modules=(large,)), cache)
    registry = Registry(kitchen.registry.host)
    to = Destination(registry, "broken-off", recipe_hash(order.recipe))

    def impatient(kind: str, facts: Mapping[str, Any]) -> None:
        if kind == "sent" and facts["bytes"] > 3_000_000:  # in the middle of the large layer
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DirectBuilder(cache).build(order, to, impatient)
    assert registry.manifest("broken-off", to.tag) is None
    before = registry.uploaded
    assert 0 < before < 6_000_000
    whole = Built(DirectBuilder(cache).build(order, to, deaf), order, registry, "broken-off")
    blobs = {layer.digest: layer.size for platform in PLATFORMS for layer in whole.layers(platform)[1:]}
    configs = [whole.manifest(platform).document["config"]["size"] for platform in PLATFORMS]
    assert before + whole.image.bytes_uploaded == sum(blobs.values()) + sum(configs)


def test_progress_counts_up_to_everything_that_was_missing(small):
    sent = [facts for kind, facts in small.said if kind == "sent"]
    assert [facts["bytes"] for facts in sent] == sorted(facts["bytes"] for facts in sent)
    assert sent[-1] == {"bytes": small.image.bytes_uploaded, "total": small.image.bytes_uploaded}


def test_an_image_for_another_python_is_refused_with_the_way_out(kitchen, cache):
    order = kitchen.order(SMALL, cache)
    with pytest.raises(BadArgument, match=r"run it with Python 3\.9, or give build\.builder='buildx'"):
        kitchen.build(replace(order, recipe=replace(order.recipe, python="3.9")), cache)


def test_a_package_whose_file_is_not_what_the_lock_says_is_refused_and_nothing_has_the_tag(kitchen, cache):
    order = kitchen.order(SMALL, cache)
    lies = {
        p: replace(lock, text=re.sub("sha256:.{8}", "sha256:00000000", lock.text)) for p, lock in order.locks.items()
    }
    with pytest.raises(ImageError, match=r"[Hh]ash"):
        kitchen.build(replace(order, locks=lies), cache, "lies", "one")
    assert kitchen.registry.manifest("lies", "one") is None


def test_layers_are_what_both_digests_say(small, tmp_path):
    for platform in PLATFORMS:
        diff_ids = config_of(small, platform)["rootfs"]["diff_ids"]
        for layer, diff_id in zip(small.layers(platform), diff_ids, strict=True):
            path = small.registry.pull_blob("small", layer.digest, tmp_path / "layer")
            with opened(path, layer.media_type) as file:
                assert f"sha256:{hashlib.sha256(file.read()).hexdigest()}" == diff_id
