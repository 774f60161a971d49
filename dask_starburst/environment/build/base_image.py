"""Base images: an image with a Python, pinned by its digest."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from dask_starburst.environment.registry import documents
from dask_starburst.environment.build.tar import Entry
from dask_starburst.environment.build.bytecode import COMPILER, Bytecode
from dask_starburst.paths import cache_dir
from dask_starburst.environment.registry.docker_credentials import stored_credentials
from dask_starburst.environment.build.layers import Layer, Layers
from dask_starburst.environment.tools.files import drop_unused, explain_full_disk
from dask_starburst.paths import write_atomic
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.build.image_tree import ImageFiles, read_image_files, write_files
from dask_starburst.errors import ImageError, RegistryUnavailable
from dask_starburst.paths import private_folder

#: Seconds for which the digest of a tag is cached.
MEMORY = 86_400.0
#: Parts of the standard library that workers do not run.
_NOT_RUN = {"test", "tests", "idlelib", "turtledemo", "tkinter", "lib2to3", "ensurepip"}
#: Packages of the base, which the virtual environment hides.
_HIDDEN = {"site-packages", "dist-packages"}


@dataclass(frozen=True, slots=True)
class BaseFacts:
    """Facts about a base image on one platform that the layers above it depend on.

    Parameters
    ----------
    python : str
        Path of its interpreter.
    passwd, group : str
        Content of ``/etc/passwd`` and ``/etc/group``.
    """

    python: str
    passwd: str
    group: str


@dataclass(frozen=True, slots=True)
class Part:
    """The image of a base for one platform."""

    digest: str
    layers: tuple[documents.Descriptor, ...]
    config: dict[str, Any]

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of the uncompressed layers."""
        return tuple(self.config["rootfs"]["diff_ids"])


class BaseImage:
    """A base image by its digest.

    Its registry is queried on demand and once: content with a digest does not change.

    Parameters
    ----------
    name : str
        The name as the user gave it.
    digest : str
        Digest of its index, or of its manifest if it has one platform only.
    registry : Registry
        The registry of the image.
    cache : Path
        Cache folder; it may be deleted at any time.
    """

    def __init__(self, name: str, digest: str, registry: Registry, cache: Path) -> None:
        self.name = name
        self.digest = digest
        self.registry = registry
        self.repository = documents.Reference.parse(name).repository
        self._cache = cache
        self._trees: dict[str, ImageFiles] = {}
        self._lock = threading.Lock()
        self._fetching: dict[str, threading.Lock] = defaultdict(threading.Lock)

    @property
    def reference(self) -> str:
        """The pinned name: ``"host/repository@sha256:…"``."""
        return f"{documents.Reference.parse(self.name).name}@{self.digest}"

    def part(self, platform: str) -> Part:
        """Return the image of the base for a platform.

        Raises
        ------
        ImageError
            The base lacks the platform.
        """
        found = self._manifest(self.digest)
        manifest = self._manifest(documents.choose(found, platform).digest) if found.is_index else found
        config = self._config(manifest)
        documents.check_config(config, platform, self.name)
        return Part(manifest.digest, documents.layers_of(manifest), config)

    def facts(self, platform: str, python: str) -> BaseFacts:
        """Return the path of its Python, and its users; the first call fetches and reads its layers.

        Parameters
        ----------
        platform : str
            In OCI's notation.
        python : str
            The required minor version.

        Raises
        ------
        ImageError
            It has no Python of that version.
        """
        note = self._note(platform, python)
        if note.exists():
            return BaseFacts(**json.loads(note.read_text(encoding="utf-8")))
        facts = self._find_python(self._tree(platform, python), python)
        write_atomic(note, json.dumps(asdict(facts)).encode())
        return facts

    def to_fetch(self, platform: str, python: str) -> int:
        """Return the bytes that `facts` will fetch."""
        if self._note(platform, python).exists():
            return 0
        return sum(layer.size for layer in self.part(platform).layers if not self._blob(layer).exists())

    def standard_library(self, platform: str, python: str, layers: Layers, bytecode: Bytecode) -> tuple[Layer, bool]:
        """Return the layer with the compiled standard library, and whether it was cached.

        Official images omit the compiled files to save space, which slows every start of a worker.
        """

        def entries(work: Path) -> Iterator[Entry]:
            write_files(_uncompiled(self._tree(platform, python)), work)
            bytecode.compile(work, "", lambda name: True)
            for path in work.rglob("*.pyc"):
                yield Entry(path.relative_to(work).as_posix(), path)

        return layers.get(f"standard library {COMPILER} {self.part(platform).digest}", entries)

    def fetch(self, blob: documents.Descriptor) -> Path:
        """Return the file of a layer, fetched on first use."""
        path = self._blob(blob)
        with self._lock:
            one = self._fetching[blob.digest]
        with one, explain_full_disk(self._cache):
            if path.exists() and path.stat().st_size == blob.size:
                os.utime(path)
            else:
                private_folder(path.parent)
                self.registry.pull_blob(self.repository, blob.digest, path, blob.size)
        return path

    def prune(self, now: float | None = None) -> None:
        """Delete cached layers of bases that have not been used for a month."""
        drop_unused((self._cache / "blobs").glob("*"), now)

    def _blob(self, blob: documents.Descriptor) -> Path:
        return self._cache / "blobs" / documents.file_name(blob.digest)

    def _note(self, platform: str, python: str) -> Path:
        return self._cache / "facts" / f"{documents.file_name(self.part(platform).digest)}-{python}.json"

    def _tree(self, platform: str, python: str) -> ImageFiles:
        if platform not in self._trees:  # used twice
            layers = self.part(platform).layers
            files = ((self.fetch(layer), layer.media_type) for layer in layers)
            self._trees[platform] = read_image_files(files, _selects(python), self.name)
        return self._trees[platform]

    def _find_python(self, tree: ImageFiles, python: str) -> BaseFacts:
        names = [f"{folder}/python{python}" for folder in ("usr/local/bin", "usr/bin")]
        name = next((name for name in names if name in tree.names), None)
        if name is None:
            there = sorted(p for p in tree.names if "/bin/python3." in f"/{p}" and p.rpartition(".")[2].isdigit())
            raise ImageError(
                f"the base image {self.name} does not have Python {python}, your version: it has"
                f" {', '.join(f'/{p}' for p in there) or 'no Python'}. Name a base that has it, with"
                f' base="…:{python}-…".'
            )
        users = (tree.contents.get(f"etc/{kind}", b"").decode(errors="replace") for kind in ("passwd", "group"))
        return BaseFacts(f"/{name}", *users)

    def _manifest(self, digest: str) -> documents.Manifest:
        path = self._cache / "manifests" / f"{documents.file_name(digest)}.json"
        if path.exists():
            body = path.read_bytes()
            if documents.digest_of(body) == digest:  # else it is fetched again
                return documents.Manifest(documents.media_type_of(body), body)
        found = self.registry.manifest(self.repository, digest)
        if found is None:
            raise ImageError(f"the base image {self.reference} does not exist; name another with base=….")
        write_atomic(path, found.body)
        return found

    def _config(self, manifest: documents.Manifest) -> dict[str, Any]:
        described = manifest.config
        if described.size > documents.MAX_DOCUMENT_BYTES:
            raise ImageError(
                f"the base image {self.name} has a configuration of {described.size} bytes; the limit is"
                f" {documents.MAX_DOCUMENT_BYTES}. Name another with base=…."
            )
        return documents.read_document(self.fetch(described).read_bytes(), "configuration")


def resolve_base(
    reference: str,
    cache: Path | None = None,
    connect: Callable[[str], Registry] | None = None,
    *,
    refresh: bool = False,
    now: float | None = None,
) -> BaseImage:
    """Return a base image pinned to the digest of its tag, looked up within the last day.

    An older cached digest is used when the registry is unavailable.

    Parameters
    ----------
    reference : str
        An image name as docker accepts it. One with a digest needs no lookup.
    cache : Path, optional
        Cache folder; default: the user's.
    connect : callable, optional
        Returns the registry of a host; default: with the credentials stored by ``docker login``.
    refresh : bool
        Whether to bypass the cache.
    now : float, optional
        Seconds since the epoch.

    Raises
    ------
    ImageError
        The image does not exist, or its registry is unavailable.
    """
    parsed = documents.Reference.parse(reference)
    registry, cache = (connect or _connect)(parsed.host), (cache or cache_dir()) / "bases"
    if parsed.digest:
        return BaseImage(reference, parsed.digest, registry, cache)
    note = cache / "tags" / f"{sha256(reference.encode()).hexdigest()}.json"
    now = time.time() if now is None else now
    digest = None if refresh else _remembered(note, now, MEMORY)
    if digest is None:
        try:
            found = registry.manifest(parsed.repository, parsed.tag or "latest")
        except RegistryUnavailable:
            # An outdated digest is better than a failure: ECR may have the image built on it.
            digest = None if refresh else _remembered(note, now, math.inf)
            if digest is None:
                raise
            return BaseImage(reference, digest, registry, cache)
        if found is None:
            raise ImageError(f"the base image {reference} does not exist; name another with base=….")
        digest = found.digest
        write_atomic(note, json.dumps({"reference": reference, "digest": digest, "at": now}).encode())
    return BaseImage(reference, digest, registry, cache)


def _connect(host: str) -> Registry:
    return Registry(host, stored_credentials(host))


def _remembered(note: Path, now: float, age: float) -> str | None:
    try:
        facts = json.loads(note.read_text(encoding="utf-8"))
        return documents.check_digest(facts["digest"]) if 0 <= now - facts["at"] < age else None
    except (OSError, ValueError, KeyError, TypeError, ImageError):
        return None


def _selects(python: str) -> Callable[[str], bool]:
    libraries = tuple(f"{prefix}/lib/python{python}/" for prefix in ("usr/local", "usr"))

    def selects(name: str) -> bool:
        if name in ("etc/passwd", "etc/group"):
            return True
        unused = (_NOT_RUN | _HIDDEN).intersection(name.split("/"))
        return name.endswith(".py") and name.startswith(libraries) and not unused

    return selects


def _uncompiled(tree: ImageFiles) -> dict[str, bytes]:
    """Return the Python files without a compiled file."""
    have = {name.replace("/__pycache__/", "/").rsplit(".", 2)[0] for name in tree.names if name.endswith(".pyc")}
    return {
        name: data
        for name, data in tree.contents.items()
        if name.endswith(".py") and name.removesuffix(".py") not in have
    }
