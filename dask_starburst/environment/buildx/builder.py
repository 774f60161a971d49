"""The builder that uses Docker: for cases that require running the image during the build.

These are Debian packages, a user's Dockerfile, and packages that must be compiled. For another architecture than this
computer's, all steps are emulated and take several times as long.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from dask_starburst.aws.faults import tag_taken
from dask_starburst.environment.build.interface import Destination, Image, Order, Report
from dask_starburst.environment.build.push import RECIPE, TAG
from dask_starburst.environment.buildx.context import digest, dockerfile, write_context, write_secrets
from dask_starburst.environment.buildx.docker import BUILDER, Docker, private
from dask_starburst.environment.buildx.log import BuildLog, no_emulation
from dask_starburst.environment.registry import documents
from dask_starburst.environment.tools import cancellation, uv
from dask_starburst.errors import BadArgument, ImageError
from dask_starburst.paths import cache_dir
from dask_starburst.plan.images.recipe import TEMPLATE, recipe_hash


class BuildxBuilder:
    """Build images with ``docker buildx``.

    Parameters
    ----------
    dockerfile : path, optional
        The user's Dockerfile. Packages are installed on its last stage. It receives the base image as ``BASE``:
        ``ARG BASE``, ``FROM ${BASE}``. Its folder is the build context.
    apt : sequence of str
        Debian packages to install on the base, such as ``("libgeos-c1v5",)``.
    options : sequence of str
        Further arguments of ``docker buildx build``, such as ``("--cache-from", "…")``. They are visible in this
        computer's process list.
    cache : Path, optional
        Cache folder; default: the user's.
    """

    name = "buildx"

    def __init__(
        self,
        dockerfile: str | os.PathLike[str] | None = None,
        apt: Sequence[str] = (),
        options: Sequence[str] = (),
        cache: Path | None = None,
    ) -> None:
        self._dockerfile = Path(dockerfile).expanduser().absolute() if dockerfile else None
        self._apt = tuple(sorted(set(apt)))
        self._options = tuple(options)
        self._cache = cache or cache_dir()

    @property
    def template(self) -> str:
        """The builder's part of a recipe: it changes with the Dockerfile and the Debian packages.

        It also changes with the files that the Dockerfile may copy.

        Raises
        ------
        BadArgument
            The Dockerfile cannot be read or has no stage, or the name of a Debian package is invalid.
        """
        if self._dockerfile is None and not self._apt:
            return TEMPLATE
        context = digest(self._users(), self._dockerfile.parent) if self._dockerfile else ""
        return f"{TEMPLATE} {sha256(f'{context} {self._text()}'.encode()).hexdigest()}"

    def build(self, order: Order, to: Destination, report: Report) -> Image:
        """Build and push an image; docker tags it last.

        Reports are ``"step"`` and ``"pushing"``, see `BuildLog`. Docker does not say which layers the registry already
        had: `Image.bytes_uploaded` counts all but those of the base and of the tag's previous image.

        Raises
        ------
        ImageError
            Docker is missing, or the build or push failed. An incomplete image has no tag.
        """
        begin, text = time.monotonic(), self._text()
        before = to.registry.manifest(to.repository, to.tag)
        with private(to.registry.host, to.registry.credentials()) as (environment, folder):
            docker = Docker(environment)
            docker.check()
            there = docker.builder(self._cache / "buildx.lock")
            _check_platforms(order.recipe.platforms, there)
            context = folder / "context"
            context.mkdir()
            write_context(context, order, text, self._cache)
            command = [docker.program, *self._command(order, to, folder, context)]
            log = BuildLog(report)
            failed = _run(command, environment, log)
            digest = self._existing_image(log, to) if failed else _digest(folder / "metadata.json")
        return Image(
            reference=f"{to.registry.host}/{to.repository}@{digest}",
            tag=to.tag,
            digest=digest,
            platforms=tuple(order.recipe.platforms),
            bytes_uploaded=_new_bytes(order, to, digest, before),
            seconds=time.monotonic() - begin,
        )

    def _text(self) -> str:
        return dockerfile(self._users() if self._dockerfile else None, self._apt)

    def _users(self) -> str:
        """Return the content of the user's Dockerfile."""
        assert self._dockerfile is not None
        try:
            return self._dockerfile.read_text(encoding="utf-8")
        except OSError as error:
            raise BadArgument(
                f"build.dockerfile={str(self._dockerfile)!r} cannot be read: {error.strerror}; give the path"
                " of an existing one."
            ) from error
        except UnicodeDecodeError:
            raise BadArgument(f"build.dockerfile={str(self._dockerfile)!r} is not text; give a Dockerfile.") from None

    def _command(self, order: Order, to: Destination, folder: Path, context: Path) -> list[str]:
        """Return docker's arguments. They contain no secret."""
        recipe = order.recipe
        output = f"type=image,name={to.registry.host}/{to.repository}:{to.tag},oci-mediatypes=true"
        words = ["buildx", "build", "--builder", BUILDER, "--platform", ",".join(recipe.platforms), "--push"]
        words += ["--output", f"{output},compression={recipe.compression}", "--progress", "plain"]
        # Attestations would be manifests without a platform, which ECR's scans and lifecycle rules count as images.
        words += ["--provenance=false", "--sbom=false", "--metadata-file", str(folder / "metadata.json")]
        words += ["--file", str(context / "Dockerfile"), "--build-context", f"starburst={context}"]
        words += ["--build-arg", f"BASE={order.base.reference}", "--build-arg", f"PYTHON={recipe.python}"]
        for name, value in _labels(order, to.tag).items():
            words += ["--label", f"{name}={value}"]
        words += write_secrets(folder, {**os.environ, **uv.indexes()}, order.environment.requirements)
        return [*words, *self._options, str(self._dockerfile.parent if self._dockerfile else context)]

    def _existing_image(self, log: BuildLog, to: Destination) -> str:
        """Return the digest of an immutable tag that another build pushed meanwhile; else raise the build's error."""
        error = log.failure(f"{to.registry.host}/{to.repository}", to.registry.host)
        there = to.registry.manifest(to.repository, to.tag) if tag_taken(str(error)) else None
        if there is None:
            raise error
        return there.digest


def _labels(order: Order, tag: str) -> dict[str, str]:
    recipe = recipe_hash(order.recipe)
    return {
        "org.opencontainers.image.title": "dask_starburst worker",
        "org.opencontainers.image.base.name": order.base.name,
        "org.opencontainers.image.base.digest": order.base.digest,
        RECIPE: recipe,
        # ECR counts an image's age from its first push: a rebuilt image needs another digest than the old one.
        **({} if tag == recipe else {TAG: tag}),
    }


def _check_platforms(required: Sequence[str], there: Sequence[str]) -> None:
    missing = [platform for platform in required if platform not in there]
    if missing:
        raise ImageError(f"{no_emulation(', '.join(missing))} (It builds for {', '.join(there) or 'nothing'}.)")


def _run(command: list[str], environment: dict[str, str], log: BuildLog) -> int:
    """Run docker and parse its output; a cancellation terminates it."""
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "errors": "replace"}
    with cancellation.started(command, env=environment, **how) as process:
        assert process.stdout is not None
        for line in process.stdout:
            log.feed(line)
        return process.wait()


def _digest(metadata: Path) -> str:
    return documents.check_digest(json.loads(metadata.read_text(encoding="utf-8"))["containerimage.digest"])


def _new_bytes(order: Order, to: Destination, digest: str, before: documents.Manifest | None) -> int:
    known = {layer.digest for p in order.recipe.platforms for layer in order.base.part(p).layers}
    known |= set(_blobs(to, before)) if before else set()
    made = to.registry.manifest(to.repository, digest)
    return sum(size for name, size in _blobs(to, made).items() if name not in known) if made else 0


def _blobs(to: Destination, manifest: documents.Manifest) -> dict[str, int]:
    """Return digests and sizes of all blobs of an image."""
    if manifest.is_index:
        parts = [to.registry.manifest(to.repository, each.digest) for each in documents.manifests_of(manifest)]
        return {name: size for part in parts if part for name, size in _blobs(to, part).items()}
    config = manifest.config
    return {each.digest: each.size for each in (config, *documents.layers_of(manifest))}
