"""Bad input and refused calls: one sentence each, before anything is launched."""

from __future__ import annotations

from typing import Any

import pytest

from dask_starburst import StarburstCluster
from dask_starburst.errors import BadArgument, CredentialsExpired, NoCredentials, PermissionDenied, StarburstError
from dask_starburst.local import LocalAWS

LAUNCHES = ("autoscaling:SetDesiredCapacity", "ecs:RunTask", "ec2:RunInstances")


@pytest.mark.parametrize(
    ("arguments", "what", "instead"),
    [
        ({"arch": "amr64"}, "arch='amr64'", "Did you mean 'arm64'"),
        ({"instance_types": ["c7g.xlagre"]}, "'c7g.xlagre'", "Did you mean c7g.xlarge"),
        ({"instance_types": ["c7i.xlarge"]}, "c7i.xlarge is x86_64", "arch='x86_64'"),
        ({"n_workers": -1}, "n_workers=-1", "0 or more"),
        ({"n_workers": 100_000}, "n_workers=100000", "max_workers=100000"),
        ({"n_workers": 2.5}, "n_workers=2.5", "whole number"),
        ({"worker": {"memory_limit": "10 TiB"}}, "10.00 TiB", "the largest"),
        ({"worker": {"nthreads": 8}, "instance_types": ["c7g.xlarge"]}, "8 threads", "larger instance type"),
        ({"worker": {"memory": "8 GiB"}}, "worker.memory", "worker.memory_limit"),
        ({"spot": {"policy": "cheap"}}, "'cheap'", "'on-demand'"),
        ({"network": {"caller": "0.0.0.0/0"}}, "0.0.0.0/0", "/32"),
        ({"security": False}, "security=False", "Leave security out"),
        ({"keep": {"lease": "5 s"}}, "lease=5 s", "60 s"),
        ({"cloud": "gcp"}, "cloud='gcp'", "'local'"),
    ],
)
def test_a_bad_argument_is_named_with_the_right_one(arguments: dict[str, Any], what: str, instead: str) -> None:
    with pytest.raises(BadArgument) as caught:
        StarburstCluster(**{"cloud": "local", **arguments})
    assert what in str(caught.value)
    assert instead in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_argument_is_refused_as_python_does() -> None:
    with pytest.raises(TypeError, match="n_worker is not a setting; did you mean n_workers"):
        StarburstCluster(n_worker=3)  # type: ignore[call-arg]  # what is tested


@pytest.fixture
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("no_credentials")
def test_without_credentials_the_error_names_both_options() -> None:
    with pytest.raises(NoCredentials) as caught:
        StarburstCluster(region="us-east-1")
    assert "aws configure" in str(caught.value)
    assert 'cloud="local"' in str(caught.value)


@pytest.mark.usefixtures("no_credentials")
def test_without_a_region_the_error_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.delenv("AWS_REGION", raising=False)
    with pytest.raises(BadArgument, match='region="us-east-1"'):
        StarburstCluster()


@pytest.fixture
def account(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the embedded AWS look like a configured account."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)


def refused(aws: LocalAWS, **arguments: Any) -> StarburstError:
    with pytest.raises(StarburstError) as caught:
        StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, quiet=True, n_workers=1, **arguments)
    return caught.value


def launches(aws: LocalAWS) -> int:
    return sum(aws.status().calls.get(action, 0) for action in LAUNCHES)


def test_an_expired_token_is_refused_before_anything_is_launched(clean: LocalAWS) -> None:
    before = launches(clean)
    clean.inject("sts:GetCallerIdentity", "ExpiredToken", "The security token included in the request is expired")
    error = refused(clean)
    assert isinstance(error, CredentialsExpired)
    assert "The security token included in the request is expired" in str(error)
    assert "Log in again" in str(error)
    assert launches(clean) == before


@pytest.mark.parametrize(
    ("action", "code", "new_size"),
    [
        ("ecs:CreateCluster", "AccessDeniedException", 31),
        ("ec2:CreateLaunchTemplate", "UnauthorizedOperation", 32),
        ("autoscaling:CreateAutoScalingGroup", "AccessDenied", 33),
        ("ssm:PutParameter", "AccessDeniedException", 34),
        ("autoscaling:SetDesiredCapacity", "AccessDenied", 35),
    ],
)
def test_a_denied_call_names_the_action(clean: LocalAWS, action: str, code: str, new_size: int) -> None:
    text = f"User: arn:aws:iam::123456789012:user/ann is not authorized to perform: {action}"
    clean.inject(action, code, text, status=403)
    error = refused(clean, storage={"volume_size": new_size})  # another pool, which has to be created
    assert isinstance(error, PermissionDenied)
    assert error.operation == action
    assert text in str(error)


def test_a_missing_pass_role_permission_is_named_although_another_action_was_called(clean: LocalAWS) -> None:
    text = "User: ann is not authorized to perform: iam:PassRole on resource: starburst-worker"
    clean.inject("ecs:RunTask", "AccessDeniedException", text, times=10)
    error = refused(clean)
    assert "iam:PassRole" in str(error)
