"""The embedded ECR: moto's repositories with AWS's rules and real image layers.

moto stores the lists of images. Lookup, validation, references and expiry are implemented here.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import threading
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from moto.ecr.exceptions import RepositoryNotFoundException, ValidationException
from moto.ecr.models import Image, ecr_backends

from dask_starburst.local.backend.backend import ACCOUNT
from dask_starburst.local.http.protocols import JSON, Answer, Reply, ServiceError, error_answer
from dask_starburst.local.services.ecr import lifecycle
from dask_starburst.local.services.ecr.blobs import Blobs, is_digest

#: Lifetime of a password in seconds (docs.aws.amazon.com/AmazonECR/latest/APIReference/API_GetAuthorizationToken.html).
TOKEN_LIFE = 12 * 3600
_SETTINGS = {"BLOB_MOUNTING": ("ENABLED", "DISABLED")}
_DAY = 24 * 3600


class Ecr:
    """The state shared by the JSON API and the registry.

    Parameters
    ----------
    now : callable
        The virtual time.
    region : str
        The region of the registry's repositories.
    endpoint_url : str
        The URL of the registry.
    folder : Path
        The folder of the layers.

    Attributes
    ----------
    lock : RLock
        Held while images change. Code under it takes no other lock than the clock's.
    """

    def __init__(self, now: Callable[[], float], region: str, endpoint_url: str, folder: Path) -> None:
        self.lock = threading.RLock()
        self.now = now
        self.endpoint_url = endpoint_url
        self._folder = folder
        self._region = region
        self.reset()

    def reset(self) -> None:
        """Delete all passwords, settings and layers."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self.blobs = Blobs(self._folder)
        self._tokens: dict[str, float] = {}
        self._settings = {"BLOB_MOUNTING": "DISABLED"}

    # -- passwords ------------------------------------------------------------------------------

    def new_token(self) -> tuple[str, float]:
        """Return a new password and its expiry."""
        now = self.now()
        token, expires = secrets.token_urlsafe(48), now + TOKEN_LIFE
        with self.lock:
            # An expired password is reported as expired for as long again, then as unknown.
            self._tokens = {each: until for each, until in self._tokens.items() if now < until + TOKEN_LIFE}
            self._tokens[token] = expires
        return token, expires

    def password_state(self, token: str) -> Literal["valid", "expired", "unknown"]:
        """Return the state of a password."""
        expires = self._tokens.get(token)
        return "unknown" if expires is None else "valid" if self.now() < expires else "expired"

    # -- settings of the account ----------------------------------------------------------------

    @property
    def mounts_blobs(self) -> bool:
        """Whether the account has opted in to mounting layers across repositories."""
        return self._settings["BLOB_MOUNTING"] == "ENABLED"

    def put_account_setting(self, body: bytes) -> Answer:
        """Answer PutAccountSetting."""
        request = json.loads(body)
        name, value = request.get("name"), request.get("value")
        if value not in _SETTINGS.get(name, ()):
            return error_answer(
                "json", ServiceError("InvalidParameterException", f"{name}={value} is not a valid setting.")
            )
        self._settings[name] = value
        return _answer({"name": name, "value": value})

    def get_account_setting(self, body: bytes) -> Answer:
        """Answer GetAccountSetting."""
        name = json.loads(body).get("name")
        if name not in self._settings:
            return error_answer("json", ServiceError("InvalidParameterException", f"{name} is not a valid setting."))
        return _answer({"name": name, "value": self._settings[name]})

    # -- images ---------------------------------------------------------------------------------

    def repository(self, name: str) -> Any:
        """Return a repository without expired images.

        Raises
        ------
        RepositoryNotFoundException
            It does not exist. A push does not create it.
        """
        backend = ecr_backends[ACCOUNT][self._region]
        if name not in backend.repositories:
            raise RepositoryNotFoundException(name, ACCOUNT)
        self.expire(backend.repositories[name])
        return backend.repositories[name]

    def expire(self, repository: Any) -> None:
        """Remove the images that the lifecycle policy expires by now.

        AWS does it within 24 hours; here images are removed as soon as they expire.
        """
        with self.lock:
            while gone := lifecycle.expired(repository, self.now()):
                self.remove(repository, gone)

    def put(self, repository: Any, manifest: str, tag: str | None, media_type: str | None, digest: str | None) -> Any:
        """Put an image into a repository.

        Raises
        ------
        ServiceException
            The errors of PutImage.
        """
        document = _parsed(manifest)
        found = f"sha256:{hashlib.sha256(manifest.encode()).hexdigest()}"
        if digest and digest != found:
            raise _error("ImageDigestDoesNotMatchException", f"Image digest '{digest}' does not match '{found}'.")
        kind = media_type or document.get("mediaType")
        if not kind:
            raise _error("InvalidParameterException", "The manifest has no mediaType, and the request has none.")
        with self.lock:
            self.expire(repository)
            image = next((each for each in repository.images if each.image_digest == found), None)
            _check_parts(repository, document)
            self._take_tag(repository, tag, found)
            if image is None:
                image = Image(ACCOUNT, tag, manifest, repository.name, kind, found)
                image.image_pushed_at = int(self.now())
                image.stored_size = _size(repository, document)
                repository.images.append(image)
            elif tag is not None:
                image.update_tag(tag)
            return image

    def delete(self, repository: Any, requested: Iterable[dict[str, str]]) -> Reply:
        """Delete images and tags as BatchDeleteImage does: an image is deleted with its last tag."""
        reply: Reply = {"imageIds": [], "failures": []}
        with self.lock:
            # References are looked up once: a list and its images cannot be deleted in one call.
            lists = lifecycle.references(repository)
            for one in requested:
                failure = self._delete_one(repository, one, lists, reply["imageIds"])
                if failure:
                    code, reason = failure
                    reply["failures"].append({"imageId": one, "failureCode": code, "failureReason": reason})
        return reply

    def lacks(self, name: str) -> bool:
        """Return whether an image of this registry is missing; record a pull if it exists."""
        host = self.endpoint_url.partition("://")[2]
        if not name.startswith(f"{host}/"):
            return False
        rest, _, digest = name.removeprefix(f"{host}/").partition("@")
        path, _, tag = rest.partition(":")
        try:
            image = find(self.repository(path), None if digest else tag or "latest", digest or None)
        except RepositoryNotFoundException:
            return True
        if image is not None:
            self.pulled(image)
        return image is None

    def pulled(self, image: Any) -> None:
        """Record the pull time of an image. AWS does so at least once a day."""
        before = getattr(image, "last_recorded_pull_time", None)
        if before is None or self.now() - before >= _DAY:
            image.last_recorded_pull_time = int(self.now())

    def remove(self, repository: Any, gone: list[Any]) -> None:
        """Remove images from a repository, and the layers that only they used."""
        with self.lock:
            repository.images[:] = [image for image in repository.images if image not in gone]
            kept = {digest for image in repository.images for digest in blobs_of(json.loads(image.image_manifest))}
            lost = {digest for image in gone for digest in blobs_of(json.loads(image.image_manifest))} - kept
            for digest in lost:
                repository.layers.pop(digest, None)
            self.forget(lost)

    def forget(self, digests: Iterable[str]) -> None:
        """Delete the blobs that no repository uses."""
        everywhere = [backend for regions in ecr_backends.values() for backend in regions.values()]
        held = {digest for each in everywhere for one in each.repositories.values() for digest in one.layers}
        for digest in set(digests) - held:
            self.blobs.remove(digest)

    def _delete_one(
        self, repository: Any, requested: dict[str, str], lists: dict[str, list[str]], deleted: list[dict[str, str]]
    ) -> tuple[str, str] | None:
        digest, tag = requested.get("imageDigest"), requested.get("imageTag")
        if not digest and not tag:
            return "MissingDigestAndTag", "Invalid request parameters: both tag and digest cannot be null"
        image = find(repository, tag, digest)
        if image is None:
            return "ImageNotFound", "Requested image not found"
        if tag and not digest and len(image.image_tags) > 1:
            deleted.append({"imageDigest": image.image_digest, "imageTag": tag})
            _untag(image, tag)
            return None
        if image.image_digest in lists:
            holders = ", ".join(lists[image.image_digest])
            return "ImageReferencedByManifestList", f"Requested image referenced by manifest list: [{holders}]"
        deleted += [{"imageDigest": image.image_digest, "imageTag": each} for each in image.image_tags] or [
            {"imageDigest": image.image_digest}
        ]
        self.remove(repository, [image])
        return None

    def _take_tag(self, repository: Any, tag: str | None, digest: str) -> None:
        """Move a tag, or refuse it if it is immutable."""
        holder = find(repository, tag, None) if tag else None
        if holder is None or tag is None:
            return
        if _is_immutable(repository, tag):
            # Even for the same image (github.com/aws/containers-roadmap/issues/2380).
            raise _error(
                "ImageTagAlreadyExistsException",
                f"The image tag '{tag}' already exists in the '{repository.name}' repository and cannot be overwritten"
                " because the tag is immutable.",
            )
        if holder.image_digest == digest:
            raise _error(
                "ImageAlreadyExistsException",
                f"Image with digest '{digest}' and tag '{tag}' already exists in the repository with name"
                f" '{repository.name}' in registry with id '{ACCOUNT}'",
            )
        _untag(holder, tag)


def find(repository: Any, tag: str | None, digest: str | None) -> Any:
    """Return the image with this tag and this digest, if given."""
    return next(
        (
            image
            for image in repository.images
            if (not tag or tag in image.image_tags) and (not digest or digest == image.image_digest)
        ),
        None,
    )


def blobs_of(document: dict[str, Any]) -> list[str]:
    """Return the digests of a manifest's layers and configuration; an index has none."""
    parts = [*document.get("layers", []), *([document["config"]] if "config" in document else [])]
    return [part["digest"] for part in parts]


def _answer(reply: Reply) -> Answer:
    return 200, JSON, json.dumps(reply).encode()


def _error(code: str, message: str) -> ValidationException:
    # moto formats errors by the service of their class's package.
    return ValidationException(code, message)


def _parsed(manifest: str) -> dict[str, Any]:
    try:
        document = json.loads(manifest)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        text = "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'"
        raise _error("InvalidParameterException", text)
    _check_digests(document)
    return document


def _check_digests(document: dict[str, Any]) -> None:
    """Refuse a manifest with invalid descriptors: digest and size are required (OCI image specification 1.1)."""
    kinds = (
        [document["config"]] if "config" in document else [],
        *(document.get(n, []) for n in ("layers", "manifests")),
    )
    for part in (part for kind in kinds for part in (kind if isinstance(kind, list) else [kind])):
        found = part if isinstance(part, dict) else {}
        size = found.get("size")
        if not is_digest(found.get("digest")) or not isinstance(size, int) or isinstance(size, bool) or size < 0:
            text = "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid descriptor'"
            raise _error("InvalidParameterException", text)


def _check_parts(repository: Any, document: dict[str, Any]) -> None:
    """Refuse a manifest that refers to missing blobs or images."""
    layers = [digest for digest in blobs_of(document) if digest not in repository.layers]
    if layers:
        raise _error("LayersNotFoundException", _missing("Layers", layers, repository.name))
    existing = {image.image_digest for image in repository.images}
    images = [part["digest"] for part in document.get("manifests", []) if part["digest"] not in existing]
    if images:
        raise _error("ReferencedImagesNotFoundException", _missing("Images", images, repository.name))


def _missing(what: str, digests: list[str], repository: str) -> str:
    return (
        f"{what} with digests '{digests}' required for pushing image into repository with name '{repository}' in the"
        f" registry with id '{ACCOUNT}' do not exist"
    )


def _size(repository: Any, document: dict[str, Any]) -> int:
    """Return the size in DescribeImages; for a list, that of its largest image."""
    if "manifests" in document:
        parts = [find(repository, None, part["digest"]) for part in document["manifests"]]
        return max((part.stored_size for part in parts), default=0)
    return sum(repository.layers[digest] for digest in set(blobs_of(document)))


def _is_immutable(repository: Any, tag: str) -> bool:
    filters = repository.image_tag_mutability_exclusion_filters or []
    excepted = any(fnmatchcase(tag, each["filter"]) for each in filters)
    return bool(repository.is_tag_immutable() != excepted)


def _untag(image: Any, tag: str) -> None:
    image.remove_tag(tag)
    if not image.image_tags:
        image.image_tag = None
