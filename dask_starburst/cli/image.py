"""``starburst image``: list, inspect, refresh and prune worker images in ECR."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dask_starburst.aws import ecr
from dask_starburst.aws.session import AWS
from dask_starburst.cli.lazy import LazyGroup
from dask_starburst.cli.pool import account_options, run
from dask_starburst.errors import BadArgument
from dask_starburst.plan.images.lifetime import (
    USD_PER_GB_MONTH,
    Prunable,
    StoredImage,
    in_repository,
    members,
    monthly_cost,
    prunable,
    recipe_of,
    seconds_left,
    stored_bytes,
    users_of,
)
from dask_starburst.settings import UNSET, Settings

#: Annotations that describe a layer in a manifest.
_LAYER_NAMES = ("io.dask-starburst.layer", "org.opencontainers.image.title")
#: Our tags begin with the hash of a recipe, which is shown shortened.
_RECIPE = re.compile(r"[0-9a-f]{32}")
_SHORT = 12
_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "min"))

_repository = click.option("--repository", metavar="NAME", help="Default: as configured, starburst/worker.")


@dataclass(frozen=True)
class _Repository:
    """The images of a repository, with their lifecycle and users."""

    name: str
    images: tuple[StoredImage, ...]
    ttl_days: int | None
    in_use: Mapping[str, tuple[str, ...]]
    now: float

    @property
    def heads(self) -> list[StoredImage]:
        """Images that are not part of an index, newest first."""
        parts = {child for each in self.images for child in each.children}
        heads = [each for each in self.images if each.tags or each.digest not in parts]
        return sorted(heads, key=lambda each: each.pushed_at, reverse=True)

    def find(self, name: str) -> StoredImage:
        """Return the image with this tag or digest, or the newest with this tag prefix."""
        for one in self.images:
            if name in (*one.tags, *map(_short, one.tags), one.digest):
                return one
        found = [(tag, one) for one in self.heads for tag in one.tags if tag.startswith(name)]
        if len({recipe_of(tag) for tag, _ in found}) > 1:
            raise BadArgument(f"{name!r} matches {', '.join(tag for tag, _ in found)}; give more of the tag.")
        if not found:
            raise BadArgument(f"{self.name} has no image {name!r}; run `starburst image list` for the tags it has.")
        return found[0][1]


_BUILD = (
    "dask_starburst.cli.build:build",
    "Build the worker image from the packages of this Python or of a file, and push it to ECR.",
)


@click.group(cls=LazyGroup, lazy={"build": _BUILD})
def image() -> None:
    """Manage the worker images in your account's ECR."""


@image.command("list")
@_repository
@account_options
def list_images(repository: str | None, **account: str | None) -> None:
    """List the images of the region: age, expiry, size, users and storage cost."""
    repo = _load(account, repository)
    if not repo.images:
        click.echo(f"No images in {repo.name}.")
        return
    Console().print(_images(repo))
    size = stored_bytes(repo.images)
    click.echo(
        f"{_bytes(size)} stored, shared layers counted once: {_usd(size)} a month at"
        f" ${USD_PER_GB_MONTH:.2f} per GB (us-east-1)."
    )


@image.command()
@click.argument("tag")
@_repository
@account_options
def inspect(tag: str, repository: str | None, **account: str | None) -> None:
    """Show the annotations of the image TAG, and the compressed size of each layer by platform."""
    repo = _load(account, repository)
    found = repo.find(tag)
    parts = members(found, repo.images)
    texts = run(account, lambda aws: ecr.manifests(aws, repo.name, [each.digest for each in parts]))
    documents = {digest: json.loads(text) for digest, text in texts.items()}
    Console().print(_facts(repo, found, documents.get(found.digest, {})))
    for part in parts:
        if "layers" in documents.get(part.digest, {}):
            title = _platform(documents.get(found.digest, {}), part.digest)
            Console().print(_layers(title, documents[part.digest]))


@image.command()
@click.option("--keep", type=click.IntRange(min=0), default=1, show_default=True, help="Newest recipes to keep.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@_repository
@account_options
def prune(keep: int, yes: bool, repository: str | None, **account: str | None) -> None:
    """Show the unused images, ask for confirmation, and delete them.

    Images of running tasks and of pools' task definitions are kept, and so are images pushed within the last hour. The
    latest image of the newest recipes is kept even if unused: see --keep.
    """
    repo = _load(account, repository)
    gone = _prunable(repo, keep)
    if not gone:
        click.echo("Nothing to prune.")
        return
    Console().print(_to_prune(repo, gone))
    digests = {each.image.digest for each in gone}
    freed = stored_bytes(repo.images) - stored_bytes(each for each in repo.images if each.digest not in digests)
    question = f"Delete them? This frees {_bytes(freed)}, {_usd(freed)} a month."
    if not yes:
        click.confirm(question, abort=True)
    # A cluster may have started to use one since the prompt.
    still_prunable = {each.image.digest for each in _prunable(_load(account, repository), keep)}
    confirmed = [each.image for each in gone if each.image.digest in still_prunable]
    heads = {each.digest for each in repo.heads}
    failures = run(account, lambda aws: ecr.delete_images(aws, repo.name, confirmed))
    for digest, reason in failures.items():
        click.echo(f"{digest}: {reason}", err=True)
    done = sum(each.digest in heads and each.digest not in failures for each in confirmed)
    kept = f"; kept {len(gone) - len(confirmed)} now in use" if len(confirmed) < len(gone) else ""
    click.echo(f"Deleted {done} image{'' if done == 1 else 's'}{kept}.")
    if failures:
        raise SystemExit(1)


@image.command()
@click.argument("tag")
@_repository
@account_options
def refresh(tag: str, repository: str | None, **account: str | None) -> None:
    """Push the image TAG again under a new tag, which restarts its lifetime. Nothing is uploaded or removed."""
    repo = _load(account, repository)
    found = repo.find(tag)
    if not found.tags:
        raise BadArgument(f"{tag} is part of an index; refresh an image that `starburst image list` shows.")
    fresh = run(account, lambda aws: ecr.refresh(aws, repo.name, found))
    left = seconds_left(fresh, repo.now, repo.ttl_days)
    click.echo(f"{_name(fresh)} is {_name(found)} pushed again; it expires {_expires(left)}.")


def _load(account: Mapping[str, str | None], repository: str | None) -> _Repository:
    name = repository or Settings.load(region=account["region"] or UNSET).build.repository

    async def load(aws: AWS) -> _Repository:
        images, days, in_use = await asyncio.gather(ecr.images(aws, name), ecr.ttl_days(aws, name), ecr.in_use(aws))
        return _Repository(name, images, days, in_repository(in_use, name), aws.now())

    return run(account, load)


def _prunable(repo: _Repository, keep: int) -> tuple[Prunable, ...]:
    return prunable(repo.images, repo.in_use, repo.now, repo.ttl_days, keep)


def _images(repo: _Repository) -> Table:
    table = _table(
        f"Images of {repo.name}", "tag", "age", "expires", "size", "platforms", "in use by", "$/month", right=(3, 6)
    )
    for one in repo.heads:
        own = members(one, repo.images)
        users = sorted({user for each in own for user in users_of(each, repo.in_use)})
        size = stored_bytes(own)
        table.add_row(
            _name(one),
            _span(repo.now - one.pushed_at),
            _expires(seconds_left(one, repo.now, repo.ttl_days)),
            _bytes(size),
            ", ".join(each.removeprefix("linux/") for each in one.platforms) or "–",
            ", ".join(users) or "–",
            _usd(size),
        )
    return table


def _to_prune(repo: _Repository, gone: Iterable[Prunable]) -> Table:
    table = _table("To delete", "image", "age", "size", "why", right=(2,))
    heads = {each.digest for each in repo.heads}
    for one in gone:
        if one.image.digest not in heads:
            continue
        size = stored_bytes(members(one.image, repo.images))
        table.add_row(_name(one.image), _span(repo.now - one.image.pushed_at), _bytes(size), one.why)
    return table


def _facts(repo: _Repository, one: StoredImage, document: Mapping[str, Any]) -> Table:
    table = Table(title=", ".join(one.tags) or one.digest, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("digest", one.digest)
    table.add_row("age", _span(repo.now - one.pushed_at))
    table.add_row("expires", _expires(seconds_left(one, repo.now, repo.ttl_days)))
    size = stored_bytes(members(one, repo.images))
    table.add_row("stored", f"{_bytes(size)}, {_usd(size)} a month")
    for name, value in sorted(document.get("annotations", {}).items()):
        table.add_row(name, str(value))
    return table


def _name(one: StoredImage) -> str:
    return ", ".join(map(_short, one.tags)) or f"no tag, {one.digest[:19]}…"


def _short(tag: str) -> str:
    """Return one of our tags with a shortened hash; commands accept it."""
    recipe = recipe_of(tag)
    return f"{recipe[:_SHORT]}{tag.removeprefix(recipe)}" if _RECIPE.fullmatch(recipe) else tag


def _platform(index: Mapping[str, Any], digest: str) -> str:
    """Return the platform of an image; the manifest of one without an index does not contain it."""
    named = {each["digest"]: each.get("platform", {}) for each in index.get("manifests", [])}
    platform = named.get(digest, {})
    return f"{platform['os']}/{platform['architecture']}" if "architecture" in platform else digest


def _layers(title: str, document: Mapping[str, Any]) -> Table:
    layers = document["layers"]
    table = _table(title, "layer", "format", "digest", "what", "compressed", right=(0, 4))
    for number, layer in enumerate(layers, 1):
        notes = layer.get("annotations", {})
        what = next((notes[name] for name in _LAYER_NAMES if name in notes), "–")
        table.add_row(str(number), _format(layer["mediaType"]), layer["digest"][:19], what, _bytes(layer["size"]))
    table.add_row("", "", "", "total", _bytes(sum(layer["size"] for layer in layers)))
    return table


def _format(media_type: str) -> str:
    return next((name for name in ("zstd", "gzip") if media_type.endswith(name)), "tar")


def _table(title: str, *columns: str, right: tuple[int, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        name = column in ("tag", "image")
        table.add_column(column, overflow="fold", no_wrap=name, justify="right" if number in right else "left")
    return table


def _expires(left: float | None) -> str:
    if left is None:
        return "never"
    return f"in {_span(left)}" if left > 0 else "within a day"


def _span(seconds: float) -> str:
    """Return a duration in the largest unit with a value of at least 2, rounded down."""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), _UNITS[-1])
    return f"{max(int(seconds // size), 0)} {unit}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _usd(size: int) -> str:
    return f"${monthly_cost(size):.4f}"
