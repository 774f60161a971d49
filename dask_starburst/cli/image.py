"""``starburst image``: what images there are in ECR, how long they hold, what they cost, and removing them."""

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

#: Where a manifest says what one of its layers is.
_LAYER_NAMES = ("io.dask-starburst.layer", "org.opencontainers.image.title")
#: Our tags begin with the hash of a recipe, of which so much is enough to tell them apart.
_RECIPE = re.compile(r"[0-9a-f]{32}")
_SHORT = 12
_UNITS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "min"))

_repository = click.option("--repository", metavar="NAME", help="Default: as configured, starburst/worker.")


@dataclass(frozen=True)
class _Shelf:
    """What is in a repository, and what is known about it."""

    name: str
    images: tuple[StoredImage, ...]
    ttl_days: int | None
    in_use: Mapping[str, tuple[str, ...]]
    now: float

    @property
    def heads(self) -> list[StoredImage]:
        """All but the parts of others, the newest first."""
        parts = {child for each in self.images for child in each.children}
        heads = [each for each in self.images if each.tags or each.digest not in parts]
        return sorted(heads, key=lambda each: each.pushed_at, reverse=True)

    def find(self, name: str) -> StoredImage:
        """Return the image of this tag or digest, or the newest whose tag begins so."""
        for one in self.images:
            if name in (*one.tags, *map(_short, one.tags), one.digest):
                return one
        found = [(tag, one) for one in self.heads for tag in one.tags if tag.startswith(name)]
        if len({recipe_of(tag) for tag, _ in found}) > 1:
            raise BadArgument(f"{name!r} may be any of {', '.join(tag for tag, _ in found)}; give more of the tag.")
        if not found:
            raise BadArgument(
                f"{self.name} has no image {name!r}; `starburst image list` shows the tags of those that it has."
            )
        return found[0][1]


_BUILD = (
    "dask_starburst.cli.build:build",
    "Build the image that workers run, of the packages of this Python or of a file, and push it to ECR.",
)


@click.group(cls=LazyGroup, lazy={"build": _BUILD})
def image() -> None:
    """The images of workers that are kept in your account's ECR."""


@image.command("list")
@_repository
@account_options
def list_images(repository: str | None, **account: str | None) -> None:
    """Show every image of the region: its age, when it expires, its size, who uses it, what keeping it costs."""
    shelf = _look(account, repository)
    if not shelf.images:
        click.echo(f"No images in {shelf.name}.")
        return
    Console().print(_images(shelf))
    size = stored_bytes(shelf.images)
    click.echo(
        f"{_bytes(size)} are stored, layers that several have once: {_usd(size)} a month at"
        f" ${USD_PER_GB_MONTH:.2f} for a GB (us-east-1)."
    )


@image.command()
@click.argument("tag")
@_repository
@account_options
def inspect(tag: str, repository: str | None, **account: str | None) -> None:
    """Show what the image TAG consists of: its annotations, and the compressed size of each layer by platform."""
    shelf = _look(account, repository)
    found = shelf.find(tag)
    parts = members(found, shelf.images)
    texts = run(account, lambda aws: ecr.manifests(aws, shelf.name, [each.digest for each in parts]))
    documents = {digest: json.loads(text) for digest, text in texts.items()}
    Console().print(_facts(shelf, found, documents.get(found.digest, {})))
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
    """Show the images that nothing uses, ask, and delete them.

    Never one of a running task or of a pool's task definition, nor one that was pushed within the last hour. Of the
    newest recipes the latest image stays though nothing uses it: see --keep.
    """
    shelf = _look(account, repository)
    gone = _prunable(shelf, keep)
    if not gone:
        click.echo("Nothing to prune.")
        return
    Console().print(_to_prune(shelf, gone))
    digests = {each.image.digest for each in gone}
    freed = stored_bytes(shelf.images) - stored_bytes(each for each in shelf.images if each.digest not in digests)
    question = f"Delete them? That frees {_bytes(freed)}, {_usd(freed)} a month."
    if not yes:
        click.confirm(question, abort=True)
    # People are asked, and meanwhile a cluster may have taken one.
    again = {each.image.digest for each in _prunable(_look(account, repository), keep)}
    doomed = [each.image for each in gone if each.image.digest in again]
    heads = {each.digest for each in shelf.heads}
    failures = run(account, lambda aws: ecr.delete_images(aws, shelf.name, doomed))
    for digest, reason in failures.items():
        click.echo(f"{digest}: {reason}", err=True)
    done = sum(each.digest in heads and each.digest not in failures for each in doomed)
    spared = f"; {len(gone) - len(doomed)} are needed since, and stay" if len(doomed) < len(gone) else ""
    click.echo(f"Deleted {done} image{'' if done == 1 else 's'}{spared}.")
    if failures:
        raise SystemExit(1)


@image.command()
@click.argument("tag")
@_repository
@account_options
def refresh(tag: str, repository: str | None, **account: str | None) -> None:
    """Push the image TAG again under a new tag, so that its days count from now. Nothing is uploaded or removed."""
    shelf = _look(account, repository)
    found = shelf.find(tag)
    if not found.tags:
        raise BadArgument(f"{tag} is part of an image; refresh the image that `starburst image list` shows.")
    fresh = run(account, lambda aws: ecr.refresh(aws, shelf.name, found))
    left = seconds_left(fresh, shelf.now, shelf.ttl_days)
    click.echo(f"{_name(fresh)} is {_name(found)} pushed again; it expires {_expires(left)}.")


def _look(account: Mapping[str, str | None], repository: str | None) -> _Shelf:
    name = repository or Settings.load(region=account["region"] or UNSET).build.repository

    async def look(aws: AWS) -> _Shelf:
        images, days, in_use = await asyncio.gather(ecr.images(aws, name), ecr.ttl_days(aws, name), ecr.in_use(aws))
        return _Shelf(name, images, days, in_repository(in_use, name), aws.now())

    return run(account, look)


def _prunable(shelf: _Shelf, keep: int) -> tuple[Prunable, ...]:
    return prunable(shelf.images, shelf.in_use, shelf.now, shelf.ttl_days, keep)


def _images(shelf: _Shelf) -> Table:
    table = _table(
        f"Images of {shelf.name}", "tag", "age", "expires", "size", "platforms", "in use by", "$/month", right=(3, 6)
    )
    for one in shelf.heads:
        own = members(one, shelf.images)
        users = sorted({user for each in own for user in users_of(each, shelf.in_use)})
        size = stored_bytes(own)
        table.add_row(
            _name(one),
            _span(shelf.now - one.pushed_at),
            _expires(seconds_left(one, shelf.now, shelf.ttl_days)),
            _bytes(size),
            ", ".join(each.removeprefix("linux/") for each in one.platforms) or "–",
            ", ".join(users) or "–",
            _usd(size),
        )
    return table


def _to_prune(shelf: _Shelf, gone: Iterable[Prunable]) -> Table:
    table = _table("To delete", "image", "age", "size", "why", right=(2,))
    heads = {each.digest for each in shelf.heads}
    for one in gone:
        if one.image.digest not in heads:
            continue
        size = stored_bytes(members(one.image, shelf.images))
        table.add_row(_name(one.image), _span(shelf.now - one.image.pushed_at), _bytes(size), one.why)
    return table


def _facts(shelf: _Shelf, one: StoredImage, document: Mapping[str, Any]) -> Table:
    table = Table(title=", ".join(one.tags) or one.digest, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("digest", one.digest)
    table.add_row("age", _span(shelf.now - one.pushed_at))
    table.add_row("expires", _expires(seconds_left(one, shelf.now, shelf.ttl_days)))
    size = stored_bytes(members(one, shelf.images))
    table.add_row("stored", f"{_bytes(size)}, {_usd(size)} a month")
    for name, value in sorted(document.get("annotations", {}).items()):
        table.add_row(name, str(value))
    return table


def _name(one: StoredImage) -> str:
    return ", ".join(map(_short, one.tags)) or f"no tag, {one.digest[:19]}…"


def _short(tag: str) -> str:
    """Return a tag of ours without most of its hash; it can be given like that."""
    recipe = recipe_of(tag)
    return f"{recipe[:_SHORT]}{tag.removeprefix(recipe)}" if _RECIPE.fullmatch(recipe) else tag


def _platform(index: Mapping[str, Any], digest: str) -> str:
    """Return the platform of an image; one that is in no index does not say it in its manifest."""
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
    table.add_row("", "", "", "together", _bytes(sum(layer["size"] for layer in layers)))
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
    """Return a time in one unit, of which there are two at least, rounded down."""
    size, unit = next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), _UNITS[-1])
    return f"{max(int(seconds // size), 0)} {unit}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _usd(size: int) -> str:
    return f"${monthly_cost(size):.4f}"
