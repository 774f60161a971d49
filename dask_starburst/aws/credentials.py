"""Errors of credential providers: external programs, files, a login, an MFA prompt."""

from __future__ import annotations

import traceback
from types import TracebackType

from botocore.exceptions import (
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)

from dask_starburst.errors import CredentialsExpired

#: The modules of botocore that load credentials.
_PROVIDERS = ("botocore.credentials", "botocore.tokens")
#: These are translated in `aws.client_errors`; a lost connection is retried.
_KNOWN = (
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)


def fault(error: Exception) -> CredentialsExpired | None:
    """Return the error to raise for an exception in a credential provider; None for other exceptions.

    Providers raise any exception: ``credential_process`` a ``JSONDecodeError`` or a ``FileNotFoundError``, a prompt
    without a terminal an ``EOFError`` (github.com/aws/aws-cli/issues/5109, github.com/boto/botocore/issues/1805).
    """
    if isinstance(error, _KNOWN) or not _of_provider(error.__traceback__):
        return None
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return CredentialsExpired(
        f"AWS credentials could not be loaded ({what}). Check credential_process, web_identity_token_file and"
        " mfa_serial in your AWS configuration, or log in again (`aws sso login`, or new keys in `aws configure`)."
    )


def _of_provider(trace: TracebackType | None) -> bool:
    modules = (str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(trace))
    return any(module.startswith(_PROVIDERS) for module in modules)
