"""The embedded ECR: its registry under /v2/ and its JSON API show the same images and have AWS's errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dask_starburst.local import LocalAWS
from tests.local.conftest import code_of, wait_for
from tests.support.ecr_repository import INDEX, LAYER, MANIFEST, EcrRepository, dump, part, sha

DAY = 86_400.0
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")


@pytest.fixture(scope="module")
def ecr_aws() -> Iterator[LocalAWS]:
    # A separate one: months pass here.
    with LocalAWS(processes=False) as running:
        yield running


@pytest.fixture
def repository(ecr_aws: LocalAWS) -> EcrRepository:
    return EcrRepository(ecr_aws, f"t/{uuid.uuid4().hex[:10]}")


@pytest.fixture
def immutable(ecr_aws: LocalAWS) -> EcrRepository:
    return EcrRepository(ecr_aws, f"t/{uuid.uuid4().hex[:10]}", mutability="IMMUTABLE")


# -- authorization ------------------------------------------------------------------------------------


def test_without_the_right_password_there_is_a_challenge(repository: EcrRepository) -> None:
    for credentials in (None, "AWS:wrong", f"me:{repository.credentials.partition(':')[2]}"):
        refused = repository.ask("GET", "/v2/", credentials=credentials)
        assert refused.status == 401
        assert refused.code == "UNAUTHORIZED"
        assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert repository.ask("GET", "/v2/").status == 200


def test_a_password_is_valid_for_twelve_virtual_hours(repository: EcrRepository) -> None:
    data = repository.ecr.get_authorization_token()["authorizationData"][0]
    assert data["proxyEndpoint"] == repository.aws.endpoint_url
    assert data["expiresAt"].timestamp() == pytest.approx(repository.aws.now() + 12 * 3600, abs=5)
    repository.aws.advance(11.9 * 3600)
    assert repository.ask("GET", "/v2/").status == 200
    repository.aws.advance(0.2 * 3600)
    refused = repository.ask("GET", "/v2/")
    assert (refused.status, refused.code) == (403, "DENIED"), "ECR answers 403, not 401"
    assert b"expired" in refused.body
    assert "WWW-Authenticate" not in refused.headers
    repository.login()
    assert repository.ask("GET", "/v2/").status == 200


# -- hostile names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "digest", ["../../evil", f"sha256:{'a' * 64}/../evil", f"sha256:{'A' * 64}", "sha512:ab", 7, None]
)
def test_a_manifest_without_digests_is_refused(repository: EcrRepository, digest: Any) -> None:
    wrong = {"mediaType": LAYER, "digest": digest, "size": 1}
    for document in ({"layers": [wrong]}, {"config": wrong}, {"manifests": [wrong]}, {"layers": "all"}):
        refused = repository.v2(
            "PUT", "manifests/latest", dump({"schemaVersion": 2, "mediaType": MANIFEST, **document})
        )
        assert (refused.status, refused.code) == (400, "MANIFEST_INVALID")
    assert repository.ecr.list_images(repositoryName=repository.name)["imageIds"] == []


@pytest.mark.parametrize(("name", "code"), [("sha256:ab", "DIGEST_INVALID"), ("a%20b", "TAG_INVALID")])
def test_an_invalid_tag_or_digest_is_refused(repository: EcrRepository, name: str, code: str) -> None:
    body = repository.image("one", b"layer")
    refused = repository.v2("PUT", f"manifests/{name}", body, Content_Type=MANIFEST)
    assert (refused.status, refused.code) == (400, code)


def test_a_path_as_a_digest_is_refused(repository: EcrRepository) -> None:
    begun = repository.v2("POST", "blobs/uploads/")
    refused = repository.ask("PUT", f"{begun.headers['Location']}?digest=../../evil", b"evil")
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")


# -- one store for both APIs --------------------------------------------------------------------------


def test_a_pushed_image_is_in_the_api(repository: EcrRepository) -> None:
    digest = repository.push("one", b"x" * 1000, b"y" * 500)
    shown = repository.details()[digest]
    assert shown["imageTags"] == ["one"]
    assert shown["imageManifestMediaType"] == MANIFEST
    assert shown["imagePushedAt"].timestamp() == pytest.approx(repository.aws.now(), abs=5)
    assert shown["imageSizeInBytes"] > 1500
    assert repository.ecr.list_images(repositoryName=repository.name)["imageIds"] == [
        {"imageDigest": digest, "imageTag": "one"}
    ]


def test_a_manifest_is_the_same_bytes_by_tag_by_digest_and_through_the_api(repository: EcrRepository) -> None:
    manifest = repository.image("same", b"layer")
    pushed = repository.put(manifest, "same")
    assert pushed.headers["Docker-Content-Digest"] == sha(manifest)
    by_tag, by_digest = repository.v2("GET", "manifests/same"), repository.v2("GET", f"manifests/{sha(manifest)}")
    assert by_tag.body == by_digest.body == manifest
    assert by_tag.headers["Content-Type"] == MANIFEST
    asked = repository.ecr.batch_get_image(
        repositoryName=repository.name, imageIds=[{"imageTag": "same"}, {"imageTag": "no"}]
    )
    assert asked["images"][0]["imageManifest"].encode() == manifest
    assert asked["images"][0]["imageId"] == {"imageDigest": sha(manifest), "imageTag": "same"}
    assert asked["failures"][0]["imageId"] == {"imageTag": "no"}
    head = repository.v2("HEAD", "manifests/same")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(manifest)))


def test_the_size_of_an_index_is_that_of_its_largest_image(repository: EcrRepository) -> None:
    index = repository.push_index("all")
    shown = repository.details()
    assert len(shown) == 3
    assert shown[index]["imageManifestMediaType"] == INDEX
    assert "imageTags" not in next(each for digest, each in shown.items() if digest != index)
    assert shown[index]["imageSizeInBytes"] == max(each["imageSizeInBytes"] for each in shown.values())


def test_an_image_put_through_the_api_can_be_pulled(repository: EcrRepository) -> None:
    config, layer = b'{"os":"linux"}', b"l" * 100
    for body in (config, layer):
        upload = repository.ecr.initiate_layer_upload(repositoryName=repository.name)["uploadId"]
        repository.ecr.upload_layer_part(
            repositoryName=repository.name,
            uploadId=upload,
            partFirstByte=0,
            partLastByte=len(body) - 1,
            layerPartBlob=body,
        )
        repository.ecr.complete_layer_upload(repositoryName=repository.name, uploadId=upload, layerDigests=[sha(body)])
    manifest = dump({"mediaType": MANIFEST, "config": part("c", config), "layers": [part(LAYER, layer)]})
    put = repository.ecr.put_image(repositoryName=repository.name, imageManifest=manifest.decode(), imageTag="api")
    assert put["image"]["imageId"]["imageDigest"] == sha(manifest)
    assert repository.v2("GET", "manifests/api").body == manifest
    assert (
        repository.ask("GET", repository.v2("GET", f"blobs/{sha(layer)}").headers["Location"], credentials=None).body
        == layer
    )


def test_the_api_refuses_a_layer_with_another_digest(
    repository: EcrRepository,
) -> None:
    upload = repository.ecr.initiate_layer_upload(repositoryName=repository.name)["uploadId"]
    request = {"repositoryName": repository.name, "uploadId": upload}
    repository.ecr.upload_layer_part(**request, partFirstByte=0, partLastByte=0, layerPartBlob=b"x")
    with pytest.raises(ClientError) as error:
        repository.ecr.complete_layer_upload(**request, layerDigests=[sha(b"y")])
    assert code_of(error) == "InvalidLayerException"


def test_deleting_an_image_deletes_only_the_layers_that_no_other_image_uses(repository: EcrRepository) -> None:
    first, second = repository.push("first", b"shared", b"own"), repository.push("second", b"shared")
    reply = repository.ecr.batch_delete_image(repositoryName=repository.name, imageIds=[{"imageTag": "first"}])
    assert reply["imageIds"] == [{"imageDigest": first, "imageTag": "first"}]
    assert repository.v2("GET", "manifests/first").code == "MANIFEST_UNKNOWN"
    assert repository.v2("HEAD", f"blobs/{sha(b'own')}").status == 404
    assert repository.v2("HEAD", f"blobs/{sha(b'shared')}").status == 200
    assert list(repository.details()) == [second]


def test_an_image_is_deleted_with_its_last_tag(repository: EcrRepository) -> None:
    manifest = repository.image("two tags", b"l")
    repository.put(manifest, "a")
    repository.put(manifest, "b")
    assert repository.tags() == {"a", "b"}
    repository.ecr.batch_delete_image(repositoryName=repository.name, imageIds=[{"imageTag": "a"}])
    assert repository.tags() == {"b"}
    repository.ecr.batch_delete_image(repositoryName=repository.name, imageIds=[{"imageTag": "b"}])
    assert repository.details() == {}


def test_a_repository_can_be_deleted_with_its_images(repository: EcrRepository) -> None:
    repository.push("one", b"layer of the deleted")
    with pytest.raises(ClientError) as error:
        repository.ecr.delete_repository(repositoryName=repository.name)
    assert code_of(error) == "RepositoryNotEmptyException"
    repository.ecr.delete_repository(repositoryName=repository.name, force=True)
    assert repository.v2("GET", "manifests/one").code == "NAME_UNKNOWN"


# -- errors -------------------------------------------------------------------------------------------


def test_a_push_does_not_create_a_repository(repository: EcrRepository) -> None:
    for method, path in (("POST", "blobs/uploads/"), ("GET", "manifests/x"), ("HEAD", f"blobs/{sha(b'')}")):
        assert repository.ask(method, f"/v2/missing/repository/{path}").status == 404
    refused = repository.ask(
        "PUT", "/v2/missing/repository/manifests/x", dump({"mediaType": MANIFEST}), Content_Type=MANIFEST
    )
    assert (refused.status, refused.code) == (404, "NAME_UNKNOWN")


def test_an_immutable_tag_cannot_be_pushed_again_even_for_the_same_image(immutable: EcrRepository) -> None:
    manifest = immutable.image("first", b"l")
    assert immutable.put(manifest, "t").status == 201
    for again in (manifest, immutable.image("second", b"l")):
        refused = immutable.put(again, "t")
        assert (refused.status, refused.code) == (400, "TAG_INVALID")
        assert b"cannot be overwritten because the tag is immutable" in refused.body
        with pytest.raises(ClientError) as error:
            immutable.ecr.put_image(repositoryName=immutable.name, imageManifest=again.decode(), imageTag="t")
        assert code_of(error) == "ImageTagAlreadyExistsException"
    assert immutable.put(manifest, "another").status == 201
    assert immutable.put(manifest).status == 201, "a push by digest of an existing image succeeds"


def test_one_of_many_concurrent_pushes_gets_an_immutable_tag(immutable: EcrRepository) -> None:
    manifests = [immutable.image(str(number), b"l") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda manifest: immutable.put(manifest, "t"), manifests))
    assert sorted(reply.status for reply in replies) == [201, *[400] * 7]
    assert immutable.tags() == {"t"}


def test_a_mutable_tag_moves_and_leaves_the_old_image_without_one(repository: EcrRepository) -> None:
    old, new = (repository.image(seed, b"l") for seed in ("old", "new"))
    repository.put(old, "t")
    assert repository.put(new, "t").status == 201
    shown = repository.details()
    assert shown[sha(new)]["imageTags"] == ["t"]
    assert "imageTags" not in shown[sha(old)]


def test_a_manifest_with_missing_blobs_is_refused(repository: EcrRepository) -> None:
    layers = dump({"mediaType": MANIFEST, "config": part("c", b"no"), "layers": [part(LAYER, b"nor this")]})
    index = dump({"mediaType": INDEX, "manifests": [part(MANIFEST, b"missing")]})
    for manifest, digest in ((layers, sha(b"nor this")), (index, sha(b"missing"))):
        refused = repository.put(manifest, "t")
        assert (refused.status, refused.code) == (400, "MANIFEST_BLOB_UNKNOWN")
        assert digest.encode() in refused.body
    assert repository.details() == {}


@pytest.mark.parametrize(("body", "code"), [(b"{", "MANIFEST_INVALID"), (b"\xff", "MANIFEST_INVALID")])
def test_an_invalid_manifest_is_refused(repository: EcrRepository, body: bytes, code: str) -> None:
    refused = repository.v2("PUT", "manifests/t", body, Content_Type=MANIFEST)
    assert (refused.status, refused.code) == (400, code)


def test_a_manifest_pushed_by_another_digest_is_refused(repository: EcrRepository) -> None:
    refused = repository.put(repository.image("x", b"l"), sha(b"another"))
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")


def test_a_client_that_does_not_accept_an_index_does_not_get_it(repository: EcrRepository) -> None:
    repository.push_index("all")
    assert repository.v2("GET", "manifests/all", Accept=MANIFEST).code == "MANIFEST_UNKNOWN"
    assert repository.v2("GET", "manifests/all", Accept=f"{MANIFEST}, {INDEX}").status == 200


def test_the_registry_does_not_delete(repository: EcrRepository) -> None:
    digest = repository.push("t")
    assert repository.v2("DELETE", f"manifests/{digest}").code == "UNSUPPORTED"


def test_an_image_of_an_index_cannot_be_deleted_before_the_index(repository: EcrRepository) -> None:
    index = repository.push_index("all")
    parts = [{"imageDigest": digest} for digest in repository.details() if digest != index]
    every = [{"imageDigest": index}, *parts]
    reply = repository.ecr.batch_delete_image(repositoryName=repository.name, imageIds=every)
    assert reply["imageIds"] == [{"imageDigest": index, "imageTag": "all"}]
    assert [each["failureCode"] for each in reply["failures"]] == ["ImageReferencedByManifestList"] * 2
    assert index in reply["failures"][0]["failureReason"]
    assert repository.ecr.batch_delete_image(repositoryName=repository.name, imageIds=parts)["failures"] == []
    assert repository.details() == {}


# -- layers -------------------------------------------------------------------------------------------


def test_a_layer_with_another_digest_is_discarded(repository: EcrRepository) -> None:
    begun = repository.v2("POST", "blobs/uploads/")
    refused = repository.ask("PUT", f"{begun.headers['Location']}?digest={sha(b'right')}", b"wrong")
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert (
        repository.v2("HEAD", f"blobs/{sha(b'right')}").status
        == repository.v2("HEAD", f"blobs/{sha(b'wrong')}").status
        == 404
    )
    again = repository.ask("PUT", f"{begun.headers['Location']}?digest={sha(b'right')}", b"right")
    assert (again.status, again.code) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_only_the_first_chunk_of_an_upload_is_kept_as_on_ecr(repository: EcrRepository) -> None:
    one = repository.v2("POST", "blobs/uploads/").headers["Location"]
    assert repository.ask("PATCH", one, b"whole").status == 201
    assert repository.ask("PUT", f"{one}?digest={sha(b'whole')}").status == 201
    two = repository.v2("POST", "blobs/uploads/").headers["Location"]
    assert repository.ask("PATCH", two, b"first ").status == 201
    assert repository.ask("PATCH", two, b"second").status == 201
    assert repository.ask("PUT", f"{two}?digest={sha(b'first second')}").code == "DIGEST_INVALID"


def test_an_empty_layer_can_be_pushed(repository: EcrRepository) -> None:
    repository.push_blob(b"")
    assert repository.v2("HEAD", f"blobs/{sha(b'')}").headers["Content-Length"] == "0"
    assert (
        repository.ask("GET", repository.v2("GET", f"blobs/{sha(b'')}").headers["Location"], credentials=None).body
        == b""
    )


def test_a_layer_is_downloaded_through_a_redirect_and_by_range(repository: EcrRepository) -> None:
    body = bytes(range(256)) * 5000
    repository.push_blob(body)
    sent = repository.v2("GET", f"blobs/{sha(body)}")
    assert sent.status == 307
    where = sent.headers["Location"]
    assert repository.ask("GET", where, credentials=None).body == body
    part = repository.ask("GET", where, credentials=None, Range="bytes=1000000-")
    assert (part.status, part.body) == (206, body[1_000_000:])
    assert part.headers["Content-Range"] == f"bytes 1000000-{len(body) - 1}/{len(body)}"
    assert repository.ask("GET", where, credentials=None, Range=f"bytes={len(body)}-").status == 416
    assert repository.ask("GET", where.replace(where.split("/")[-2], "guess"), credentials=None).status == 403


def test_layers_are_mounted_from_another_repository_once_the_account_has_opted_in(
    repository: EcrRepository, ecr_aws: LocalAWS
) -> None:
    other = EcrRepository(ecr_aws, f"{repository.name}/other")
    digest = other.push_blob(b"to be mounted")
    mount = f"blobs/uploads/?mount={digest}&from={other.name}"
    assert repository.ecr.get_account_setting(name="BLOB_MOUNTING")["value"] == "DISABLED"
    assert repository.v2("POST", mount).status == 202
    repository.ecr.put_account_setting(name="BLOB_MOUNTING", value="ENABLED")
    try:
        assert repository.v2("POST", mount).status == 201
        assert repository.v2("POST", f"blobs/uploads/?mount={sha(b'missing')}&from={other.name}").status == 202
        assert repository.v2("POST", f"blobs/uploads/?mount={digest}&from=no/such").status == 202
    finally:
        repository.ecr.put_account_setting(name="BLOB_MOUNTING", value="DISABLED")
    other.ecr.delete_repository(repositoryName=other.name, force=True)
    assert repository.ask("GET", repository.v2("GET", f"blobs/{digest}").headers["Location"]).body == b"to be mounted"


# -- lifecycle policies -------------------------------------------------------------------------------


def test_an_image_expires_by_its_push_date(repository: EcrRepository) -> None:
    repository.expire({"tagStatus": "any", "countNumber": 3})
    repository.push("old")
    repository.aws.advance(2 * DAY)
    repository.login()
    repository.push("new")
    assert repository.tags() == {"old", "new"}
    repository.aws.advance(1.01 * DAY)
    assert repository.tags() == {"new"}
    repository.login()
    assert repository.v2("GET", "manifests/old").status == repository.v2("HEAD", f"blobs/{sha(b'old')}").status == 404


def test_the_images_of_an_index_expire_after_it_by_the_untagged_rule(repository: EcrRepository) -> None:
    repository.expire({"tagStatus": "untagged", "countNumber": 1}, {"tagStatus": "any", "countNumber": 5})
    repository.push_index("all")
    repository.put(repository.image("left over", b"l"))
    repository.aws.advance(2 * DAY)
    assert len(repository.details()) == 3, "the image outside an index has expired, although it is as new"
    repository.aws.advance(2.9 * DAY)
    assert len(repository.details()) == 3
    repository.aws.advance(0.2 * DAY)
    assert repository.details() == {}


def test_without_an_untagged_rule_the_images_of_an_expired_index_stay(repository: EcrRepository) -> None:
    repository.expire({"tagStatus": "tagged", "tagPrefixList": ["a"], "countNumber": 1})
    repository.push_index("all")
    repository.aws.advance(1.1 * DAY)
    assert len(repository.details()) == 2


def test_an_index_that_is_pushed_again_keeps_the_old_images(repository: EcrRepository) -> None:
    repository.expire({"tagStatus": "untagged", "countNumber": 1}, {"tagStatus": "any", "countNumber": 5})
    repository.push_index("all")
    document = json.loads(repository.v2("GET", "manifests/all").body)
    repository.aws.advance(4 * DAY)
    repository.login()
    assert repository.put(dump({**document, "annotations": {"again": "1"}}), "all-again").status == 201
    repository.aws.advance(4 * DAY)
    assert repository.tags() == {"all-again"}
    assert len(repository.details()) == 3


def test_pushing_the_same_image_under_another_tag_does_not_renew_it(repository: EcrRepository) -> None:
    manifest = repository.image("old", b"l")
    repository.put(manifest, "first")
    before = repository.details()[sha(manifest)]["imagePushedAt"]
    repository.aws.advance(DAY)
    repository.login()
    assert repository.put(manifest, "second").status == 201
    shown = repository.details()[sha(manifest)]
    assert (sorted(shown["imageTags"]), shown["imagePushedAt"]) == (["first", "second"], before)


def test_rules_select_by_tag_and_count_and_the_higher_priority_wins(repository: EcrRepository) -> None:
    for tag in ("keep-1", "test-1", "test-2", "test-3"):
        repository.push(tag)
        repository.aws.advance(60)
    repository.expire(
        {"tagStatus": "tagged", "tagPatternList": ["keep*"], "countNumber": 100},
        {"tagStatus": "tagged", "tagPrefixList": ["test-"], "countType": "imageCountMoreThan", "countNumber": 2},
        {"tagStatus": "any", "countNumber": 1},
    )
    assert repository.tags() == {"keep-1", "test-2", "test-3"}
    repository.aws.advance(2 * DAY)
    assert repository.tags() == {"keep-1", "test-2", "test-3"}, "rules of lower priority must not expire them"


# -- clients ------------------------------------------------------------------------------------------


def run(repository: EcrRepository, image: str) -> dict[str, Any]:
    """Run a task with an image on Fargate, and return it after it has started or failed."""
    ecs, name = repository.aws.client("ecs"), f"t-{uuid.uuid4().hex[:8]}"
    subnets = [s["SubnetId"] for s in repository.aws.client("ec2").describe_subnets()["Subnets"]][:1]
    ecs.create_cluster(clusterName=name)
    ecs.register_task_definition(
        family=name,
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="256",
        memory="512",
        containerDefinitions=[{"name": "main", "image": image, "command": ["true"]}],
    )
    network = {"awsvpcConfiguration": {"subnets": subnets, "assignPublicIp": "ENABLED"}}
    started = ecs.run_task(cluster=name, taskDefinition=name, launchType="FARGATE", networkConfiguration=network)
    arn = started["tasks"][0]["taskArn"]

    def settled() -> dict[str, Any] | None:
        (task,) = ecs.describe_tasks(cluster=name, tasks=[arn])["tasks"]
        found: dict[str, Any] = task
        return found if task["lastStatus"] in ("RUNNING", "STOPPED") else None

    found = wait_for(settled, "the task has started or failed", 30)
    ecs.stop_task(cluster=name, task=arn)
    assert found is not None
    return found


def test_a_task_pulls_its_image_and_fails_without_it(repository: EcrRepository) -> None:
    digest = repository.push("there")
    assert run(repository, f"{repository.host}/{repository.name}@{digest}")["lastStatus"] == "RUNNING"
    assert repository.details()[digest]["lastRecordedPullTime"].timestamp() == pytest.approx(
        repository.aws.now(), abs=60
    )
    repository.ecr.batch_delete_image(repositoryName=repository.name, imageIds=[{"imageDigest": digest}])
    for gone in (
        f"{repository.host}/{repository.name}@{digest}",
        f"{repository.host}/{repository.name}:there",
        f"{repository.host}/no/such:x",
    ):
        task = run(repository, gone)
        assert task["lastStatus"] == "STOPPED"
        assert "CannotPullContainerError" in task["containers"][0]["reason"]


@needs_skopeo
def test_skopeo_pushes_pulls_and_inspects(repository: EcrRepository, tmp_path: Path) -> None:
    def skopeo(*words: str, code: int = 0) -> str:
        done = subprocess.run(["skopeo", *words], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    repository.push_index("all")
    name, creds, folder = (
        f"docker://{repository.host}/{repository.name}",
        repository.credentials,
        f"oci:{tmp_path}/image:all",
    )
    skopeo("copy", "--all", "--src-tls-verify=false", "--src-creds", creds, f"{name}:all", folder)
    skopeo("copy", "--all", "--dest-tls-verify=false", "--dest-creds", creds, folder, f"{name}:again")
    raw = skopeo("inspect", "--raw", "--tls-verify=false", "--creds", creds, f"{name}:again")
    assert repository.details()[sha(raw.encode())]["imageTags"] == ["again"], "skopeo rewrites the index"
    assert [each["platform"]["architecture"] for each in json.loads(raw)["manifests"]] == ["amd64", "arm64"]
    push = ("copy", "--all", "--dest-tls-verify=false", folder)
    assert "authentication required" in skopeo(*push, "--dest-creds", "AWS:wrong", f"{name}:no", code=1)
    assert "repository" in skopeo(*push, "--dest-creds", creds, f"docker://{repository.host}/no/such:x", code=1)
    # A new layer: skopeo uploads it in one chunk.
    other = EcrRepository(repository.aws, f"{repository.name}/other")
    skopeo(*push, "--dest-creds", other.credentials, f"docker://{repository.host}/{other.name}:all")
    assert len(other.details()) == 3


def test_our_registry_client_continues_a_push_after_its_password_expires(repository: EcrRepository) -> None:
    pytest.importorskip("httpx", reason="the extra image is not installed")
    from dask_starburst.environment.registry.client import Registry

    asked = []

    def credentials() -> tuple[str, str]:
        asked.append(repository.login())
        user, _, password = asked[-1].partition(":")
        return user, password

    registry = Registry(repository.host, credentials)
    registry.push_blob(repository.name, sha(b"first"), b"first")
    repository.aws.advance(13 * 3600)
    registry.push_blob(repository.name, sha(b"second"), b"second")
    assert registry.blob(repository.name, sha(b"first")) == b"first"
    repository.aws.advance(13 * 3600)
    assert registry.blob(repository.name, sha(b"second")) == b"second"
    repository.aws.advance(13 * 3600)
    assert registry.has_blob(repository.name, sha(b"second")), "a refused HEAD has no error code"
    assert len(asked) == 4


def test_our_registry_client_pushes_an_index_only_once(repository: EcrRepository) -> None:
    pytest.importorskip("httpx", reason="the extra image is not installed")
    from dask_starburst.environment.registry import documents
    from dask_starburst.environment.registry.client import Registry

    def push(tag: str) -> int:
        registry = Registry(repository.host, lambda: ("AWS", repository.login().partition(":")[2]))
        named = []
        for platform in ("linux/amd64", "linux/arm64"):
            layer, config = platform.encode() * 100_000, documents.canonical({"architecture": platform})
            for body in (layer, config):
                if not registry.has_blob(repository.name, sha(body)):
                    registry.push_blob(repository.name, sha(body), body)
            head = documents.Descriptor(documents.CONFIG, sha(config), len(config))
            one = documents.manifest(head, [documents.Descriptor(documents.LAYER_TAR, sha(layer), len(layer))])
            registry.put_manifest(repository.name, one.digest, one)
            named.append(documents.Descriptor(one.media_type, one.digest, len(one.body), platform))
        index = documents.index(named)
        assert registry.put_manifest(repository.name, tag, index) == index.digest
        found = registry.manifest(repository.name, tag)
        assert found is not None
        assert [each.platform for each in documents.manifests_of(found)] == ["linux/amd64", "linux/arm64"]
        assert index.digest in repository.details()
        return registry.uploaded

    assert push("first") > 2_000_000
    assert push("second") == 0
