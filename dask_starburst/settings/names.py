"""Validate names that are used in requests, logs and scripts: of clusters, images, subnets and tags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from dask_starburst.errors import BadArgument

#: Repository path and tag by the OCI distribution specification 1.1. A host has a dot or a port, which is how Docker
#: distinguishes it from a user of Docker Hub.
REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
HOST = re.compile(r"localhost|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+(?::\d+)?|[A-Za-z0-9-]+:\d+|\[[0-9a-f:]+\](?::\d+)?")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
#: Repository names that ECR accepts (ECR API reference, repositoryName), 2 to 256 characters.
_ECR = re.compile(r"(?:[a-z0-9]+(?:[._-][a-z0-9]+)*/)*[a-z0-9]+(?:[._-][a-z0-9]+)*")
_ID = re.compile(r"(?P<kind>subnet|vpc|sg)-(?:[0-9a-f]{8}|[0-9a-f]{17})")
_KINDS = {"subnet": "a subnet", "vpc": "a VPC", "sg": "a security group"}
#: The limit of tags on a resource, and the number reserved for our own: pool, spec, warm-until, definition, Name, and
#: five spare. IAM and ECS are the strictest about characters: letters, digits, spaces and _ . : / = + - @
#: (docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html, IAM and ECS API references).
_MOST_TAGS, _OURS = 50, 10
_LONGEST_KEY, _LONGEST_VALUE = 128, 256
_NOT_IN_TAGS = re.compile(r"[^\w .:/=+\-@]")
_RESERVED = {"aws:": "AWS", "starburst:": "dask_starburst"}
_LONGEST_NAME = 128
#: Name of a Debian package (Debian policy §5.6.1), with an optional architecture and version. apt removes a package
#: whose name ends in a hyphen.
DEBIAN_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.](?::[a-z0-9]+)?(?:=[A-Za-z0-9.+:~-]+)?")


def check_name(setting: str, name: str) -> None:
    """Validate a cluster name, which is used in logs and in a certificate."""
    if not (0 < len(name) <= _LONGEST_NAME and name.isprintable() and name == name.strip()):
        raise BadArgument(
            f"{setting}={name!r:.200} is not a name of 1 to {_LONGEST_NAME} printable characters on one line; give one"
            " such as 'nightly-etl'."
        )


def check_image_name(setting: str, image: str) -> None:
    """Validate the name of a container image."""
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


def check_base_name(setting: str, image: str) -> None:
    """Validate the name of a base image, in which the Python version is filled in later."""
    check_image_name(setting, image.replace("{python}", "3.12"))


def check_repository_name(setting: str, name: str) -> None:
    """Validate the name of an ECR repository."""
    if not _ECR.fullmatch(name) or not 2 <= len(name) <= 256:
        raise BadArgument(f"{setting}={name!r:.200} is not the name of an ECR repository; give 'starburst/worker'.")


def check_subnet(setting: str, subnet: str) -> None:
    """Validate the ID of a subnet."""
    _check_id(setting, subnet, "subnet")


def check_vpc(setting: str, vpc: str) -> None:
    """Validate the ID of a VPC."""
    _check_id(setting, vpc, "vpc")


def check_subnets(setting: str, subnets: tuple[str, ...]) -> None:
    """Validate the IDs of subnets."""
    for subnet in subnets:
        _check_id(setting, subnet, "subnet")


def check_security_groups(setting: str, groups: tuple[str, ...]) -> None:
    """Validate the IDs of security groups."""
    for group in groups:
        _check_id(setting, group, "sg")


def _check_id(setting: str, value: str, kind: str) -> None:
    found = _ID.fullmatch(value)
    if found is None or found["kind"] != kind:
        raise BadArgument(
            f"{setting}={value!r:.200} is not the ID of {_KINDS[kind]}; give one such as '{kind}-0123456789abcdef0'."
        )


def check_url(setting: str, url: str) -> None:
    """Validate an HTTP URL: urllib would also read files."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable() and " " not in url
        _ = parts.port
    except ValueError:
        sound = False
    if not sound:
        raise BadArgument(f"{setting}={url!r:.200} is not an http or https URL; give one such as 'https://host:443'.")


def check_debian_packages(setting: str, packages: tuple[str, ...]) -> None:
    """Validate names of Debian packages."""
    wrong = next((name for name in packages if not DEBIAN_PACKAGE.fullmatch(name)), None)
    if wrong is not None:
        raise BadArgument(
            f"{setting}={wrong!r} is not the name of a Debian package; give names such as 'libgeos-c1v5'"
            " or 'gdal-bin=3.6.2+dfsg-1'."
        )


#: Names of environment variables that shells accept (POSIX.1-2017, "Environment Variable Definition").
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Variables that dask_starburst or ECS sets, or that would carry credentials.
_OWN_VARIABLES = ("STARBURST_", "AWS_", "ECS_", "DASK_INTERNAL_")
SECRET_NAME = re.compile(
    r"passw|secret|token|credential|(?:^|[-_])(?:access|api|private|account)[-_]?key", re.IGNORECASE
)


def check_environment(setting: str, variables: Mapping[str, str]) -> None:
    """Refuse environment variables that have no valid name, are set by the cluster, or look like secrets."""
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or "\0" in value:
            raise BadArgument(
                f"{setting} has {name!r:.200}, which is not a valid environment variable; give letters, digits and _,"
                " such as 'OMP_NUM_THREADS'."
            )
        own = next((prefix for prefix in _OWN_VARIABLES if name.startswith(prefix)), None)
        if own is not None:
            raise BadArgument(f"{setting} has {name!r}; names with {own} are set by the cluster and ECS; leave it out.")
        if SECRET_NAME.search(name):
            raise BadArgument(
                f"{setting} has {name!r}, which looks like a secret: anybody who may describe task definitions could"
                " read it. Fetch it in your task instead, for example from AWS Secrets Manager."
            )


def check_tags(setting: str, tags: Mapping[str, str]) -> None:
    """Refuse tags that an AWS service would refuse, or that are reserved."""
    if len(tags) > _MOST_TAGS - _OURS:
        raise BadArgument(
            f"{setting} has {len(tags)} tags; AWS allows {_MOST_TAGS} on a resource, and dask_starburst reserves"
            f" {_OURS} of them; give {_MOST_TAGS - _OURS} or fewer."
        )
    seen: dict[str, str] = {}
    for key, value in tags.items():
        _check_key(setting, key)
        if len(value) > _LONGEST_VALUE:
            raise BadArgument(f"{setting}[{key!r}] has {len(value)} characters; AWS accepts up to {_LONGEST_VALUE}.")
        _check_characters(setting, f"the value of {setting}[{key!r}]", value)
        other = seen.setdefault(key.lower(), key)
        if other != key:
            raise BadArgument(
                f"{setting} has {other!r} and {key!r}, which differ only in case and are the same key for IAM;"
                " give one."
            )


def _check_key(setting: str, key: str) -> None:
    if not 0 < len(key) <= _LONGEST_KEY or key != key.strip():
        raise BadArgument(
            f"{setting} has the key {key!r:.200}; AWS accepts 1 to {_LONGEST_KEY} characters without surrounding"
            " spaces."
        )
    reserved = next((prefix for prefix in _RESERVED if key.lower().startswith(prefix)), None)
    if reserved is not None:
        raise BadArgument(
            f"{setting} has the key {key!r}; {reserved!r} is reserved for {_RESERVED[reserved]}; give a key with"
            " another prefix."
        )
    _check_characters(setting, "the key", key)


def _check_characters(setting: str, what: str, text: str) -> None:
    wrong = _NOT_IN_TAGS.search(text)
    if wrong is not None:
        raise BadArgument(
            f"{setting}: {what} {text!r:.200} has the character {wrong[0]!r}; IAM and ECS accept only letters, digits,"
            " spaces and _ . : / = + - @."
        )
