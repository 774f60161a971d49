"""Exceptions of credential providers become our errors with an explanation."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError, CredentialsExpired, StarburstError

#: Profile settings that make botocore itself raise, and a word of the expected error.
BROKEN = {
    "no-json": ("credential_process = echo Please log in", "JSONDecodeError"),
    "no-program": ("credential_process = /nowhere/helper", "FileNotFoundError"),
    "fails": ("credential_process = false", "CredentialRetrievalError"),
    "no-token": (
        "role_arn = arn:aws:iam::123456789012:role/r\nweb_identity_token_file = /nowhere/token",
        "FileNotFoundError",
    ),
}


WITH_MFA = "source_profile = base\nrole_arn = arn:aws:iam::123456789012:role/r\nmfa_serial = arn:aws:iam::1:mfa/me"
ASK = """
import asyncio
from dask_starburst.aws.session import AWS
from dask_starburst.errors import CredentialsExpired
try:
    asyncio.run(AWS(profile="with-mfa", endpoint_url="http://127.0.0.1:9").call("ecs", "ListClusters"))
except CredentialsExpired as error:
    print(error)
"""


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(f"[profile {name}]\nregion = us-east-1\n{lines}\n" for name, (lines, _) in BROKEN.items())
    text += f"[profile with-mfa]\nregion = us-east-1\n{WITH_MFA}\n"
    base = "[profile base]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = x\n"
    config = tmp_path / "config"
    config.write_text(text + base)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("profiles")
@pytest.mark.parametrize("profile", BROKEN)
def test_an_error_of_a_credential_provider_is_explained(profile: str) -> None:
    aws = AWS(profile=profile, endpoint_url="http://127.0.0.1:9")

    async def ask() -> None:
        aws.require_credentials()
        await aws.call("ecs", "ListClusters")

    with pytest.raises(CredentialsExpired, match=BROKEN[profile][1]) as found:
        asyncio.run(ask())
    assert "aws sso login" in str(found.value)
    aws.close()


@pytest.mark.usefixtures("profiles")
def test_an_mfa_prompt_without_a_terminal_is_explained() -> None:
    run = subprocess.run(
        [sys.executable, "-c", ASK],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "EOFError" in run.stdout
    assert "mfa_serial" in run.stdout


def test_other_errors_are_not_attributed_to_credentials() -> None:
    import boto3

    session = boto3.Session("AKIAIOSFODNN7EXAMPLE", "x", region_name="us-east-1")
    aws = AWS(session=session, endpoint_url="http://127.0.0.1:9")
    aws.shorten_timeouts()

    async def ask() -> None:
        await aws.call("ecs", "DescribeClusters", clusters=7)

    with pytest.raises(AWSError):
        asyncio.run(ask())
    with pytest.raises(StarburstError, match="cannot reach AWS"):
        asyncio.run(aws.call("ecs", "ListClusters"))
    aws.close()
