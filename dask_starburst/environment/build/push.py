"""What goes to the registry: only what it does not have, each thing once, and the tag last."""

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
#: Annotation of a layer: what is in it.
LAYER = "io.dask-starburst.layer"


class Pushing:
    """Pushes the parts of one image; from several threads, if that suits.

    Parameters
    ----------
    to : Destination
        Where to.
    report : callable
        Hears of everything, from one thread at a time.
    """

    def __init__(self, to: Destination, report: Report) -> None:
        self.destination = to
        self._registry = to.registry
        self._repository = to.repository
        self._report = report
        self._talking = threading.Lock()
        self._looking = threading.Lock()
        self._one_at_a_time: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._there: set[str] = set()
        # Bytes by digest.
        self._missing: dict[str, int] = {}
        self._sent: dict[str, int] = {}

    def report(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Tell of something; nobody who is told of nothing any more is worked for."""
        cancellation.check()
        with self._talking:
            self._report(kind, dict(facts))

    def layer(self, layer: Layer) -> None:
        """Push a layer of ours."""
        self._once(layer.digest, lambda: self._push(layer.digest, layer.path, layer.size))

    def foreign(self, layer: documents.Descriptor, base: BaseImage) -> None:
        """Have the registry take a layer of the base over, or fetch it and push it."""

        def bring() -> None:
            if not self._mount(layer, base):
                self._push(layer.digest, base.fetch(layer), layer.size)

        self._once(layer.digest, bring)

    def config(self, body: bytes) -> documents.Descriptor:
        """Push the configuration of an image; return what a manifest says of it."""
        described = documents.Descriptor(media_type=documents.CONFIG, digest=documents.digest_of(body), size=len(body))
        self._once(described.digest, lambda: self._push(described.digest, body, len(body)))
        return described

    def manifest(self, manifest: documents.Manifest, platform: str) -> documents.Descriptor:
        """Push the manifest of a platform, whose parts are all there; return what an index says of it."""
        if self._registry.manifest(self._repository, manifest.digest) is None:
            self._registry.put_manifest(self._repository, manifest.digest, manifest)
        return documents.Descriptor(
            media_type=manifest.media_type, digest=manifest.digest, size=len(manifest.body), platform=platform
        )

    def tag(self, index: documents.Manifest) -> str:
        """Push the index by its tag; return the digest that the tag means then.

        Where tags cannot be moved and somebody else has built the same recipe meanwhile, theirs is as good as ours.
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
        """Push what is not there yet; two platforms often share a layer."""
        with self._looking:
            lock = self._one_at_a_time[digest]
        with lock:
            if digest not in self._there and not self._registry.has_blob(self._repository, digest):
                push()
            self._there.add(digest)

    def _mount(self, layer: documents.Descriptor, base: BaseImage) -> bool:
        same = base.registry.host == self._registry.host
        return same and self._registry.mount_blob(self._repository, layer.digest, base.repository)

    def _push(self, digest: str, body: Path | bytes, size: int) -> None:
        with self._talking:
            self._missing[digest] = size
        self._registry.push_blob(self._repository, digest, body, lambda sent: self._tell(digest, sent))
        self._tell(digest, size)

    def _tell(self, digest: str, sent: int) -> None:
        cancellation.check()
        with self._talking:
            self._sent[digest] = sent
            self._report("sent", {"bytes": sum(self._sent.values()), "total": sum(self._missing.values())})


def _recipe(index: documents.Manifest) -> object:
    return index.document.get("annotations", {}).get(RECIPE)
