"""Push an image: each missing blob once, and the tag last."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dask_starburst.environment.tools import cancellation
from dask_starburst.environment.registry import documents
from dask_starburst.environment.build.base_image import BaseImage
from dask_starburst.environment.build.interface import Destination, Report
from dask_starburst.environment.build.layers import Layer
from dask_starburst.errors import ImageError

#: Label and annotation with the recipe's hash.
RECIPE = "io.dask-starburst.recipe"
#: Annotation of an index that has another tag than the recipe's hash.
TAG = "io.dask-starburst.tag"
#: Annotation of a layer with its name.
LAYER = "io.dask-starburst.layer"


class ImagePush:
    """Push the parts of one image. Thread-safe.

    Parameters
    ----------
    to : Destination
        Where to push.
    report : callable
        Receives progress, from one thread at a time.
    """

    def __init__(self, to: Destination, report: Report) -> None:
        self.destination = to
        self._registry = to.registry
        self._repository = to.repository
        self._report = report
        self._report_lock = threading.Lock()
        self._locks_lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._existing: set[str] = set()
        # Bytes by digest.
        self._missing: dict[str, int] = {}
        self._sent: dict[str, int] = {}

    def report(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Report progress; raise `Cancelled` if the build was cancelled."""
        cancellation.check()
        with self._report_lock:
            self._report(kind, dict(facts))

    def layer(self, layer: Layer) -> None:
        """Push a layer that was built here."""
        self._once(layer.digest, lambda: self._push(layer.digest, layer.path, layer.size))

    def base_layer(self, layer: documents.Descriptor, base: BaseImage) -> None:
        """Mount a layer of the base in the registry, or fetch and push it."""

        def bring() -> None:
            if not self._mount(layer, base):
                self._push(layer.digest, base.fetch(layer), layer.size)

        self._once(layer.digest, bring)

    def config(self, body: bytes) -> documents.Descriptor:
        """Push the configuration of an image; return its descriptor."""
        described = documents.Descriptor(media_type=documents.CONFIG, digest=documents.digest_of(body), size=len(body))
        self._once(described.digest, lambda: self._push(described.digest, body, len(body)))
        return described

    def manifest(self, manifest: documents.Manifest, platform: str) -> documents.Descriptor:
        """Push the manifest of a platform, after its blobs; return its descriptor."""
        if self._registry.manifest(self._repository, manifest.digest) is None:
            self._registry.put_manifest(self._repository, manifest.digest, manifest)
        return documents.Descriptor(
            media_type=manifest.media_type, digest=manifest.digest, size=len(manifest.body), platform=platform
        )

    def tag(self, index: documents.Manifest) -> str:
        """Push the index by its tag; return the digest of the tag afterwards.

        If tags are immutable and another build of the same recipe was tagged meanwhile, its image is used.
        """
        cancellation.check()
        there = self._registry.manifest(self._repository, self.destination.tag)
        if there is not None and there.digest == index.digest:
            return index.digest
        try:
            return self._registry.put_manifest(self._repository, self.destination.tag, index)
        except ImageError:
            there = self._registry.manifest(self._repository, self.destination.tag)
            if there is None or _recipe(there) != _recipe(index):
                raise
            return there.digest

    def _once(self, digest: str, push: Callable[[], object]) -> None:
        """Push a blob unless it exists; two platforms often share a layer."""
        with self._locks_lock:
            lock = self._locks[digest]
        with lock:
            if digest not in self._existing and not self._registry.has_blob(self._repository, digest):
                push()
            self._existing.add(digest)

    def _mount(self, layer: documents.Descriptor, base: BaseImage) -> bool:
        same = base.registry.host == self._registry.host
        return same and self._registry.mount_blob(self._repository, layer.digest, base.repository)

    def _push(self, digest: str, body: Path | bytes, size: int) -> None:
        with self._report_lock:
            self._missing[digest] = size
        self._registry.push_blob(self._repository, digest, body, lambda sent: self._report_sent(digest, sent))
        self._report_sent(digest, size)

    def _report_sent(self, digest: str, sent: int) -> None:
        cancellation.check()
        with self._report_lock:
            self._sent[digest] = sent
            self._report("sent", {"bytes": sum(self._sent.values()), "total": sum(self._missing.values())})


def _recipe(index: documents.Manifest) -> object:
    return index.document.get("annotations", {}).get(RECIPE)
