"""All patches of moto's ECR; see `dask_starburst.local.moto.patches`.

Each has a test in ``tests/local/services/ecr/test_registry.py``.
"""

from __future__ import annotations

import base64
import functools
import io
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ParamValidationError
from moto.core.responses import ActionResult
from moto.ecr import models, responses
from moto.ecr.exceptions import RepositoryNotFoundException, ValidationException

from dask_starburst.local.services.ecr.blobs import WrongDigestError
from dask_starburst.local.services.ecr.repositories import Ecr, find

#: Operations that depend on the images in a repository.
_READS = ("list_images", "describe_images", "batch_check_layer_availability", "start_image_scan")


def install(ecr: Ecr) -> None:
    """Patch moto's ECR, once in a process.

    Parameters
    ----------
    ecr : Ecr
        Implements the operations on images.
    """
    _replace_image_operations(ecr)
    _apply_lifecycle_policies(ecr)
    _store_layers(ecr)
    _issue_passwords(ecr)
    _set_repository_uris(ecr)


def _replace_image_operations(ecr: Ecr) -> None:
    """Replace moto's image operations: its digests do not match the manifests, and it does not validate."""

    def put_image(
        self: Any,
        repository_name: str,
        image_manifest: str,
        image_tag: str | None,
        image_manifest_mediatype: str | None = None,
        digest: str | None = None,
    ) -> Any:
        repository = _repository(self, repository_name)
        return ecr.put(repository, image_manifest, image_tag, image_manifest_mediatype, digest)

    def batch_delete_image(
        self: Any, repository_name: str, registry_id: str | None = None, image_ids: list[dict[str, str]] | None = None
    ) -> Any:
        repository = _repository(self, repository_name)
        ecr.expire(repository)
        return ecr.delete(repository, image_ids or [])

    def batch_get_image(
        self: Any, repository_name: str, registry_id: str | None = None, image_ids: list[dict[str, str]] | None = None
    ) -> Any:
        repository = _repository(self, repository_name)
        ecr.expire(repository)
        if not image_ids:
            raise ParamValidationError(report='Missing required parameter in input: "imageIds"')
        found, failures = [], []
        for requested in image_ids:
            image = find(repository, requested.get("imageTag"), requested.get("imageDigest"))
            if image is not None:
                found.append(_as_requested(image, requested.get("imageTag")))
                continue
            failures.append(
                {"imageId": requested, "failureCode": "ImageNotFound", "failureReason": "Requested image not found"}
            )
        return {"images": found, "failures": failures}

    models.ECRBackend.put_image = put_image
    models.ECRBackend.batch_delete_image = batch_delete_image
    models.ECRBackend.batch_get_image = batch_get_image
    models.Image.get_image_size_in_bytes = lambda self: self.stored_size


def _as_requested(image: Any, tag: str | None) -> dict[str, Any]:
    tag = tag or image.image_tag
    return {
        "registryId": image.registry_id,
        "repositoryName": image.repository_name,
        "imageId": {"imageDigest": image.image_digest, **({"imageTag": tag} if tag else {})},
        "imageManifest": image.image_manifest,
        "imageManifestMediaType": image.image_manifest_media_type,
    }


def _apply_lifecycle_policies(ecr: Ecr) -> None:
    """Apply lifecycle policies, which moto only stores."""

    def wrap(name: str) -> None:
        operation = getattr(models.ECRBackend, name)

        @functools.wraps(operation)
        def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
            for repository in list(self.repositories.values()):
                ecr.expire(repository)
            return operation(self, *args, **kwargs)

        setattr(models.ECRBackend, name, wrapped)

    for name in _READS:
        wrap(name)
    delete = models.ECRBackend.delete_repository

    @functools.wraps(delete)
    def delete_repository(self: Any, repository_name: str, *args: Any, **kwargs: Any) -> Any:
        if repository_name in self.repositories:
            ecr.expire(self.repositories[repository_name])
        repository = delete(self, repository_name, *args, **kwargs)
        ecr.forget(repository.layers)
        return repository

    models.ECRBackend.delete_repository = delete_repository


def _store_layers(ecr: Ecr) -> None:
    """Store layer blobs, which moto only counts."""
    complete = models.ECRBackend.complete_layer_upload

    @functools.wraps(complete)
    def complete_layer_upload(
        self: Any, repository_name: str, upload_id: str, layer_digests: list[str], registry_id: str | None = None
    ) -> Any:
        upload = _repository(self, repository_name).uploads.get(upload_id)
        with ecr.lock:
            if upload is not None:
                _keep(ecr, bytes(upload.layer_parts), layer_digests[0])
            return complete(self, repository_name, upload_id, layer_digests, registry_id)

    models.ECRBackend.complete_layer_upload = complete_layer_upload


def _keep(ecr: Ecr, body: bytes, digest: str) -> None:
    name = ecr.blobs.begin()
    upload = ecr.blobs.upload(name)
    assert upload is not None
    upload.append(io.BytesIO(body))
    try:
        ecr.blobs.finish(name, digest)
    except WrongDigestError as error:
        text = f"The uploaded layer has the digest '{error}', not '{digest}'."
        raise ValidationException("InvalidLayerException", text) from error


def _issue_passwords(ecr: Ecr) -> None:
    """Issue expiring passwords: moto's is constant and expired in 2015."""

    def get_authorization_token(self: Any) -> ActionResult:
        token, expires = ecr.new_token()
        data = {
            "authorizationToken": base64.b64encode(f"AWS:{token}".encode()).decode(),
            "expiresAt": datetime.fromtimestamp(int(expires), UTC),
            "proxyEndpoint": ecr.endpoint_url,
        }
        return ActionResult({"authorizationData": [data]})

    responses.ECRResponse.get_authorization_token = get_authorization_token


def _set_repository_uris(ecr: Ecr) -> None:
    create = models.ECRBackend.create_repository

    @functools.wraps(create)
    def create_repository(self: Any, *args: Any, **kwargs: Any) -> Any:
        repository = create(self, *args, **kwargs)
        repository.uri = f"{ecr.endpoint_url.partition('://')[2]}/{repository.name}"
        repository.created_at = datetime.fromtimestamp(ecr.now(), UTC)
        return repository

    models.ECRBackend.create_repository = create_repository


def _repository(backend: Any, name: str) -> Any:
    if name not in backend.repositories:
        raise RepositoryNotFoundException(name, backend.account_id)
    return backend.repositories[name]
