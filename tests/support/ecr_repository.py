"""A repository of the embedded ECR and small images for tests, with plain HTTP requests."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from dask_starburst.local import LocalAWS

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def sha(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def dump(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True).encode()


def part(media_type: str, body: bytes, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha(body), "size": len(body), **more}


@dataclass(frozen=True)
class Reply:
    """A response of the registry."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The registry's error code."""
        code: str = json.loads(self.body)["errors"][0]["code"]
        return code


class EcrRepository:
    """A repository of an embedded AWS, used without a registry client."""

    def __init__(self, aws: LocalAWS, name: str, *, mutability: str | None = "MUTABLE") -> None:
        self.aws = aws
        self.name = name
        self.ecr = aws.client("ecr")
        self.host = urlsplit(aws.endpoint_url).netloc
        if mutability is not None:
            self.ecr.create_repository(repositoryName=name, imageTagMutability=mutability)
        self.login()

    @classmethod
    def of(cls, aws: LocalAWS, name: str) -> EcrRepository:
        """Return an object for an existing repository."""
        return cls(aws, name, mutability=None)

    def login(self) -> str:
        """Get a new password."""
        data = self.ecr.get_authorization_token()["authorizationData"][0]
        self.credentials = base64.b64decode(data["authorizationToken"]).decode()
        return self.credentials

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        credentials: str | None = "",
        **headers: str,
    ) -> Reply:
        """Send one request; with `credentials` None, without authorization."""
        target = urlsplit(path)
        connection = http.client.HTTPConnection(self.host, timeout=90)
        own = {name.replace("_", "-"): value for name, value in headers.items()}
        if credentials is not None:
            encoded = base64.b64encode((credentials or self.credentials).encode()).decode()
            own["Authorization"] = f"Basic {encoded}"
        try:
            connection.request(method, f"{target.path}?{target.query}" if target.query else target.path, body, own)
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())
        finally:
            connection.close()

    def v2(self, method: str, path: str, body: bytes | None = None, **more: Any) -> Reply:
        """Send a request below the path of this repository."""
        return self.ask(method, f"/v2/{self.name}/{path}", body, **more)

    def push_blob(self, body: bytes) -> str:
        begun = self.v2("POST", "blobs/uploads/")
        assert begun.status == 202
        done = self.ask("PUT", f"{begun.headers['Location']}?digest={sha(body)}", body)
        assert done.status == 201, done
        return sha(body)

    def image(self, seed: str, *layers: bytes) -> bytes:
        """Push the blobs of an image and return its manifest without pushing it."""
        config = dump({"os": "linux", "architecture": "arm64", "seed": seed})
        for body in (config, *layers):
            self.push_blob(body)
        parts = {"config": part(CONFIG, config), "layers": [part(LAYER, body) for body in layers]}
        return dump({"schemaVersion": 2, "mediaType": MANIFEST, **parts})

    def put(self, manifest: bytes, reference: str = "") -> Reply:
        """Push a manifest, by tag or by default by digest."""
        kind = json.loads(manifest)["mediaType"]
        return self.v2("PUT", f"manifests/{reference or sha(manifest)}", manifest, Content_Type=kind)

    def push(self, reference: str, *layers: bytes) -> str:
        """Push an image, and return its digest."""
        manifest = self.image(reference, *(layers or (reference.encode(),)))
        assert self.put(manifest, reference).status == 201
        return sha(manifest)

    def push_index(self, tag: str, platforms: tuple[str, ...] = ("amd64", "arm64"), **notes: str) -> str:
        """Push an index with an image for each platform, and return its digest."""
        named = []
        for platform in platforms:
            manifest = self.image(f"{tag} {platform}", b"base", f"{tag} {platform}".encode())
            assert self.put(manifest).status == 201
            named.append(part(MANIFEST, manifest, platform={"os": "linux", "architecture": platform}))
        document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": named}
        index = dump(document | ({"annotations": notes} if notes else {}))
        assert self.put(index, tag).status == 201
        return sha(index)

    def details(self) -> dict[str, dict[str, Any]]:
        """Return the output of DescribeImages by digest."""
        found = self.ecr.describe_images(repositoryName=self.name)["imageDetails"]
        return {each["imageDigest"]: each for each in found}

    def tags(self) -> set[str]:
        return {tag for each in self.details().values() for tag in each.get("imageTags", [])}

    def expire(self, *rules: dict[str, Any]) -> None:
        """Set a lifecycle policy of these selections, the first with the highest priority."""
        written = [
            {
                "rulePriority": number,
                "selection": {"countUnit": "days", "countType": "sinceImagePushed", **rule},
                "action": {"type": "expire"},
            }
            for number, rule in enumerate(rules, 1)
        ]
        text = json.dumps({"rules": written})
        self.ecr.put_lifecycle_policy(repositoryName=self.name, lifecyclePolicyText=text)
