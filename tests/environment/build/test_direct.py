"""The direct builder against a real registry: images, uploads and interrupted builds."""

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

from dask_starburst.environment.build.tar import open_layer
from dask_starburst.environment.build.base_image import BaseImage
from dask_starburst.environment.build.interface import Destination, Image
from dask_starburst.environment.capture.model import Environment, OwnModule
from dask_starburst.environment.build.direct import DirectBuilder
from dask_starburst.environment.build.push import LAYER, RECIPE
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.build.image_tree import read_image_files
from dask_starburst.errors import BadArgument, ImageError
from dask_starburst.local import LocalAWS
from dask_starburst.plan.images.recipe import recipe_hash
from benchmarks.harness.images.fixtures import REPOSITORY, Built, ImageFixtures, fake_base
from tests.support.packages import PYTHON
from benchmarks.harness.images.rootfs import PLATFORMS

CACHE_TAG = sys.implementation.cache_tag

# The first test includes building the base and the image.
pytestmark = pytest.mark.timeout(300)

# One package of the layer "dask needs" and one of the others, both small and pure Python.
SMALL = Environment(PYTHON, ("iniconfig==2.1.0", "toolz==1.0.0"), ())
OTHER = replace(SMALL, requirements=("iniconfig==2.1.0", "toolz==0.12.1"))


@pytest.fixture(scope="module")
def image_fixtures(registry_server: str, tmp_path_factory: pytest.TempPathFactory) -> ImageFixtures:
    """Fixtures with a base that cannot be run: a build runs nothing of it."""
    return fake_base(Registry(registry_server), tmp_path_factory.mktemp("image_fixtures"))


@pytest.fixture(scope="module")
def cache(image_fixtures: ImageFixtures) -> Path:
    return image_fixtures.shared / "small"


@pytest.fixture(scope="module")
def small(image_fixtures: ImageFixtures, cache: Path) -> Built:
    return image_fixtures.build(image_fixtures.order(SMALL, cache), cache, "small")


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


def test_skopeo_verifies_the_digest_of_every_layer(small, tmp_path):
    source = f"docker://{small.registry.host}/small:{small.image.tag}"
    skopeo("copy", "--all", "--src-tls-verify=false", source, f"oci:{tmp_path}/copy:small")
    index = json.loads((tmp_path / "copy" / "index.json").read_text())
    assert [each["digest"] for each in index["manifests"]] == [small.image.digest]


def test_the_reference_has_the_digest_of_the_tag(small):
    assert small.image.reference == f"{small.registry.host}/small@{small.image.digest}"
    tagged = small.registry.manifest("small", small.image.tag)
    assert tagged is not None
    assert tagged.digest == small.image.digest


@pytest.mark.parametrize("platform", PLATFORMS)
def test_the_container_runs_unprivileged_with_its_own_python(small, platform):
    config = config_of(small, platform)["config"]
    environment = dict(pair.split("=", 1) for pair in config["Env"])
    assert environment["PATH"].startswith("/opt/venv/bin:")
    assert environment["LANG"] == "C.UTF-8"  # inherited from the base
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == ("1000:1000", "/home/dask", "SIGTERM")
    assert "Entrypoint" not in config  # the base has one, which is dropped


@pytest.mark.parametrize("platform", PLATFORMS)
def test_layers_are_ordered_from_the_base_to_the_most_volatile(small, platform):
    base, *own = small.layers(platform)
    assert base.digest == small.order.base.part(platform).layers[0].digest
    names = [layer.annotations[LAYER] for layer in own]
    assert names == ["system", "standard library", "dask needs", "others-1-of-1"]


def test_a_rebuild_under_another_tag_has_another_digest_and_the_same_layers(image_fixtures, small, cache):
    """ECR counts the age of an image from its first push: an equal digest would not restart its lifetime."""
    again = image_fixtures.build(image_fixtures.order(SMALL, cache), cache, "small", "rebuilt")
    assert again.image.digest != small.image.digest
    assert again.image.bytes_uploaded == 0
    assert [again.manifest(p).digest for p in PLATFORMS] == [small.manifest(p).digest for p in PLATFORMS]


@pytest.mark.parametrize("platform", PLATFORMS)
def test_all_modules_of_a_worker_are_compiled(small, platform, tmp_path):
    layers = []
    for layer in small.layers(platform):
        path = small.registry.pull_blob("small", layer.digest, tmp_path / layer.digest.partition(":")[2])
        layers.append((path, layer.media_type))
    names = read_image_files(layers, lambda name: False).names
    site, library = f"opt/venv/lib/python{PYTHON}/site-packages", f"usr/local/lib/python{PYTHON}"
    for module in (f"{site}/toolz/functoolz", f"{site}/iniconfig/__init__", f"{library}/json/decoder"):
        folder, _, last = module.rpartition("/")
        assert {f"{module}.py", f"{folder}/__pycache__/{last}.{CACHE_TAG}.pyc"} <= names
    assert not [name for name in names if "/tests/" in name and name.endswith(".pyc")]


def test_builds_with_different_caches_have_equal_digests(image_fixtures, small, tmp_path):
    cache = tmp_path / "elsewhere"
    again = image_fixtures.build(image_fixtures.order(SMALL, cache), cache, "small-again")
    assert set(again.made("linux/amd64")) == {"dask needs", "others-1-of-1", "standard library", "system"}
    assert again.image.digest == small.image.digest


def test_a_second_push_uploads_nothing(image_fixtures, small, cache):
    again = image_fixtures.build(image_fixtures.order(SMALL, cache), cache, "small")
    assert again.image.bytes_uploaded == 0
    assert again.image.digest == small.image.digest
    assert again.made("linux/amd64") == again.made("linux/arm64") == []


def test_a_changed_package_uploads_only_its_layer(image_fixtures, small, cache):
    changed = image_fixtures.build(image_fixtures.order(OTHER, cache), cache, "small")
    moved = set()
    for platform in PLATFORMS:
        before, after = small.layers(platform), changed.layers(platform)
        assert [one.digest == two.digest for one, two in zip(before, after, strict=True)] == [True] * 3 + [False, True]
        config = changed.manifest(platform).document["config"]
        moved |= {(after[3].digest, after[3].size), (config["digest"], config["size"])}
    assert changed.image.bytes_uploaded == sum(size for _, size in moved)


def test_layers_of_a_base_in_the_same_registry_are_mounted(image_fixtures, small):
    """The two base layers are most of the image, and are not transferred again."""
    base = sum(small.layers(platform)[0].size for platform in PLATFORMS)
    assert base > 6_000_000
    assert small.image.bytes_uploaded < base / 2


@pytest.fixture(scope="module")
def ecr(aws: LocalAWS) -> Registry:
    """The embedded AWS's ECR, with a repository like ours: its tags are immutable."""
    client = aws.client("ecr")
    client.create_repository(repositoryName=REPOSITORY, imageTagMutability="IMMUTABLE")
    data = client.get_authorization_token()["authorizationData"][0]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return Registry(data["proxyEndpoint"].partition("://")[2], lambda: (user, password))


@pytest.fixture(scope="module")
def in_ecr(image_fixtures: ImageFixtures, cache: Path, ecr: Registry) -> Image:
    order = image_fixtures.order(SMALL, cache)
    to = Destination(ecr, REPOSITORY, recipe_hash(order.recipe))
    return DirectBuilder(cache).build(order, to, ignore_report)


def ignore_report(kind: str, facts: Mapping[str, Any]) -> None:
    """Ignore progress."""


def test_a_push_to_the_embedded_ecr_copies_the_base_and_is_listed(small, in_ecr, aws):
    base = sum(small.layers(platform)[0].size for platform in PLATFORMS)
    assert in_ecr.bytes_uploaded > base
    found = aws.client("ecr").describe_images(repositoryName=REPOSITORY)["imageDetails"]
    tags = {detail["imageDigest"]: detail.get("imageTags") for detail in found}
    assert tags == {in_ecr.digest: [in_ecr.tag], **{small.manifest(p).digest: None for p in PLATFORMS}}
    assert in_ecr.digest == small.image.digest


def test_with_immutable_tags_a_second_build_returns_the_first_image(image_fixtures, cache, ecr, in_ecr):
    order = image_fixtures.order(SMALL, cache)
    # The base has another name there, which is an annotation of the index and not part of the recipe.
    name = order.base.name.replace(f":{PYTHON}", ":latest")
    order = replace(order, base=BaseImage(name, order.base.digest, order.base.registry, cache / "bases"))
    to = Destination(ecr, REPOSITORY, in_ecr.tag)
    again = DirectBuilder(cache).build(order, to, ignore_report)
    assert again.digest == in_ecr.digest
    with pytest.raises(ImageError, match="immutable"):
        DirectBuilder(cache).build(image_fixtures.order(OTHER, cache), to, ignore_report)


def test_a_gzip_image_has_the_same_contents(image_fixtures, small, cache):
    gzip = image_fixtures.build(image_fixtures.order(SMALL, cache, "gzip"), cache, "small")
    for platform in PLATFORMS:
        assert {layer.media_type for layer in gzip.layers(platform)} == {"application/vnd.oci.image.layer.v1.tar+gzip"}
        assert config_of(gzip, platform)["rootfs"] == config_of(small, platform)["rootfs"]


def test_own_modules_are_in_the_top_layer(image_fixtures, cache, tmp_path):
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("ANSWER = 42\n")
    (tmp_path / "single.py").write_text("ONE = 1\n")
    modules = tuple(OwnModule(p.stem, p, f"digest of {p.name}") for p in sorted(tmp_path.iterdir()))
    built = image_fixtures.build(image_fixtures.order(replace(SMALL, modules=modules), cache), cache, "small")
    top = built.layers("linux/arm64")[-1]
    path = built.registry.pull_blob("small", top.digest, tmp_path / "top")
    tree = read_image_files([(path, top.media_type)], lambda name: name.endswith(".py"))
    assert {name.rpartition("site-packages/")[2]: data for name, data in tree.contents.items()} == {
        "helpers/__init__.py": b"ANSWER = 42\n",
        "single.py": b"ONE = 1\n",
    }


def test_an_interrupted_build_has_no_tag_and_is_resumed(image_fixtures, cache, tmp_path):
    (tmp_path / "large.py").write_bytes(b"#" + random.Random(0).randbytes(6 << 20))
    large = OwnModule("large", tmp_path / "large.py", "digest of large.py")
    order = image_fixtures.order(replace(SMALL, modules=(large,)), cache)
    registry = Registry(image_fixtures.registry.host)
    to = Destination(registry, "broken-off", recipe_hash(order.recipe))

    def impatient(kind: str, facts: Mapping[str, Any]) -> None:
        if kind == "sent" and facts["bytes"] > 3_000_000:  # in the middle of the large layer
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DirectBuilder(cache).build(order, to, impatient)
    assert registry.manifest("broken-off", to.tag) is None
    before = registry.uploaded
    assert 0 < before < 6_000_000
    whole = Built(DirectBuilder(cache).build(order, to, ignore_report), order, registry, "broken-off")
    blobs = {layer.digest: layer.size for platform in PLATFORMS for layer in whole.layers(platform)[1:]}
    configs = [whole.manifest(platform).document["config"]["size"] for platform in PLATFORMS]
    assert before + whole.image.bytes_uploaded == sum(blobs.values()) + sum(configs)


def test_progress_counts_up_to_all_missing_bytes(small):
    sent = [facts for kind, facts in small.said if kind == "sent"]
    assert [facts["bytes"] for facts in sent] == sorted(facts["bytes"] for facts in sent)
    assert sent[-1] == {"bytes": small.image.bytes_uploaded, "total": small.image.bytes_uploaded}


def test_an_image_for_another_python_is_an_error_that_says_what_to_do(image_fixtures, cache):
    order = image_fixtures.order(SMALL, cache)
    with pytest.raises(BadArgument, match=r"run it with Python 3\.9, or give build\.builder='buildx'"):
        image_fixtures.build(replace(order, recipe=replace(order.recipe, python="3.9")), cache)


def test_a_package_with_a_wrong_hash_is_an_error_and_nothing_is_tagged(image_fixtures, cache):
    order = image_fixtures.order(SMALL, cache)
    lies = {
        p: replace(lock, text=re.sub("sha256:.{8}", "sha256:00000000", lock.text)) for p, lock in order.locks.items()
    }
    with pytest.raises(ImageError, match=r"[Hh]ash"):
        image_fixtures.build(replace(order, locks=lies), cache, "lies", "one")
    assert image_fixtures.registry.manifest("lies", "one") is None


def test_layers_match_both_digests(small, tmp_path):
    for platform in PLATFORMS:
        diff_ids = config_of(small, platform)["rootfs"]["diff_ids"]
        for layer, diff_id in zip(small.layers(platform), diff_ids, strict=True):
            path = small.registry.pull_blob("small", layer.digest, tmp_path / "layer")
            with open_layer(path, layer.media_type) as file:
                assert f"sha256:{hashlib.sha256(file.read()).hexdigest()}" == diff_id
