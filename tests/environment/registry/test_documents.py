"""Image names, manifests, indexes and configurations."""

from __future__ import annotations

import json

import pytest

from dask_starburst.environment.registry import documents
from dask_starburst.environment.registry.documents import Descriptor, Reference
from dask_starburst.errors import BadArgument, ImageError

DIGEST = f"sha256:{'ab' * 32}"


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("python", Reference("registry-1.docker.io", "library/python")),
        ("python:3.12", Reference("registry-1.docker.io", "library/python", "3.12")),
        ("daskdev/dask:2026.8", Reference("registry-1.docker.io", "daskdev/dask", "2026.8")),
        ("docker.io/daskdev/dask", Reference("registry-1.docker.io", "daskdev/dask")),
        ("localhost:5000/a", Reference("localhost:5000", "a")),
        ("127.0.0.1:5000/a/b:t", Reference("127.0.0.1:5000", "a/b", "t")),
        (f"registry.test/a@{DIGEST}", Reference("registry.test", "a", None, DIGEST)),
        (f"registry.test/a:t@{DIGEST}", Reference("registry.test", "a", "t", DIGEST)),
        (
            "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/x:1",
            Reference("123456789012.dkr.ecr.us-east-1.amazonaws.com", "team/x", "1"),
        ),
    ],
)
def test_image_names_are_parsed_as_docker_does(text: str, parsed: Reference):
    assert Reference.parse(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "UPPER", "a:b:c", "a@sha256:12", "host.test/", "a b", "a:", "../x", f"a@{DIGEST}0"]
)
def test_an_invalid_image_name_is_an_error_with_an_example(text: str):
    with pytest.raises(BadArgument, match=r"an example is 'public\.ecr\.aws"):
        Reference.parse(text)


def descriptor(platform: str, digest: str = DIGEST) -> Descriptor:
    return Descriptor(documents.MANIFEST, digest, 7, platform)


def test_equal_indexes_have_equal_bytes():
    one = documents.index([descriptor("linux/arm64")], {"b": "2", "a": "1"})
    assert one.body == documents.index([descriptor("linux/arm64")], {"a": "1", "b": "2"}).body
    assert b" " not in one.body


def test_attestations_of_buildx_are_not_platforms():
    index = documents.index([descriptor("linux/amd64"), descriptor("unknown/unknown")])
    assert [each.platform for each in documents.manifests_of(index)] == ["linux/amd64"]


def test_arm64_is_found_with_and_without_its_variant():
    document = json.loads(documents.index([descriptor("linux/arm64")]).body)
    document["manifests"][0]["platform"]["variant"] = "v8"
    assert (
        documents.choose(documents.Manifest(documents.INDEX, json.dumps(document).encode()), "linux/arm64").digest
        == DIGEST
    )


def test_a_significant_variant_is_kept():
    index = documents.index([descriptor("linux/arm/v7"), descriptor("linux/arm64")])
    said = [each["platform"] for each in index.document["manifests"]]
    assert said[0] == {"os": "linux", "architecture": "arm", "variant": "v7"}
    assert said[1] == {"os": "linux", "architecture": "arm64"}
    assert [each.platform for each in documents.manifests_of(index)] == ["linux/arm/v7", "linux/arm64"]


def test_the_error_for_a_missing_platform_lists_the_existing_ones():
    with pytest.raises(ImageError, match="not built for linux/arm64; it is for linux/amd64"):
        documents.choose(documents.index([descriptor("linux/amd64")]), "linux/arm64")


def test_docker_layers_get_oci_media_types():
    layer = Descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", DIGEST, 7)
    assert documents.as_oci(layer).media_type == documents.LAYER_GZIP
    assert documents.as_oci(layer).digest == DIGEST
