"""The registry of the embedded ECR, under ``/v2/``: for docker, skopeo and starburst's own builder.

It has ECR's limits: a push does not create a repository, a blob is uploaded in one chunk, layers are downloaded
through a redirect, and an expired password is a 403 without a challenge.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import parse_qsl

from moto.core.exceptions import ServiceException

from dask_starburst.local.backend.backend import ACCOUNT
from dask_starburst.local.services.ecr.blobs import Upload, WrongDigestError, is_digest
from dask_starburst.local.services.ecr.repositories import Ecr, find

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

#: The path of layer downloads, in place of ECR's S3 URLs: signed, without a password.
LAYERS = "_layers"
_NAME = r"(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_MOST_MANIFEST = 4 << 20
_PIECE = 1 << 20
_BYTES = "application/octet-stream"
#: PutImage's errors as registry error codes.
_REFUSED = {
    "RepositoryNotFoundException": ("NAME_UNKNOWN", 404),
    "ImageTagAlreadyExistsException": ("TAG_INVALID", 400),
    "ImageAlreadyExistsException": ("TAG_INVALID", 400),
    "LayersNotFoundException": ("MANIFEST_BLOB_UNKNOWN", 400),
    "ReferencedImagesNotFoundException": ("MANIFEST_BLOB_UNKNOWN", 400),
    "ImageDigestDoesNotMatchException": ("DIGEST_INVALID", 400),
}

Reply = tuple[int, dict[str, str], Iterable[bytes]]


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.reply: Reply = (
            status,
            {"Content-Type": "application/json", **(headers or {})},
            [json.dumps({"errors": [{"code": code, "message": message}]}).encode()],
        )


class Registry:
    """The WSGI application of the registry.

    Parameters
    ----------
    ecr : Ecr
        The images.
    """

    def __init__(self, ecr: Ecr) -> None:
        self._ecr = ecr
        self._signature = secrets.token_urlsafe(16)
        routes: list[tuple[str, str, Callable[..., Reply]]] = [
            ("GET", r"/v2/?", self._version),
            ("GET", rf"/v2/{_NAME}/tags/list", self._tags),
            ("HEAD", rf"/v2/{_NAME}/manifests/(?P<reference>[^/]+)", self._get_manifest),
            ("GET", rf"/v2/{_NAME}/manifests/(?P<reference>[^/]+)", self._get_manifest),
            ("PUT", rf"/v2/{_NAME}/manifests/(?P<reference>[^/]+)", self._put_manifest),
            ("POST", rf"/v2/{_NAME}/blobs/uploads/?", self._begin),
            ("PATCH", rf"/v2/{_NAME}/blobs/uploads/(?P<upload>[^/]+)", self._chunk),
            ("PUT", rf"/v2/{_NAME}/blobs/uploads/(?P<upload>[^/]+)", self._finish),
            ("HEAD", rf"/v2/{_NAME}/blobs/(?P<digest>[^/]+)", self._has_blob),
            ("GET", rf"/v2/{_NAME}/blobs/(?P<digest>[^/]+)", self._where_blob),
        ]
        self._routes = [(method, re.compile(path), handler) for method, path, handler in routes]

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        status, headers, body = self._answer(environ)
        _drain(environ)
        headers = {"Docker-Distribution-Api-Version": "registry/2.0", **headers}
        if isinstance(body, list):
            headers.setdefault("Content-Length", str(sum(map(len, body))))
        start_response(f"{status} {HTTPStatus(status).phrase}", list(headers.items()))
        return [] if environ["REQUEST_METHOD"] == "HEAD" else body

    def _answer(self, environ: WSGIEnvironment) -> Reply:
        path, method = environ.get("PATH_INFO", ""), environ["REQUEST_METHOD"]
        try:
            if path.startswith(f"/{LAYERS}/"):
                return self._layer(environ, path)
            self._admit(environ)
            for requested, pattern, handler in self._routes:
                found = pattern.fullmatch(path)
                if found and requested == method:
                    return handler(environ, **found.groupdict())
            raise _Refused(405, "UNSUPPORTED", "The operation is unsupported.")
        except _Refused as refused:
            return refused.reply
        except ServiceException as error:
            code, status = _REFUSED.get(error.code, ("MANIFEST_INVALID", 400))
            return _Refused(status, code, error.message).reply

    def _admit(self, environ: WSGIEnvironment) -> None:
        kind, _, encoded = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            user = password = ""
        state = self._ecr.password_state(password) if kind.lower() == "basic" and user == "AWS" else "unknown"
        if state == "expired":
            # Not a 401, and without a challenge (github.com/flipt-io/flipt/issues/3043).
            raise _Refused(403, "DENIED", "Your authorization token has expired. Reauthenticate and try again.")
        if state == "unknown":
            challenge = f'Basic realm="{self._ecr.endpoint_url}/",service="ecr.amazonaws.com"'
            raise _Refused(401, "UNAUTHORIZED", "Not Authorized", {"WWW-Authenticate": challenge})

    # -- manifests ------------------------------------------------------------------------------

    def _version(self, environ: WSGIEnvironment) -> Reply:
        return 200, {"Content-Type": "application/json"}, [b"{}"]

    def _tags(self, environ: WSGIEnvironment, name: str) -> Reply:
        tags = [tag for image in self._ecr.repository(name).images for tag in image.image_tags]
        body = json.dumps({"name": name, "tags": sorted(tags)}).encode()
        return 200, {"Content-Type": "application/json"}, [body]

    def _get_manifest(self, environ: WSGIEnvironment, name: str, reference: str) -> Reply:
        repository = self._ecr.repository(name)
        by_digest = ":" in reference
        image = find(repository, None if by_digest else reference, reference if by_digest else None)
        accepted = environ.get("HTTP_ACCEPT", "*/*")
        if image is None or not ("*/*" in accepted or image.image_manifest_media_type in accepted):
            raise _Refused(404, "MANIFEST_UNKNOWN", "Requested image not found")
        if environ["REQUEST_METHOD"] == "GET":
            self._ecr.pulled(image)
        body = image.image_manifest.encode()
        headers = {
            "Content-Type": image.image_manifest_media_type,
            "Content-Length": str(len(body)),
            "Docker-Content-Digest": image.image_digest,
        }
        return 200, headers, [body]

    def _put_manifest(self, environ: WSGIEnvironment, name: str, reference: str) -> Reply:
        body = environ["wsgi.input"].read(_MOST_MANIFEST + 1)
        if len(body) > _MOST_MANIFEST:
            raise _Refused(400, "MANIFEST_INVALID", "The manifest is larger than 4 MiB.")
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise _Refused(400, "MANIFEST_INVALID", "The manifest is not valid JSON.") from error
        by_digest = ":" in reference
        if by_digest and not is_digest(reference):
            raise _Refused(400, "DIGEST_INVALID", f"'{reference}' is not a digest.")
        if not by_digest and not _TAG.fullmatch(reference):
            raise _Refused(400, "TAG_INVALID", f"'{reference}' is not a tag.")
        kind = environ.get("CONTENT_TYPE", "").partition(";")[0] or None
        repository = self._ecr.repository(name)
        image = self._ecr.put(
            repository, text, None if by_digest else reference, kind, reference if by_digest else None
        )
        headers = {
            "Location": f"{self._ecr.endpoint_url}/v2/{name}/manifests/{image.image_digest}",
            "Docker-Content-Digest": image.image_digest,
        }
        return 201, headers, []

    # -- blobs ----------------------------------------------------------------------------------

    def _begin(self, environ: WSGIEnvironment, name: str) -> Reply:
        repository, query = self._ecr.repository(name), _query(environ)
        digest = query.get("mount", "")
        if digest and self._mount(repository, digest, query.get("from", "")):
            return 201, self._at(name, digest), []
        return 202, self._upload_headers(name, self._ecr.blobs.begin(), 0), []

    def _mount(self, repository: Any, digest: str, source: str) -> bool:
        """Mount a layer if the account has opted in; otherwise ECR starts an upload."""
        if not self._ecr.mounts_blobs:
            return False
        with self._ecr.lock:
            try:
                size = self._ecr.repository(source).layers.get(digest)
            except ServiceException:
                return False
            if size is None:
                return False
            repository.layers[digest] = size
            return True

    def _chunk(self, environ: WSGIEnvironment, name: str, upload: str) -> Reply:
        self._ecr.repository(name)
        found = self._upload(upload)
        found.chunks += 1
        if found.chunks == 1:
            found.append(environ["wsgi.input"])
        # ECR answers 201, not 202, and drops all chunks but the first (github.com/aws/containers-roadmap/issues/2831).
        return 201, self._upload_headers(name, upload, found.size), []

    def _finish(self, environ: WSGIEnvironment, name: str, upload: str) -> Reply:
        repository, digest = self._ecr.repository(name), _query(environ).get("digest", "")
        self._upload(upload).append(environ["wsgi.input"])
        try:
            with self._ecr.lock:  # or deleting an image now would delete the blob
                repository.layers[digest] = self._ecr.blobs.finish(upload, digest)
        except WrongDigestError as error:
            raise _Refused(400, "DIGEST_INVALID", f"The layer has the digest '{error}', not '{digest}'.") from error
        return 201, self._at(name, digest), []

    def _has_blob(self, environ: WSGIEnvironment, name: str, digest: str) -> Reply:
        size = self._size(name, digest)
        headers = {"Content-Type": _BYTES, "Content-Length": str(size), "Docker-Content-Digest": digest}
        return 200, headers, []

    def _where_blob(self, environ: WSGIEnvironment, name: str, digest: str) -> Reply:
        self._size(name, digest)
        return 307, {"Location": f"{self._ecr.endpoint_url}/{LAYERS}/{self._signature}/{digest}"}, []

    def _layer(self, environ: WSGIEnvironment, path: str) -> Reply:
        signature, _, digest = path.removeprefix(f"/{LAYERS}/").partition("/")
        signed = secrets.compare_digest(signature.encode(), self._signature.encode())
        file = self._ecr.blobs.open(digest) if signed and environ["REQUEST_METHOD"] == "GET" else None
        if file is None:
            raise _Refused(403, "DENIED", "Access Denied")
        size = file.seek(0, 2)
        first, last = _range(environ.get("HTTP_RANGE", ""), size)
        if first >= size > 0:
            file.close()
            raise _Refused(416, "RANGE_INVALID", "The range is not satisfiable", {"Content-Range": f"bytes */{size}"})
        length = last - first + 1
        headers = {"Content-Type": _BYTES, "Accept-Ranges": "bytes", "Content-Length": str(length)}
        if length < size:
            return 206, {**headers, "Content-Range": f"bytes {first}-{last}/{size}"}, _pieces(file, first, length)
        return 200, headers, _pieces(file, first, length)

    def _size(self, name: str, digest: str) -> int:
        size: int | None = self._ecr.repository(name).layers.get(digest)
        if size is None:
            raise _Refused(404, "BLOB_UNKNOWN", f"Layer '{digest}' is not in '{name}' of registry {ACCOUNT}.")
        return size

    def _upload(self, name: str) -> Upload:
        upload = self._ecr.blobs.upload(name)
        if upload is None:
            raise _Refused(404, "BLOB_UPLOAD_UNKNOWN", f"There is no upload '{name}'.")
        return upload

    def _at(self, name: str, digest: str) -> dict[str, str]:
        location = f"{self._ecr.endpoint_url}/v2/{name}/blobs/{digest}"
        return {"Location": location, "Docker-Content-Digest": digest}

    def _upload_headers(self, name: str, upload: str, size: int) -> dict[str, str]:
        location = f"{self._ecr.endpoint_url}/v2/{name}/blobs/uploads/{upload}"
        return {"Location": location, "Docker-Upload-UUID": upload, "Range": f"0-{max(size - 1, 0)}"}


def _query(environ: WSGIEnvironment) -> dict[str, str]:
    return dict(parse_qsl(environ.get("QUERY_STRING", "")))


def _range(header: str, size: int) -> tuple[int, int]:
    """Return the first and last byte of a Range header; the whole blob if it is not understood."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", header)
    if found is None:
        return 0, size - 1
    last = int(found[2]) if found[2] else size - 1
    return int(found[1]), min(last, size - 1)


def _pieces(file: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while length > 0 and (piece := file.read(min(_PIECE, length))):
            length -= len(piece)
            yield piece


def _drain(environ: WSGIEnvironment) -> None:
    """Read the rest of a body, or a kept-alive connection would parse it as the next request."""
    while environ["wsgi.input"].read(_PIECE):
        pass
