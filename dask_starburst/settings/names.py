"""Names that reach requests, logs and scripts: of images, subnets, tags, and the cluster's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from dask_starburst.errors import BadArgument

#: Path of a repository, and its tag, as the OCI distribution specification 1.1 has them; a host as docker tells it
#: from a user of its hub: it has a dot or a port.
REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
HOST = re.compile(r"localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?|[A-Za-z0-9-]+:\d+|\[[0-9a-f:]+\](?::\d+)?")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: What CreateRepository of ECR takes (ECR API reference, repositoryName): 2 to 256 characters of this.
_ECR = re.compile(r"(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*")
_SUBNET = re.compile(r"subnet-(?:[0-9a-f]{8}|[0-9a-f]{17})")
#: Tags of one resource, and the number of our own at the most: pool, spec, warm-until, definition, Name, and five to
#: spare. Characters as IAM and ECS take them, the strictest: letters, digits, spaces and _ . : / = + - @
#: (docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html, IAM and ECS API references).
_MOST_TAGS, _OURS = 50, 10
_LONGEST_KEY, _LONGEST_VALUE = 128, 256
_NOT_IN_TAGS = re.compile(r"[^\w .:/=+\-@]")
_RESERVED = {"aws:": "AWS", "starburst:": "dask_starburst"}
_LONGEST_NAME = 128


def check_name(name: str | None) -> None:
    """Refuse a name of a cluster that cannot stand in a line of a log, or in a certificate."""
    if name is not None and not (0 < len(name) <= _LONGEST_NAME and name.isprintable() and name == name.strip()):
        raise BadArgument(
            f"name={name!r:.200} is not a name of 1 to {_LONGEST_NAME} printable characters on one line; give one such"
            " as 'nightly-etl'."
        )


def check_image_name(setting: str, image: str | None) -> None:
    """Refuse what docker would not take as the name of an image."""
    if image is None:
        return
    rest, at, digest = image.partition("@")
    first, slash, below = rest.partition("/")
    path = below if slash and HOST.fullmatch(first) else rest
    repository, colon, tag = path.partition(":")
    sound = REPOSITORY.fullmatch(repository) and (not colon or TAG.fullmatch(tag))
    if not sound or (at and not DIGEST.fullmatch(digest)):
        raise BadArgument(
            f"{setting}={image!r:.200} is not the name of an image; give one such as"
            " '123456789012.dkr.ecr.us-east-1.amazonaws.com/team/worker:1'."
        )


def check_repository_name(setting: str, name: str) -> None:
    """Refuse what ECR would not take as the name of a repository."""
    if not _ECR.fullmatch(name) or not 2 <= len(name) <= 256:
        raise BadArgument(f"{setting}={name!r:.200} is not the name of an ECR repository; give 'starburst/worker'.")


def check_subnet(setting: str, subnet: str | None) -> None:
    """Refuse what is not the id of a subnet."""
    if subnet is not None and not _SUBNET.fullmatch(subnet):
        raise BadArgument(
            f"{setting}={subnet!r:.200} is not the id of a subnet; give one such as 'subnet-0123456789abcdef0'."
        )


def check_url(setting: str, url: str | None) -> None:
    """Refuse what is not an address of HTTP: urllib would read files, too."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
        _ = parts.port
    except ValueError:
        sound = False
    if not sound:
        raise BadArgument(f"{setting}={url!r:.200} is not a URL of http or https; give one such as 'https://host:443'.")


def check_tags(tags: Mapping[str, str]) -> None:
    """Refuse tags that some service of AWS would refuse, or that are our own."""
    if len(tags) > _MOST_TAGS - _OURS:
        raise BadArgument(
            f"tags has {len(tags)} tags; AWS allows {_MOST_TAGS} on a resource, {_OURS} of which are kept for those of"
            f" dask_starburst, so give {_MOST_TAGS - _OURS} or fewer."
        )
    seen: dict[str, str] = {}
    for key, value in tags.items():
        _check_key(key)
        if len(value) > _LONGEST_VALUE:
            raise BadArgument(f"tags[{key!r}] has {len(value)} characters; AWS takes values of up to {_LONGEST_VALUE}.")
        _check_characters(f"the value of tags[{key!r}]", value)
        other = seen.setdefault(key.lower(), key)
        if other != key:
            raise BadArgument(
                f"tags has {other!r} and {key!r}, which differ in case only and are one key to IAM; give one of them."
            )


def _check_key(key: str) -> None:
    if not 0 < len(key) <= _LONGEST_KEY or key != key.strip():
        raise BadArgument(
            f"tags has the key {key!r:.200}; AWS takes keys of 1 to {_LONGEST_KEY} characters, without spaces around."
        )
    reserved = next((prefix for prefix in _RESERVED if key.lower().startswith(prefix)), None)
    if reserved is not None:
        raise BadArgument(
            f"tags has the key {key!r}; {reserved!r} is reserved for {_RESERVED[reserved]}, so give a key that begins"
            " otherwise."
        )
    _check_characters("the key", key)


def _check_characters(what: str, text: str) -> None:
    wrong = _NOT_IN_TAGS.search(text)
    if wrong is not None:
        raise BadArgument(
            f"tags: {what} {text!r:.200} has the character {wrong[0]!r}; IAM and ECS take letters, digits, spaces and"
            " _ . : / = + - @ only."
        )
