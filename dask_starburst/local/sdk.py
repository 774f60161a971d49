"""Configuration that directs AWS SDKs and the AWS CLI to an embedded AWS only."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from dask_starburst.local.backend.keys import Credentials

if TYPE_CHECKING:
    import boto3

# botocore's format: configuration name, environment variable, value, conversion.
_NO_FILES = {
    "profile": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


def environment(endpoint_url: str, region: str, owner: Credentials) -> dict[str, str]:
    """Return the environment variables that direct AWS SDKs and the AWS CLI to an embedded AWS."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_ACCESS_KEY_ID": owner.access_key,
        "AWS_SECRET_ACCESS_KEY": owner.secret_key,
        "AWS_DEFAULT_REGION": region,
    }


def session(endpoint_url: str, region: str, owner: Credentials) -> boto3.Session:
    """Return a boto3 session whose clients all call an embedded AWS.

    The user's profiles, files and variables are ignored: they must not direct a call to the real AWS, or break it.
    """
    import boto3
    from botocore.config import Config
    from botocore.session import Session

    class OneEndpoint(Session):
        def create_client(self, *args: Any, **options: Any) -> Any:
            options["endpoint_url"] = options.get("endpoint_url") or endpoint_url
            return super().create_client(*args, **options)

    core = OneEndpoint(session_vars=_NO_FILES)
    core.register_component("data_loader", _loader())
    core.set_default_client_config(Config(proxies={}))
    return boto3.Session(
        aws_access_key_id=owner.access_key,
        aws_secret_access_key=owner.secret_key,
        aws_session_token=owner.token,
        region_name=region,
        botocore_session=core,
    )


@cache
def _loader() -> Any:
    """Return the data loader shared by all sessions: loading the service models takes a second."""
    from botocore.loaders import create_loader

    return create_loader()
