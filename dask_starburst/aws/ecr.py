"""ECR: the repository of starburst, its images, and the registry's password."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from tlz import partition_all

from dask_starburst.aws.faults import MISSING, code_of
from dask_starburst.aws.session import AWS
from dask_starburst.aws.tolerant import create, delete, get
from dask_starburst.errors import ImageError, StarburstError
from dask_starburst.plan.images.lifetime import StoredImage, lifecycle_policy, refresh_tag, refreshed, ttl_of
from dask_starburst.plan.requests.policies import NAMESPACE

#: The most images of BatchGetImage and BatchDeleteImage, and tasks of DescribeTasks.
BATCH = 100
_HOST = re.compile(r"\d{12}\.dkr[.-]ecr(-fips)?\.[a-z0-9-]+\.(amazonaws\.com|amazonaws\.com\.cn|on\.aws)")
_ACCEPTED = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
]


def is_ours(host: str) -> bool:
    """Return whether a registry is a private ECR, which accepts AWS credentials."""
    return _HOST.fullmatch(host) is not None


async def ensure_repository(aws: AWS, name: str, tags: Mapping[str, str], ttl_days: int | None) -> str:
    """Create a repository if it does not exist, set its image expiry, and return its URI.

    The settings of an existing repository stay, except its lifecycle policy.
    """
    uri = await find_repository(aws, name)
    if uri is None:
        made = await create(
            aws,
            "ecr",
            "CreateRepository",
            repositoryName=name,
            imageTagMutability="IMMUTABLE",
            imageScanningConfiguration={"scanOnPush": True},
            encryptionConfiguration={"encryptionType": "AES256"},
            tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )
        # Another process may have created it at the same time.
        uri = str(made["repository"]["repositoryUri"]) if made else str(await find_repository(aws, name))
    policy = lifecycle_policy(ttl_days)
    if await _policy(aws, name) != policy:
        await aws.call("ecr", "PutLifecyclePolicy", repositoryName=name, lifecyclePolicyText=json.dumps(policy))
    return uri


async def remove_repository(aws: AWS, name: str) -> None:
    """Delete a repository with its images. No-op if it does not exist."""
    await delete(aws, "ecr", "DeleteRepository", repositoryName=name, force=True)


async def find_repository(aws: AWS, name: str) -> str | None:
    """Return the URI of a repository, as ``"host/name"``, or None."""
    answer = await get(aws, "ecr", "DescribeRepositories", repositoryNames=[name])
    return None if answer is None else str(answer["repositories"][0]["repositoryUri"])


async def ttl_days(aws: AWS, name: str) -> int | None:
    """Return the days after which a repository's images expire; None for never."""
    policy = await _policy(aws, name)
    return None if policy is None else ttl_of(policy)


async def _policy(aws: AWS, name: str) -> dict[str, Any] | None:
    answer = await get(aws, "ecr", "GetLifecyclePolicy", repositoryName=name)
    return None if answer is None else dict(json.loads(answer["lifecyclePolicyText"]))


class RegistryLogin:
    """Returns a new user and password of the account's registry on each call.

    A password is valid for 12 hours. A caller asks again after the registry has refused the last one.

    Attributes
    ----------
    host : str
        The registry host, as in image names.
    """

    def __init__(self, aws: AWS, host: str, first: tuple[str, str]) -> None:
        self.host = host
        self._aws = aws
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._first: tuple[str, str] | None = first

    def __call__(self) -> tuple[str, str]:
        """Return user and password. Call it from any thread except the event loop's, which runs the AWS call."""
        with self._lock:
            first, self._first = self._first, None
        return first or asyncio.run_coroutine_threadsafe(_login(self._aws), self._loop).result()[1]

    def __repr__(self) -> str:
        return f"<RegistryLogin {self.host}>"


async def registry_credentials(aws: AWS) -> RegistryLogin:
    """Return the login of the account's registry."""
    host, pair = await _login(aws)
    return RegistryLogin(aws, host, pair)


async def _login(aws: AWS) -> tuple[str, tuple[str, str]]:
    answer = await aws.call("ecr", "GetAuthorizationToken")
    data = answer["authorizationData"][0]
    user, _, password = base64.b64decode(data["authorizationToken"]).decode().partition(":")
    return str(data["proxyEndpoint"]).partition("://")[2], (user, password)


async def images(aws: AWS, repository: str) -> tuple[StoredImage, ...]:
    """Return all images and indexes of a repository; empty if it does not exist."""
    try:
        found = await aws.pages("ecr", "DescribeImages", "imageDetails", repositoryName=repository)
    except StarburstError as error:
        if code_of(error) not in MISSING:
            raise
        return ()
    texts = await manifests(aws, repository, [detail["imageDigest"] for detail in found])
    # Skip images deleted meanwhile.
    return tuple(_stored(each, texts[each["imageDigest"]]) for each in found if each["imageDigest"] in texts)


async def manifests(aws: AWS, repository: str, digests: Iterable[str]) -> dict[str, str]:
    """Return the manifests of the existing digests."""
    calls = (
        aws.call("ecr", "BatchGetImage", repositoryName=repository, imageIds=part, acceptedMediaTypes=_ACCEPTED)
        for part in _batches(digests)
    )
    answers = await asyncio.gather(*calls)
    return {each["imageId"]["imageDigest"]: each["imageManifest"] for answer in answers for each in answer["images"]}


async def delete_images(aws: AWS, repository: str, gone: Iterable[StoredImage]) -> dict[str, str]:
    """Delete images with all their tags; return the failures by digest.

    Indexes are deleted first: an image in an index cannot be deleted before the index.
    """
    every = list(gone)
    failures: dict[str, str] = {}
    for wave in ([i for i in every if i.children], [i for i in every if not i.children]):
        for part in _batches(image.digest for image in wave):
            answer = await aws.call("ecr", "BatchDeleteImage", repositoryName=repository, imageIds=part)
            failures |= {each["imageId"]["imageDigest"]: _reason(each) for each in answer.get("failures", [])}
    return {digest: reason for digest, reason in failures.items() if not reason.startswith("ImageNotFound")}


async def refresh(aws: AWS, repository: str, image: StoredImage) -> StoredImage:
    """Push an image again under a new tag to renew its expiry; existing images are unchanged.

    Only a manifest is pushed: the layers, and the images of an index, exist already.

    Raises
    ------
    ImageError
        It does not exist any more, or its format cannot be pushed again.
    """
    text = (await manifests(aws, repository, [image.digest])).get(image.digest)
    if text is None or not image.tags:
        raise ImageError(f"{repository} has no image {image.digest} with a tag any more; build it again.")
    now = aws.now()
    tag = refresh_tag(image.tags[-1], now)
    await create(  # another process may do so in the same second
        aws,
        "ecr",
        "PutImage",
        repositoryName=repository,
        imageManifest=refreshed(text, now),
        imageManifestMediaType=image.media_type,
        imageTag=tag,
    )
    found = await aws.call("ecr", "DescribeImages", repositoryName=repository, imageIds=[{"imageTag": tag}])
    detail = found["imageDetails"][0]
    return _stored(detail, (await manifests(aws, repository, [detail["imageDigest"]]))[detail["imageDigest"]])


async def in_use(aws: AWS) -> dict[str, tuple[str, ...]]:
    """Return the images in use by reference, with the ECS clusters that use them.

    Includes the images of every task in the account and region, and of the next workers of our pools.
    """
    users: dict[str, set[str]] = defaultdict(set)
    clusters = await aws.pages("ecs", "ListClusters", "clusterArns")
    families = await aws.pages(
        "ecs", "ListTaskDefinitionFamilies", "families", familyPrefix=f"{NAMESPACE}-", status="ACTIVE"
    )
    found = await asyncio.gather(*(_of_tasks(aws, arn) for arn in clusters), *(_of_family(aws, f) for f in families))
    for user, names in found:
        for name in names:
            users[name].add(user)
    return {name: tuple(sorted(who)) for name, who in users.items()}


async def _of_tasks(aws: AWS, cluster: str) -> tuple[str, set[str]]:
    names: set[str] = set()
    try:
        arns = await aws.pages("ecs", "ListTasks", "taskArns", cluster=cluster)
    except StarburstError as error:
        if code_of(error) not in MISSING:
            raise
        arns = []  # the cluster was deleted meanwhile
    for start in range(0, len(arns), BATCH):
        answer = await aws.call("ecs", "DescribeTasks", cluster=cluster, tasks=arns[start : start + BATCH])
        for container in (each for task in answer["tasks"] for each in task.get("containers", [])):
            if "image" in container:
                names.add(container["image"])
            if "imageDigest" in container:  # the digest of the tag when the task started
                names.add(f"{container.get('image', '').partition('@')[0]}@{container['imageDigest']}")
    return cluster.rpartition("/")[2], names


async def _of_family(aws: AWS, family: str) -> tuple[str, set[str]]:
    """Return the images of the latest revision, which a pool runs."""
    try:
        answer = await aws.call("ecs", "DescribeTaskDefinition", taskDefinition=family)
    except StarburstError as error:
        if code_of(error) not in MISSING | {"ClientException"}:
            raise
        answer = {"taskDefinition": {"containerDefinitions": []}}  # the pool was deleted meanwhile
    containers = answer["taskDefinition"]["containerDefinitions"]
    return family.rpartition("-")[0], {each["image"] for each in containers}


def _stored(detail: Mapping[str, Any], text: str) -> StoredImage:
    manifest = json.loads(text)
    named = manifest.get("manifests", [])
    blobs = [*manifest.get("layers", []), *([manifest["config"]] if "config" in manifest else [])]
    platforms = [_platform(each["platform"]) for each in named if "platform" in each]
    pulled = detail.get("lastRecordedPullTime")
    return StoredImage(
        digest=detail["imageDigest"],
        tags=tuple(sorted(detail.get("imageTags", []))),
        pushed_at=detail["imagePushedAt"].timestamp(),
        size=detail.get("imageSizeInBytes", 0),
        media_type=detail.get("imageManifestMediaType", ""),
        platforms=tuple(each for each in platforms if not each.startswith("unknown/")),
        children=tuple(each["digest"] for each in named),
        blobs=tuple((each["digest"], each["size"]) for each in blobs),
        pulled_at=None if pulled is None else pulled.timestamp(),
    )


def _platform(platform: Mapping[str, str]) -> str:
    return f"{platform.get('os', 'unknown')}/{platform.get('architecture', 'unknown')}"


def _batches(digests: Iterable[str]) -> list[list[dict[str, str]]]:
    return [[{"imageDigest": digest} for digest in part] for part in partition_all(BATCH, digests)]


def _reason(failure: Mapping[str, Any]) -> str:
    return f"{failure.get('failureCode', '')}: {failure.get('failureReason', 'no reason given')}"
