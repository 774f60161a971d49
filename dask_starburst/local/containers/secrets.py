"""The ``secrets`` of a container definition: values from Parameter Store and Secrets Manager."""

from __future__ import annotations

import json

from moto.core.exceptions import ServiceException
from moto.secretsmanager.models import secretsmanager_backends
from moto.ssm.models import ssm_backends

from dask_starburst.local.backend.backend import ACCOUNT

_PREFIX = "ResourceInitializationError: unable to pull secrets or registry auth: execution resource retrieval failed: "


class SecretError(Exception):
    """A secret could not be read. The message is the reason with which ECS stops the task."""


def resolve(value_from: str, region: str) -> str:
    """Read one secret.

    Parameters
    ----------
    value_from : str
        The name or ARN of a parameter, or the ARN of a secret, optionally with ``:key:stage:version``.
    region : str
        Its region.

    Raises
    ------
    SecretError
        It does not exist.
    """
    if ":secretsmanager:" in value_from:
        return _secret(value_from, region)
    parts = value_from.split(":parameter", 1)
    name = parts[-1] if len(parts) == 2 else value_from
    store = ssm_backends[ACCOUNT][region]
    # The ARN of "/a/b" and of "a/b" is ...:parameter/a/b; a name without other slashes has lost its leading one.
    for candidate in (name, name.removeprefix("/")):
        parameter = store.get_parameter(candidate)
        if parameter is not None:
            return str(parameter.response_object(decrypt=True, region=region)["Value"])
    raise SecretError(
        f"{_PREFIX}unable to retrieve secrets from ssm: service call has been retried 1 time(s): "
        f"invalid parameters: {name}"
    )


def _secret(arn: str, region: str) -> str:
    pieces = arn.split(":")
    identity, extra = ":".join(pieces[:7]), [*pieces[7:], "", "", ""]
    key, stage, version = extra[:3]
    backend = secretsmanager_backends[ACCOUNT][region]
    try:
        found = backend.get_secret_value(secret_id=identity, version_id=version, version_stage=stage or "AWSCURRENT")
        text = str(found["SecretString"])
        return str(json.loads(text)[key]) if key else text
    except (ServiceException, KeyError, ValueError) as error:
        message = f"unable to retrieve secret from asm: service call has been retried 1 time(s): {error}"
        raise SecretError(_PREFIX + message) from error
