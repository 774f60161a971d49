"""Image manifests, indexes and configurations of the OCI image specification 1.1, written as canonical JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dask_starburst.errors import BadArgument, ImageError
from dask_starburst.settings.names import DIGEST, HOST, REPOSITORY, TAG

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER_TAR = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = f"{LAYER_TAR}+gzip"
LAYER_ZSTD = f"{LAYER_TAR}+zstd"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
#: Supported media types in order of preference: the Accept header of a request for a manifest.
MANIFESTS = (INDEX, DOCKER_LIST, MANIFEST, DOCKER_MANIFEST)
#: Docker's layer media types and their OCI equivalents.
_AS_OCI = {
    "application/vnd.docker.image.rootfs.diff.tar.gzip": LAYER_GZIP,
    "application/vnd.docker.image.rootfs.diff.tar": LAYER_TAR,
}
#: The registry of image names without a host.
DOCKER_HUB = "registry-1.docker.io"
_HUB_NAMES = ("docker.io", "index.docker.io", DOCKER_HUB)
#: Limit in bytes of a manifest or configuration, which is held in memory: the limit of registries for manifests
#: (OCI distribution specification 1.1, "Pushing Manifests").
MAX_DOCUMENT_BYTES = 4 << 20
#: Limit in bytes of a layer: Amazon ECR's is 52,000 MiB (AmazonECR/latest/userguide/service-quotas).
MAX_LAYER_BYTES = 52_000 << 20


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of an image: ``host/repository``, and a tag, a digest, or both."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse an image name as docker does: without a host it is on Docker Hub.

        Raises
        ------
        BadArgument
            The text is not a valid image name.
        """
        rest, _, digest = text.partition("@")
        first, slash, below = rest.partition("/")
        has_host = bool(slash) and HOST.fullmatch(first) is not None
        host, path = (first, below) if has_host else (DOCKER_HUB, rest)
        repository, _, tag = path.partition(":")
        if host in _HUB_NAMES:
            host, repository = DOCKER_HUB, repository if "/" in repository else f"library/{repository}"
        sound = REPOSITORY.fullmatch(repository) and (not tag or TAG.fullmatch(tag))
        if not sound or ("@" in text and not DIGEST.fullmatch(digest)) or path.endswith(":"):
            raise BadArgument(
                f"{text!r} is not a valid image name; an example is 'public.ecr.aws/docker/library/python:3.12'."
            )
        return cls(host, repository, tag or None, digest or None)

    @property
    def name(self) -> str:
        """Host and repository."""
        return f"{self.host}/{self.repository}"

    def __str__(self) -> str:
        tag, digest = f":{self.tag}" if self.tag else "", f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An OCI descriptor, which points to a blob or a manifest.

    Parameters
    ----------
    media_type : str
        Media type of the target.
    digest : str
        ``"sha256:…"`` of its content.
    size : int
        Size in bytes.
    platform : str, optional
        In OCI's notation: ``"linux/arm64"``.
    annotations : mapping, optional
        Annotations.
    """

    media_type: str
    digest: str
    size: int
    platform: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> dict[str, Any]:
        """The descriptor as a JSON object."""
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.platform:
            found["platform"] = dict(zip(("os", "architecture", "variant"), self.platform.split("/"), strict=False))
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found

    @classmethod
    def of(cls, document: object) -> Descriptor:
        """Read and validate a descriptor from a registry.

        Raises
        ------
        ImageError
            Its digest or size is invalid.
        """
        found = as_mapping(document, "descriptor")
        platform, size, annotations = found.get("platform"), found.get("size"), found.get("annotations")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_LAYER_BYTES:
            raise ImageError(
                f"a manifest gives {size!r:.40} as the size of a blob; it must be 0 to {MAX_LAYER_BYTES} bytes."
            )
        return cls(
            str(found.get("mediaType", "")),
            check_digest(found.get("digest")),
            size,
            platform_of(platform) if isinstance(platform, Mapping) else None,
            annotations if isinstance(annotations, Mapping) else {},
        )


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index: its media type and the exact bytes that its digest covers."""

    media_type: str
    body: bytes

    @property
    def digest(self) -> str:
        """The digest of the body."""
        return digest_of(self.body)

    @property
    def document(self) -> dict[str, Any]:
        """The parsed body."""
        return read_document(self.body, "manifest")

    @property
    def config(self) -> Descriptor:
        """The descriptor of the image's configuration."""
        return Descriptor.of(self.document.get("config"))

    @property
    def is_index(self) -> bool:
        """Whether it is an index of platform manifests."""
        return self.media_type in (INDEX, DOCKER_LIST)


def digest_of(body: bytes) -> str:
    """Return the digest of a blob."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def check_digest(digest: object) -> str:
    """Validate an external digest before it becomes part of a URL or path.

    Raises
    ------
    ImageError
        It is not ``sha256:`` and 64 hexadecimal digits.
    """
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        raise ImageError(f"{digest!r:.100} is not a digest of a blob; one is sha256: and 64 hexadecimal digits.")
    return digest


def check_reference(reference: str) -> str:
    """Validate a tag or digest before it becomes part of a URL.

    Raises
    ------
    ImageError
        It is neither.
    """
    return reference if TAG.fullmatch(reference) else check_digest(reference)


def check_repository(repository: str) -> str:
    """Validate a repository name before it becomes part of a URL.

    Raises
    ------
    BadArgument
        It is not one.
    """
    if not REPOSITORY.fullmatch(repository) or len(repository) > 256:
        raise BadArgument(f"{repository!r} is not the name of a repository; give one such as 'starburst/worker'.")
    return repository


def file_name(digest: str) -> str:
    """Return the file name of a cached blob."""
    return check_digest(digest).removeprefix("sha256:")


def as_mapping(document: object, what: str) -> Mapping[str, Any]:
    """Validate that a part of a document is a JSON object.

    Raises
    ------
    ImageError
        It is not a JSON object.
    """
    if not isinstance(document, Mapping):
        raise ImageError(
            f"a {what} of the image is not a JSON object but {type(document).__name__}; use another image."
        )
    return document


def read_document(body: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON object from a registry.

    Raises
    ------
    ImageError
        It is too large, or not a JSON object.
    """
    if len(body) > MAX_DOCUMENT_BYTES:
        raise ImageError(f"the {what} of the image has {len(body)} bytes; the limit is {MAX_DOCUMENT_BYTES}.")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"the {what} of the image is not JSON: {error}") from error
    return dict(as_mapping(found, what))


def canonical(document: Mapping[str, Any]) -> bytes:
    """Return canonical JSON: one form for equal documents."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def manifest(
    config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str] | None = None
) -> Manifest:
    """Return the manifest of one platform."""
    document: dict[str, Any] = {"config": config.document, "layers": [layer.document for layer in layers]}
    return _signed(MANIFEST, document, annotations)


def index(manifests: Sequence[Descriptor], annotations: Mapping[str, str] | None = None) -> Manifest:
    """Return the index of the platforms' manifests."""
    return _signed(INDEX, {"manifests": [each.document for each in manifests]}, annotations)


def _signed(media_type: str, document: dict[str, Any], annotations: Mapping[str, str] | None) -> Manifest:
    document |= {"schemaVersion": 2, "mediaType": media_type}
    if annotations:
        document["annotations"] = dict(annotations)
    return Manifest(media_type, canonical(document))


def media_type_of(body: bytes) -> str:
    """Return the media type that a manifest declares, or infer it from its fields."""
    document = read_document(body, "manifest")
    return str(document.get("mediaType") or (INDEX if "manifests" in document else MANIFEST))


def manifests_of(found: Manifest) -> tuple[Descriptor, ...]:
    """Return the manifests of an index, without attestations, which have no platform."""
    named = map(Descriptor.of, _list(found.document.get("manifests", []), "manifests"))
    return tuple(each for each in named if each.platform and not each.platform.startswith("unknown/"))


def layers_of(found: Manifest) -> tuple[Descriptor, ...]:
    """Return the layers of a manifest, the lowest first."""
    layers = tuple(map(Descriptor.of, _list(found.document.get("layers"), "layers")))
    if (size := sum(layer.size for layer in layers)) > MAX_LAYER_BYTES:
        raise ImageError(f"the layers of an image have {size} bytes in total; the limit is {MAX_LAYER_BYTES}.")
    return layers


def _list(value: object, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise ImageError(f"the {what} of a manifest are {type(value).__name__} and not a list; use another image.")
    return value


def choose(found: Manifest, platform: str) -> Descriptor:
    """Return an index's manifest for a platform.

    Raises
    ------
    ImageError
        The index lacks the platform; the message lists those that it has.
    """
    there = manifests_of(found)
    chosen = next((each for each in there if each.platform == platform), None)
    if chosen is None:
        names = ", ".join(sorted({each.platform or "" for each in there})) or "nothing"
        raise ImageError(f"the image {found.digest} is not built for {platform}; it is for {names}.")
    return chosen


def check_config(config: Mapping[str, Any], platform: str, name: str) -> None:
    """Validate an image's configuration and its platform.

    Raises
    ------
    ImageError
        The configuration is invalid or for another platform.
    """
    if platform_of(config) != platform:
        raise ImageError(f"the image {name} is not built for {platform}; it is for {platform_of(config)} only.")
    for digest in _list(as_mapping(config.get("rootfs"), "rootfs").get("diff_ids"), "diff_ids"):
        check_digest(digest)
    inner = as_mapping(config.get("config") or {}, "config")
    labels = as_mapping(inner.get("Labels") or {}, "Labels")
    pairs = _list(inner.get("Env") or [], "Env")
    if not all(isinstance(pair, str) and "=" in pair for pair in pairs) or not all(map(_is_text, labels.values())):
        raise ImageError(f"the image {name} has environment variables or labels that are not text; use another one.")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def platform_of(document: Mapping[str, Any]) -> str:
    """Return the platform of a descriptor or configuration: ``"linux/arm64"``; arm64's variant v8 is omitted."""
    system, architecture = document.get("os", "unknown"), document.get("architecture", "unknown")
    variant = document.get("variant")
    usual = not variant or (architecture == "arm64" and variant == "v8")
    return f"{system}/{architecture}" if usual else f"{system}/{architecture}/{variant}"


def as_oci(layer: Descriptor) -> Descriptor:
    """Return a layer with its OCI media type; the content is the same."""
    return replace(layer, media_type=_AS_OCI.get(layer.media_type, layer.media_type), annotations={})
