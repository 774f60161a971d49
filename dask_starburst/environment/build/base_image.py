"""What an image is built on: somebody's image with a Python, pinned by its digest."""

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
from dask_starburst.environment.build.image_tree import Tree, read_tree, write_files
from dask_starburst.errors import ImageError, RegistryUnavailable
from dask_starburst.paths import private_folder

#: So long a tag is believed to mean what it meant, and no registry is asked.
MEMORY = 86_400.0
#: Parts of the standard library that no worker runs.
_NOT_RUN = {"test", "tests", "idlelib", "turtledemo", "tkinter", "lib2to3", "ensurepip"}
#: Its packages are hidden by the virtual environment's.
_HIDDEN = {"site-packages", "dist-packages"}


@dataclass(frozen=True, slots=True)
class Ground:
    """What a base image has for one platform, as far as it matters to what is put on it.

    Parameters
    ----------
    python : str
        Path of its interpreter.
    passwd, group : str
        Its users and groups, as the files of those names have them.
    """

    python: str
    passwd: str
    group: str


@dataclass(frozen=True, slots=True)
class Part:
    """The image that a base is for one platform."""

    digest: str
    layers: tuple[documents.Descriptor, ...]
    config: dict[str, Any]

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The digests of the layers' contents."""
        return tuple(self.config["rootfs"]["diff_ids"])


class BaseImage:
    """A base image by its digest.

    Nothing is asked of its registry before it has to be, and nothing twice: what has a digest does not change.

    Parameters
    ----------
    name : str
        As the user gave it.
    digest : str
        Of its index, or of its manifest if it is for one platform only.
    registry : Registry
        Where it is.
    cache : Path
        Where what was fetched is kept; it may vanish at any time.
    """

    def __init__(self, name: str, digest: str, registry: Registry, cache: Path) -> None:
        self.name = name
        self.digest = digest
        self.registry = registry
        self.repository = documents.Reference.parse(name).repository
        self._cache = cache
        self._trees: dict[str, Tree] = {}
        self._lock = threading.Lock()
        self._fetching: dict[str, threading.Lock] = defaultdict(threading.Lock)

    @property
    def reference(self) -> str:
        """The pinned name: ``"host/repository@sha256:…"``."""
        return f"{documents.Reference.parse(self.name).name}@{self.digest}"

    def part(self, platform: str) -> Part:
        """Return what the base is for a platform.

        Raises
        ------
        ImageError
            It is not made for the platform.
        """
        found = self._manifest(self.digest)
        manifest = self._manifest(documents.choose(found, platform).digest) if found.is_index else found
        config = self._config(manifest)
        documents.check_config(config, platform, self.name)
        return Part(manifest.digest, documents.layers_of(manifest), config)

    def ground(self, platform: str, python: str) -> Ground:
        """Return where its Python is, and its users; the first time, its layers are fetched and looked through.

        Parameters
        ----------
        platform : str
            As OCI writes it.
        python : str
            The minor version that has to be there.

        Raises
        ------
        ImageError
            It has no Python of that version.
        """
        note = self._note(platform, python)
        if note.exists():
            return Ground(**json.loads(note.read_text(encoding="utf-8")))
        ground = self._look(self._tree(platform, python), python)
        write_atomic(note, json.dumps(asdict(ground)).encode())
        return ground

    def to_fetch(self, platform: str, python: str) -> int:
        """Return how many bytes `ground` is going to fetch."""
        if self._note(platform, python).exists():
            return 0
        return sum(layer.size for layer in self.part(platform).layers if not self._blob(layer).exists())

    def standard_library(self, platform: str, python: str, layers: Layers, bytecode: Bytecode) -> tuple[Layer, bool]:
        """Return the layer with its standard library compiled, and whether it was there already.

        Official images are made small by leaving those files out, which every start of a worker then pays for.
        """

        def entries(work: Path) -> Iterator[Entry]:
            write_files(_uncompiled(self._tree(platform, python)), work)
            bytecode.compile(work, "", lambda name: True)
            for path in work.rglob("*.pyc"):
                yield Entry(path.relative_to(work).as_posix(), path)

        return layers.get(f"standard library {COMPILER} {self.part(platform).digest}", entries)

    def fetch(self, blob: documents.Descriptor) -> Path:
        """Return the file that a layer of the base is in, fetched the first time."""
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
        """Delete the fetched layers of bases that no image has used for a month."""
        drop_unused((self._cache / "blobs").glob("*"), now)

    def _blob(self, blob: documents.Descriptor) -> Path:
        return self._cache / "blobs" / documents.file_name(blob.digest)

    def _note(self, platform: str, python: str) -> Path:
        return self._cache / "ground" / f"{documents.file_name(self.part(platform).digest)}-{python}.json"

    def _tree(self, platform: str, python: str) -> Tree:
        if platform not in self._trees:  # it is looked through twice
            layers = self.part(platform).layers
            files = ((self.fetch(layer), layer.media_type) for layer in layers)
            self._trees[platform] = read_tree(files, _wanted(python), self.name)
        return self._trees[platform]

    def _look(self, tree: Tree, python: str) -> Ground:
        names = [f"{folder}/python{python}" for folder in ("usr/local/bin", "usr/bin")]
        name = next((name for name in names if name in tree.names), None)
        if name is None:
            there = sorted(p for p in tree.names if "/bin/python3." in f"/{p}" and p.rpartition(".")[2].isdigit())
            raise ImageError(
                f"the base image {self.name} has no Python {python}, which is yours: it has"
                f" {', '.join(f'/{p}' for p in there) or 'no Python at all'}. Name one that has, with"
                f' base="…:{python}-…".'
            )
        users = (tree.contents.get(f"etc/{kind}", b"").decode(errors="replace") for kind in ("passwd", "group"))
        return Ground(f"/{name}", *users)

    def _manifest(self, digest: str) -> documents.Manifest:
        path = self._cache / "manifests" / f"{documents.file_name(digest)}.json"
        if path.exists():
            body = path.read_bytes()
            if documents.digest_of(body) == digest:  # else it is asked for again
                return documents.Manifest(documents.media_type_of(body), body)
        found = self.registry.manifest(self.repository, digest)
        if found is None:
            raise ImageError(f"the base image {self.reference} does not exist; name another with base=….")
        write_atomic(path, found.body)
        return found

    def _config(self, manifest: documents.Manifest) -> dict[str, Any]:
        described = manifest.config
        if described.size > documents.MOST_DOCUMENT:
            raise ImageError(
                f"the base image {self.name} has a configuration of {described.size} bytes; {documents.MOST_DOCUMENT} are the"
                " most. Name another with base=…."
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
    """Return a base image by the digest that its name means now, or meant within the last day.

    What it meant earlier is taken when its registry does not answer.

    Parameters
    ----------
    reference : str
        As docker takes it. One with a digest is not looked up at all.
    cache : Path, optional
        Where what is fetched is kept; the user's cache folder if left out.
    connect : callable, optional
        Gives the registry of a host; if left out, with what ``docker login`` has left for it.
    refresh : bool
        Whether to ask the registry although the answer is remembered.
    now : float, optional
        Seconds since the epoch.

    Raises
    ------
    ImageError
        There is no such image, or its registry does not answer.
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
            # What it meant some time ago is better than nothing: the image of it may be in ECR.
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


def _wanted(python: str) -> Callable[[str], bool]:
    libraries = tuple(f"{prefix}/lib/python{python}/" for prefix in ("usr/local", "usr"))

    def wanted(name: str) -> bool:
        if name in ("etc/passwd", "etc/group"):
            return True
        unused = (_NOT_RUN | _HIDDEN).intersection(name.split("/"))
        return name.endswith(".py") and name.startswith(libraries) and not unused

    return wanted


def _uncompiled(tree: Tree) -> dict[str, bytes]:
    """Return the Python files that have no compiled file beside them."""
    have = {name.replace("/__pycache__/", "/").rsplit(".", 2)[0] for name in tree.names if name.endswith(".pyc")}
    return {
        name: data
        for name, data in tree.contents.items()
        if name.endswith(".py") and name.removesuffix(".py") not in have
    }
