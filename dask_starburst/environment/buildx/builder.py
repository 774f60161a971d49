"""The builder that is Docker's: for what the direct one cannot do, as it runs the image while it is built.

That is Debian packages, a Dockerfile of the user's, and packages that have to be compiled. For another architecture
than this computer's, all of it is emulated; so it takes several times as long.
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
    """Builds with ``docker buildx``.

    Parameters
    ----------
    dockerfile : path, optional
        The user's own. Its last stage is what the packages are put on, in place of the base image, which it gets as
        ``BASE``: ``ARG BASE``, ``FROM ${BASE}``. The folder that it is in is what it can copy from.
    apt : sequence of str
        Debian packages to install on the base, such as ``("libgeos-c1v5",)``.
    options : sequence of str
        Further words for ``docker buildx build``, such as ``("--cache-from", "…")``. They are seen by everybody who
        lists the processes of this computer.
    cache : Path, optional
        Where what was fetched is kept for the next time; the user's cache folder if left out.
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
        """What of a recipe is this builder's own: another Dockerfile or Debian package makes another image.

        So does another file that the Dockerfile may copy.

        Raises
        ------
        BadArgument
            The Dockerfile cannot be read, or has no stage; or a name is none of a Debian package.
        """
        if self._dockerfile is None and not self._apt:
            return TEMPLATE
        context = digest(self._users(), self._dockerfile.parent) if self._dockerfile else ""
        return f"{TEMPLATE} {sha256(f'{context} {self._text()}'.encode()).hexdigest()}"

    def build(self, order: Order, to: Destination, report: Report) -> Image:
        """Build what is ordered and push it; docker gives it its tag as the last thing.

        Reported are ``"step"`` and ``"pushing"``, see `BuildLog`. Docker does not say which layers the registry had
        already: `Image.bytes_uploaded` counts all but the base's and those of an image that had the tag before.

        Raises
        ------
        ImageError
            There is no docker, or it could not build or push. Nothing half-made has the tag.
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
            digest = self._theirs(log, to) if failed else _digest(folder / "metadata.json")
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
        """Return what is in the user's Dockerfile."""
        assert self._dockerfile is not None
        try:
            return self._dockerfile.read_text(encoding="utf-8")
        except OSError as error:
            raise BadArgument(
                f"build.dockerfile={str(self._dockerfile)!r} cannot be read: {error.strerror}; give the path"
                " of one that is there."
            ) from error
        except UnicodeDecodeError:
            raise BadArgument(f"build.dockerfile={str(self._dockerfile)!r} is no text; give a Dockerfile.") from None

    def _command(self, order: Order, to: Destination, folder: Path, context: Path) -> list[str]:
        """Return the words after ``docker``. None of them is a secret."""
        recipe = order.recipe
        output = f"type=image,name={to.registry.host}/{to.repository}:{to.tag},oci-mediatypes=true"
        words = ["buildx", "build", "--builder", BUILDER, "--platform", ",".join(recipe.platforms), "--push"]
        words += ["--output", f"{output},compression={recipe.compression}", "--progress", "plain"]
        # Attestations would be manifests of no platform in the index, which ECR's scans and lifecycle count as images.
        words += ["--provenance=false", "--sbom=false", "--metadata-file", str(folder / "metadata.json")]
        words += ["--file", str(context / "Dockerfile"), "--build-context", f"starburst={context}"]
        words += ["--build-arg", f"BASE={order.base.reference}", "--build-arg", f"PYTHON={recipe.python}"]
        for name, value in _labels(order, to.tag).items():
            words += ["--label", f"{name}={value}"]
        words += write_secrets(folder, {**os.environ, **uv.indexes()}, order.environment.requirements)
        return [*words, *self._options, str(self._dockerfile.parent if self._dockerfile else context)]

    def _theirs(self, log: BuildLog, to: Destination) -> str:
        """Return the image of one who was faster, where a tag cannot be moved; else raise what went wrong."""
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
        # ECR counts an image's days from its first push: one that is to live anew must not be the same as the old one.
        **({} if tag == recipe else {TAG: tag}),
    }


def _check_platforms(wanted: Sequence[str], there: Sequence[str]) -> None:
    missing = [platform for platform in wanted if platform not in there]
    if missing:
        raise ImageError(f"{no_emulation(', '.join(missing))} (It builds for {', '.join(there) or 'nothing'}.)")


def _run(command: list[str], environment: dict[str, str], log: BuildLog) -> int:
    """Run docker and hear it to the end; whoever interrupts us ends it too."""
    how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "errors": "replace"}
    with cancellation.started(command, env=environment, **how) as process:
        assert process.stdout is not None
        for line in process.stdout:
            log.hear(line)
        return process.wait()


def _digest(metadata: Path) -> str:
    return documents.check_digest(json.loads(metadata.read_text(encoding="utf-8"))["containerimage.digest"])


def _new_bytes(order: Order, to: Destination, digest: str, before: documents.Manifest | None) -> int:
    known = {layer.digest for p in order.recipe.platforms for layer in order.base.part(p).layers}
    known |= set(_blobs(to, before)) if before else set()
    made = to.registry.manifest(to.repository, digest)
    return sum(size for name, size in _blobs(to, made).items() if name not in known) if made else 0


def _blobs(to: Destination, manifest: documents.Manifest) -> dict[str, int]:
    """Return digests and sizes of all that an image consists of."""
    if manifest.is_index:
        parts = [to.registry.manifest(to.repository, each.digest) for each in documents.manifests_of(manifest)]
        return {name: size for part in parts if part for name, size in _blobs(to, part).items()}
    config = manifest.config
    return {each.digest: each.size for each in (config, *documents.layers_of(manifest))}
