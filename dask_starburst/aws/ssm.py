"""SSM: public AMI parameters, claims, secrets."""

from __future__ import annotations

from dask_starburst.aws import tolerant
from dask_starburst.aws.session import AWS

#: The ECS-optimized AL2023 AMI; AL2's support ended 2026-06-30 (aws-facts §2.2).
_AMI = "/aws/service/ecs/optimized-ami/amazon-linux-2023/{arm}recommended/image_id"

#: The value of a secret that is not needed any more.
FORGOTTEN = "-"


async def recommended_ami(aws: AWS, arch: str) -> str:
    """Return the id of the ECS-optimized Amazon Linux 2023 image for an architecture."""
    name = _AMI.format(arm="arm64/" if arch == "arm64" else "")
    answer = await aws.call("ssm", "GetParameter", Name=name)
    return str(answer["Parameter"]["Value"])


async def create(aws: AWS, name: str, value: str, tags: dict[str, str]) -> bool:
    """Create a parameter; return False if it exists. Atomic on AWS's side."""
    made = await tolerant.create(
        aws,
        "ssm",
        "PutParameter",
        Name=name,
        Value=value,
        Type="String",
        Overwrite=False,
        Tags=[{"Key": k, "Value": v} for k, v in tags.items()],
    )
    return made is not None


async def read(aws: AWS, name: str) -> str | None:
    """Return the value of a parameter, or None."""
    answer = await tolerant.get(aws, "ssm", "GetParameter", Name=name, WithDecryption=True)
    return None if answer is None else str(answer["Parameter"]["Value"])


async def names_below(aws: AWS, path: str) -> set[str]:
    """Return the names of the parameters below a path."""
    found = await aws.pages("ssm", "GetParametersByPath", "Parameters", Path=path)
    return {p["Name"] for p in found}


async def described_below(aws: AWS, path: str) -> set[str]:
    """Return the names of the parameters below a path, without the right to read their values."""
    filters = [{"Key": "Path", "Option": "OneLevel", "Values": [path]}]
    found = await aws.pages("ssm", "DescribeParameters", "Parameters", ParameterFilters=filters)
    return {p["Name"] for p in found}


async def values_below(aws: AWS, path: str) -> dict[str, str]:
    """Return the plain parameters below a path, at any depth, by name."""
    found = await aws.pages("ssm", "GetParametersByPath", "Parameters", Path=path, Recursive=True)
    return {p["Name"]: p["Value"] for p in found}


async def overwrite(aws: AWS, name: str, value: str) -> None:
    """Replace the value of a plain parameter."""
    await aws.call("ssm", "PutParameter", Name=name, Value=value, Type="String", Overwrite=True)


async def put_secret(aws: AWS, name: str, value: str) -> None:
    """Write a SecureString, encrypted with the account's default key.

    A secret that is not needed any more is overwritten by `forget`: its name is needed again soon, and "wait for at
    least 30 seconds to create a parameter with the same name" as a deleted one (SSM API reference, DeleteParameter).
    """
    await aws.call("ssm", "PutParameter", Name=name, Value=value, Type="SecureString", Overwrite=True)


async def remove(aws: AWS, name: str) -> None:
    """Delete a parameter. No-op if it does not exist."""
    await tolerant.delete(aws, "ssm", "DeleteParameter", Name=name)


async def forget(aws: AWS, name: str) -> None:
    """Overwrite a secret whose name will be used again."""
    await put_secret(aws, name, FORGOTTEN)
