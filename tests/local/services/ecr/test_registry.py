"""The embedded ECR: its registry under /v2/ and its JSON API show the same images, and refuse what AWS refuses."""

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
from tests.support.ecr_repository import INDEX, LAYER, MANIFEST, Hub, dump, part, sha

DAY = 86_400.0
needs_skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")


@pytest.fixture(scope="module")
def ecr_aws() -> Iterator[LocalAWS]:
    # Its own: months pass here.
    with LocalAWS(processes=False) as running:
        yield running


@pytest.fixture
def hub(ecr_aws: LocalAWS) -> Hub:
    return Hub(ecr_aws, f"t/{uuid.uuid4().hex[:10]}")


@pytest.fixture
def immutable(ecr_aws: LocalAWS) -> Hub:
    return Hub(ecr_aws, f"t/{uuid.uuid4().hex[:10]}", mutability="IMMUTABLE")


# -- who may come in ----------------------------------------------------------------------------------


def test_without_the_right_password_there_is_a_challenge(hub: Hub) -> None:
    for credentials in (None, "AWS:wrong", f"me:{hub.credentials.partition(':')[2]}"):
        refused = hub.ask("GET", "/v2/", credentials=credentials)
        assert refused.status == 401
        assert refused.code == "UNAUTHORIZED"
        assert refused.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert hub.ask("GET", "/v2/").status == 200


def test_a_password_holds_for_twelve_hours_by_the_embedded_clock(hub: Hub) -> None:
    data = hub.ecr.get_authorization_token()["authorizationData"][0]
    assert data["proxyEndpoint"] == hub.aws.endpoint_url
    assert data["expiresAt"].timestamp() == pytest.approx(hub.aws.now() + 12 * 3600, abs=5)
    hub.aws.advance(11.9 * 3600)
    assert hub.ask("GET", "/v2/").status == 200
    hub.aws.advance(0.2 * 3600)
    refused = hub.ask("GET", "/v2/")
    assert (refused.status, refused.code) == (403, "DENIED"), "ECR says so, not 401"
    assert b"expired" in refused.body
    assert "WWW-Authenticate" not in refused.headers
    hub.login()
    assert hub.ask("GET", "/v2/").status == 200


# -- hostile names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "digest", ["../../evil", f"sha256:{'a' * 64}/../evil", f"sha256:{'A' * 64}", "sha512:ab", 7, None]
)
def test_a_manifest_that_names_no_digest_is_refused(hub: Hub, digest: Any) -> None:
    wrong = {"mediaType": LAYER, "digest": digest, "size": 1}
    for document in ({"layers": [wrong]}, {"config": wrong}, {"manifests": [wrong]}, {"layers": "all"}):
        refused = hub.v2("PUT", "manifests/latest", dump({"schemaVersion": 2, "mediaType": MANIFEST, **document}))
        assert (refused.status, refused.code) == (400, "MANIFEST_INVALID")
    assert hub.ecr.list_images(repositoryName=hub.name)["imageIds"] == []


@pytest.mark.parametrize(("name", "code"), [("sha256:ab", "DIGEST_INVALID"), ("a%20b", "TAG_INVALID")])
def test_a_manifest_under_a_name_that_is_none_is_refused(hub: Hub, name: str, code: str) -> None:
    body = hub.image("one", b"layer")
    refused = hub.v2("PUT", f"manifests/{name}", body, Content_Type=MANIFEST)
    assert (refused.status, refused.code) == (400, code)


def test_a_layer_under_a_path_is_not_kept(hub: Hub) -> None:
    begun = hub.v2("POST", "blobs/uploads/")
    refused = hub.ask("PUT", f"{begun.headers['Location']}?digest=../../evil", b"evil")
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")


# -- one store for both APIs --------------------------------------------------------------------------


def test_an_image_that_was_pushed_is_shown_by_the_api(hub: Hub) -> None:
    digest = hub.push("one", b"x" * 1000, b"y" * 500)
    shown = hub.details()[digest]
    assert shown["imageTags"] == ["one"]
    assert shown["imageManifestMediaType"] == MANIFEST
    assert shown["imagePushedAt"].timestamp() == pytest.approx(hub.aws.now(), abs=5)
    assert shown["imageSizeInBytes"] > 1500
    assert hub.ecr.list_images(repositoryName=hub.name)["imageIds"] == [{"imageDigest": digest, "imageTag": "one"}]


def test_a_manifest_is_the_same_bytes_by_tag_by_digest_and_through_the_api(hub: Hub) -> None:
    manifest = hub.image("same", b"layer")
    pushed = hub.put(manifest, "same")
    assert pushed.headers["Docker-Content-Digest"] == sha(manifest)
    by_tag, by_digest = hub.v2("GET", "manifests/same"), hub.v2("GET", f"manifests/{sha(manifest)}")
    assert by_tag.body == by_digest.body == manifest
    assert by_tag.headers["Content-Type"] == MANIFEST
    asked = hub.ecr.batch_get_image(repositoryName=hub.name, imageIds=[{"imageTag": "same"}, {"imageTag": "no"}])
    assert asked["images"][0]["imageManifest"].encode() == manifest
    assert asked["images"][0]["imageId"] == {"imageDigest": sha(manifest), "imageTag": "same"}
    assert asked["failures"][0]["imageId"] == {"imageTag": "no"}
    head = hub.v2("HEAD", "manifests/same")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(manifest)))


def test_an_index_is_as_large_as_its_largest_image(hub: Hub) -> None:
    index = hub.push_index("all")
    shown = hub.details()
    assert len(shown) == 3
    assert shown[index]["imageManifestMediaType"] == INDEX
    assert "imageTags" not in next(each for digest, each in shown.items() if digest != index)
    assert shown[index]["imageSizeInBytes"] == max(each["imageSizeInBytes"] for each in shown.values())


def test_an_image_put_through_the_api_can_be_pulled(hub: Hub) -> None:
    config, layer = b'{"os":"linux"}', b"l" * 100
    for body in (config, layer):
        upload = hub.ecr.initiate_layer_upload(repositoryName=hub.name)["uploadId"]
        hub.ecr.upload_layer_part(
            repositoryName=hub.name,
            uploadId=upload,
            partFirstByte=0,
            partLastByte=len(body) - 1,
            layerPartBlob=body,
        )
        hub.ecr.complete_layer_upload(repositoryName=hub.name, uploadId=upload, layerDigests=[sha(body)])
    manifest = dump({"mediaType": MANIFEST, "config": part("c", config), "layers": [part(LAYER, layer)]})
    put = hub.ecr.put_image(repositoryName=hub.name, imageManifest=manifest.decode(), imageTag="api")
    assert put["image"]["imageId"]["imageDigest"] == sha(manifest)
    assert hub.v2("GET", "manifests/api").body == manifest
    assert hub.ask("GET", hub.v2("GET", f"blobs/{sha(layer)}").headers["Location"], credentials=None).body == layer


def test_a_layer_that_is_something_else_than_it_is_said_to_be_is_refused_by_the_api_too(hub: Hub) -> None:
    upload = hub.ecr.initiate_layer_upload(repositoryName=hub.name)["uploadId"]
    request = {"repositoryName": hub.name, "uploadId": upload}
    hub.ecr.upload_layer_part(**request, partFirstByte=0, partLastByte=0, layerPartBlob=b"x")
    with pytest.raises(ClientError) as error:
        hub.ecr.complete_layer_upload(**request, layerDigests=[sha(b"y")])
    assert code_of(error) == "InvalidLayerException"


def test_deleting_an_image_takes_its_layers_along_but_not_those_of_others(hub: Hub) -> None:
    first, second = hub.push("first", b"shared", b"own"), hub.push("second", b"shared")
    reply = hub.ecr.batch_delete_image(repositoryName=hub.name, imageIds=[{"imageTag": "first"}])
    assert reply["imageIds"] == [{"imageDigest": first, "imageTag": "first"}]
    assert hub.v2("GET", "manifests/first").code == "MANIFEST_UNKNOWN"
    assert hub.v2("HEAD", f"blobs/{sha(b'own')}").status == 404
    assert hub.v2("HEAD", f"blobs/{sha(b'shared')}").status == 200
    assert list(hub.details()) == [second]


def test_an_image_goes_with_its_last_tag(hub: Hub) -> None:
    manifest = hub.image("two tags", b"l")
    hub.put(manifest, "a")
    hub.put(manifest, "b")
    assert hub.tags() == {"a", "b"}
    hub.ecr.batch_delete_image(repositoryName=hub.name, imageIds=[{"imageTag": "a"}])
    assert hub.tags() == {"b"}
    hub.ecr.batch_delete_image(repositoryName=hub.name, imageIds=[{"imageTag": "b"}])
    assert hub.details() == {}


def test_a_repository_with_all_that_it_has_can_be_deleted(hub: Hub) -> None:
    hub.push("one", b"layer of the deleted")
    with pytest.raises(ClientError) as error:
        hub.ecr.delete_repository(repositoryName=hub.name)
    assert code_of(error) == "RepositoryNotEmptyException"
    hub.ecr.delete_repository(repositoryName=hub.name, force=True)
    assert hub.v2("GET", "manifests/one").code == "NAME_UNKNOWN"


# -- what is refused ----------------------------------------------------------------------------------


def test_pushing_makes_no_repository(hub: Hub) -> None:
    for method, path in (("POST", "blobs/uploads/"), ("GET", "manifests/x"), ("HEAD", f"blobs/{sha(b'')}")):
        assert hub.ask(method, f"/v2/nobody/has/{path}").status == 404
    refused = hub.ask("PUT", "/v2/nobody/has/manifests/x", dump({"mediaType": MANIFEST}), Content_Type=MANIFEST)
    assert (refused.status, refused.code) == (404, "NAME_UNKNOWN")


def test_an_immutable_tag_is_not_given_again_even_to_the_same_image(immutable: Hub) -> None:
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
    assert immutable.put(manifest).status == 201, "by its digest it is only there already"


def test_of_many_that_want_an_immutable_tag_at_once_one_gets_it(immutable: Hub) -> None:
    manifests = [immutable.image(str(number), b"l") for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda manifest: immutable.put(manifest, "t"), manifests))
    assert sorted(reply.status for reply in replies) == [201, *[400] * 7]
    assert immutable.tags() == {"t"}


def test_a_mutable_tag_moves_and_leaves_the_old_image_without_one(hub: Hub) -> None:
    old, new = (hub.image(seed, b"l") for seed in ("old", "new"))
    hub.put(old, "t")
    assert hub.put(new, "t").status == 201
    shown = hub.details()
    assert shown[sha(new)]["imageTags"] == ["t"]
    assert "imageTags" not in shown[sha(old)]


def test_a_manifest_that_names_what_is_not_there_is_refused(hub: Hub) -> None:
    layers = dump({"mediaType": MANIFEST, "config": part("c", b"no"), "layers": [part(LAYER, b"nor this")]})
    index = dump({"mediaType": INDEX, "manifests": [part(MANIFEST, b"missing")]})
    for manifest, digest in ((layers, sha(b"nor this")), (index, sha(b"missing"))):
        refused = hub.put(manifest, "t")
        assert (refused.status, refused.code) == (400, "MANIFEST_BLOB_UNKNOWN")
        assert digest.encode() in refused.body
    assert hub.details() == {}


@pytest.mark.parametrize(("body", "code"), [(b"{", "MANIFEST_INVALID"), (b"\xff", "MANIFEST_INVALID")])
def test_nonsense_is_no_manifest(hub: Hub, body: bytes, code: str) -> None:
    refused = hub.v2("PUT", "manifests/t", body, Content_Type=MANIFEST)
    assert (refused.status, refused.code) == (400, code)


def test_a_manifest_is_pushed_by_no_other_digest_than_its_own(hub: Hub) -> None:
    refused = hub.put(hub.image("x", b"l"), sha(b"another"))
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")


def test_who_does_not_accept_an_index_does_not_get_it(hub: Hub) -> None:
    hub.push_index("all")
    assert hub.v2("GET", "manifests/all", Accept=MANIFEST).code == "MANIFEST_UNKNOWN"
    assert hub.v2("GET", "manifests/all", Accept=f"{MANIFEST}, {INDEX}").status == 200


def test_nothing_is_deleted_through_the_registry(hub: Hub) -> None:
    digest = hub.push("t")
    assert hub.v2("DELETE", f"manifests/{digest}").code == "UNSUPPORTED"


def test_an_image_of_an_index_is_not_deleted_before_the_index(hub: Hub) -> None:
    index = hub.push_index("all")
    parts = [{"imageDigest": digest} for digest in hub.details() if digest != index]
    every = [{"imageDigest": index}, *parts]
    reply = hub.ecr.batch_delete_image(repositoryName=hub.name, imageIds=every)
    assert reply["imageIds"] == [{"imageDigest": index, "imageTag": "all"}]
    assert [each["failureCode"] for each in reply["failures"]] == ["ImageReferencedByManifestList"] * 2
    assert index in reply["failures"][0]["failureReason"]
    assert hub.ecr.batch_delete_image(repositoryName=hub.name, imageIds=parts)["failures"] == []
    assert hub.details() == {}


# -- layers -------------------------------------------------------------------------------------------


def test_a_layer_that_is_not_what_was_announced_is_thrown_away(hub: Hub) -> None:
    begun = hub.v2("POST", "blobs/uploads/")
    refused = hub.ask("PUT", f"{begun.headers['Location']}?digest={sha(b'right')}", b"wrong")
    assert (refused.status, refused.code) == (400, "DIGEST_INVALID")
    assert hub.v2("HEAD", f"blobs/{sha(b'right')}").status == hub.v2("HEAD", f"blobs/{sha(b'wrong')}").status == 404
    again = hub.ask("PUT", f"{begun.headers['Location']}?digest={sha(b'right')}", b"right")
    assert (again.status, again.code) == (404, "BLOB_UPLOAD_UNKNOWN")


def test_of_an_upload_in_chunks_only_the_first_arrives_as_on_ecr(hub: Hub) -> None:
    one = hub.v2("POST", "blobs/uploads/").headers["Location"]
    assert hub.ask("PATCH", one, b"whole").status == 201
    assert hub.ask("PUT", f"{one}?digest={sha(b'whole')}").status == 201
    two = hub.v2("POST", "blobs/uploads/").headers["Location"]
    assert hub.ask("PATCH", two, b"first ").status == 201
    assert hub.ask("PATCH", two, b"second").status == 201
    assert hub.ask("PUT", f"{two}?digest={sha(b'first second')}").code == "DIGEST_INVALID"


def test_an_empty_layer_is_one(hub: Hub) -> None:
    hub.push_blob(b"")
    assert hub.v2("HEAD", f"blobs/{sha(b'')}").headers["Content-Length"] == "0"
    assert hub.ask("GET", hub.v2("GET", f"blobs/{sha(b'')}").headers["Location"], credentials=None).body == b""


def test_a_layer_is_fetched_from_elsewhere_and_in_parts(hub: Hub) -> None:
    body = bytes(range(256)) * 5000
    hub.push_blob(body)
    sent = hub.v2("GET", f"blobs/{sha(body)}")
    assert sent.status == 307
    where = sent.headers["Location"]
    assert hub.ask("GET", where, credentials=None).body == body
    part = hub.ask("GET", where, credentials=None, Range="bytes=1000000-")
    assert (part.status, part.body) == (206, body[1_000_000:])
    assert part.headers["Content-Range"] == f"bytes 1000000-{len(body) - 1}/{len(body)}"
    assert hub.ask("GET", where, credentials=None, Range=f"bytes={len(body)}-").status == 416
    assert hub.ask("GET", where.replace(where.split("/")[-2], "guess"), credentials=None).status == 403


def test_layers_are_mounted_from_another_repository_once_the_account_has_opted_in(hub: Hub, ecr_aws: LocalAWS) -> None:
    other = Hub(ecr_aws, f"{hub.name}/other")
    digest = other.push_blob(b"to be mounted")
    mount = f"blobs/uploads/?mount={digest}&from={other.name}"
    assert hub.ecr.get_account_setting(name="BLOB_MOUNTING")["value"] == "DISABLED"
    assert hub.v2("POST", mount).status == 202
    hub.ecr.put_account_setting(name="BLOB_MOUNTING", value="ENABLED")
    try:
        assert hub.v2("POST", mount).status == 201
        assert hub.v2("POST", f"blobs/uploads/?mount={sha(b'nobody has it')}&from={other.name}").status == 202
        assert hub.v2("POST", f"blobs/uploads/?mount={digest}&from=no/such").status == 202
    finally:
        hub.ecr.put_account_setting(name="BLOB_MOUNTING", value="DISABLED")
    other.ecr.delete_repository(repositoryName=other.name, force=True)
    assert hub.ask("GET", hub.v2("GET", f"blobs/{digest}").headers["Location"]).body == b"to be mounted"


# -- lifecycle policies -------------------------------------------------------------------------------


def test_an_image_expires_by_the_day_on_which_it_was_pushed(hub: Hub) -> None:
    hub.expire({"tagStatus": "any", "countNumber": 3})
    hub.push("old")
    hub.aws.advance(2 * DAY)
    hub.login()
    hub.push("new")
    assert hub.tags() == {"old", "new"}
    hub.aws.advance(1.01 * DAY)
    assert hub.tags() == {"new"}
    hub.login()
    assert hub.v2("GET", "manifests/old").status == hub.v2("HEAD", f"blobs/{sha(b'old')}").status == 404


def test_the_images_of_an_index_last_as_long_as_it_does_and_need_the_untagged_rule(hub: Hub) -> None:
    hub.expire({"tagStatus": "untagged", "countNumber": 1}, {"tagStatus": "any", "countNumber": 5})
    hub.push_index("all")
    hub.put(hub.image("left over", b"l"))
    hub.aws.advance(2 * DAY)
    assert len(hub.details()) == 3, "what was in no index is gone, though it was as young"
    hub.aws.advance(2.9 * DAY)
    assert len(hub.details()) == 3
    hub.aws.advance(0.2 * DAY)
    assert hub.details() == {}


def test_without_an_untagged_rule_the_images_of_an_expired_index_stay(hub: Hub) -> None:
    hub.expire({"tagStatus": "tagged", "tagPrefixList": ["a"], "countNumber": 1})
    hub.push_index("all")
    hub.aws.advance(1.1 * DAY)
    assert len(hub.details()) == 2


def test_an_index_that_is_pushed_again_keeps_the_old_images(hub: Hub) -> None:
    hub.expire({"tagStatus": "untagged", "countNumber": 1}, {"tagStatus": "any", "countNumber": 5})
    hub.push_index("all")
    document = json.loads(hub.v2("GET", "manifests/all").body)
    hub.aws.advance(4 * DAY)
    hub.login()
    assert hub.put(dump({**document, "annotations": {"again": "1"}}), "all-again").status == 201
    hub.aws.advance(4 * DAY)
    assert hub.tags() == {"all-again"}
    assert len(hub.details()) == 3


def test_the_same_image_pushed_under_another_tag_is_no_younger(hub: Hub) -> None:
    manifest = hub.image("old", b"l")
    hub.put(manifest, "first")
    before = hub.details()[sha(manifest)]["imagePushedAt"]
    hub.aws.advance(DAY)
    hub.login()
    assert hub.put(manifest, "second").status == 201
    shown = hub.details()[sha(manifest)]
    assert (sorted(shown["imageTags"]), shown["imagePushedAt"]) == (["first", "second"], before)


def test_rules_go_by_tag_and_by_number_and_the_higher_priority_decides(hub: Hub) -> None:
    for tag in ("keep-1", "test-1", "test-2", "test-3"):
        hub.push(tag)
        hub.aws.advance(60)
    hub.expire(
        {"tagStatus": "tagged", "tagPatternList": ["keep*"], "countNumber": 100},
        {"tagStatus": "tagged", "tagPrefixList": ["test-"], "countType": "imageCountMoreThan", "countNumber": 2},
        {"tagStatus": "any", "countNumber": 1},
    )
    assert hub.tags() == {"keep-1", "test-2", "test-3"}
    hub.aws.advance(2 * DAY)
    assert hub.tags() == {"keep-1", "test-2", "test-3"}, "no rule of lower priority touches them"


# -- those who use it ---------------------------------------------------------------------------------


def run(hub: Hub, image: str) -> dict[str, Any]:
    """Run a task of an image on Fargate, and return it when it has started or failed."""
    ecs, name = hub.aws.client("ecs"), f"t-{uuid.uuid4().hex[:8]}"
    subnets = [s["SubnetId"] for s in hub.aws.client("ec2").describe_subnets()["Subnets"]][:1]
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


def test_a_task_pulls_its_image_and_fails_without_it(hub: Hub) -> None:
    digest = hub.push("there")
    assert run(hub, f"{hub.host}/{hub.name}@{digest}")["lastStatus"] == "RUNNING"
    assert hub.details()[digest]["lastRecordedPullTime"].timestamp() == pytest.approx(hub.aws.now(), abs=60)
    hub.ecr.batch_delete_image(repositoryName=hub.name, imageIds=[{"imageDigest": digest}])
    for gone in (f"{hub.host}/{hub.name}@{digest}", f"{hub.host}/{hub.name}:there", f"{hub.host}/no/such:x"):
        task = run(hub, gone)
        assert task["lastStatus"] == "STOPPED"
        assert "CannotPullContainerError" in task["containers"][0]["reason"]


@needs_skopeo
def test_skopeo_pushes_pulls_and_inspects(hub: Hub, tmp_path: Path) -> None:
    def skopeo(*words: str, code: int = 0) -> str:
        done = subprocess.run(["skopeo", *words], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    hub.push_index("all")
    name, creds, folder = f"docker://{hub.host}/{hub.name}", hub.credentials, f"oci:{tmp_path}/image:all"
    skopeo("copy", "--all", "--src-tls-verify=false", "--src-creds", creds, f"{name}:all", folder)
    skopeo("copy", "--all", "--dest-tls-verify=false", "--dest-creds", creds, folder, f"{name}:again")
    raw = skopeo("inspect", "--raw", "--tls-verify=false", "--creds", creds, f"{name}:again")
    assert hub.details()[sha(raw.encode())]["imageTags"] == ["again"], "skopeo writes the index anew"
    assert [each["platform"]["architecture"] for each in json.loads(raw)["manifests"]] == ["amd64", "arm64"]
    push = ("copy", "--all", "--dest-tls-verify=false", folder)
    assert "authentication required" in skopeo(*push, "--dest-creds", "AWS:wrong", f"{name}:no", code=1)
    assert "repository" in skopeo(*push, "--dest-creds", creds, f"docker://{hub.host}/no/such:x", code=1)
    # What is not there yet: skopeo sends it in one chunk.
    other = Hub(hub.aws, f"{hub.name}/other")
    skopeo(*push, "--dest-creds", other.credentials, f"docker://{hub.host}/{other.name}:all")
    assert len(other.details()) == 3


def test_our_own_client_goes_on_when_its_password_expires_in_the_middle_of_a_push(hub: Hub) -> None:
    pytest.importorskip("httpx", reason="the extra image is not installed")
    from dask_starburst.environment.registry.client import Registry

    asked = []

    def credentials() -> tuple[str, str]:
        asked.append(hub.login())
        user, _, password = asked[-1].partition(":")
        return user, password

    registry = Registry(hub.host, credentials)
    registry.push_blob(hub.name, sha(b"first"), b"first")
    hub.aws.advance(13 * 3600)
    registry.push_blob(hub.name, sha(b"second"), b"second")
    assert registry.blob(hub.name, sha(b"first")) == b"first"
    hub.aws.advance(13 * 3600)
    assert registry.blob(hub.name, sha(b"second")) == b"second"
    hub.aws.advance(13 * 3600)
    assert registry.has_blob(hub.name, sha(b"second")), "a refused HEAD does not say why"
    assert len(asked) == 4


def test_our_own_client_pushes_an_index_and_the_second_time_nothing(hub: Hub) -> None:
    pytest.importorskip("httpx", reason="the extra image is not installed")
    from dask_starburst.environment.registry import documents
    from dask_starburst.environment.registry.client import Registry

    def push(tag: str) -> int:
        registry = Registry(hub.host, lambda: ("AWS", hub.login().partition(":")[2]))
        named = []
        for platform in ("linux/amd64", "linux/arm64"):
            layer, config = platform.encode() * 100_000, documents.canonical({"architecture": platform})
            for body in (layer, config):
                if not registry.has_blob(hub.name, sha(body)):
                    registry.push_blob(hub.name, sha(body), body)
            head = documents.Descriptor(documents.CONFIG, sha(config), len(config))
            one = documents.manifest(head, [documents.Descriptor(documents.LAYER_TAR, sha(layer), len(layer))])
            registry.put_manifest(hub.name, one.digest, one)
            named.append(documents.Descriptor(one.media_type, one.digest, len(one.body), platform))
        index = documents.index(named)
        assert registry.put_manifest(hub.name, tag, index) == index.digest
        found = registry.manifest(hub.name, tag)
        assert found is not None
        assert [each.platform for each in documents.manifests_of(found)] == ["linux/amd64", "linux/arm64"]
        assert index.digest in hub.details()
        return registry.uploaded

    assert push("first") > 2_000_000
    assert push("second") == 0
