"""AWS's regions from botocore, without a call to AWS."""

from __future__ import annotations

from difflib import get_close_matches

from dask_starburst.errors import BadArgument

#: The regions of the partition ``aws`` that every account may use; the others have to be enabled first (AWS Account
#: Management reference, "Enable or disable AWS Regions in your account").
_BY_DEFAULT = frozenset(
    {
        *("us-east-1", "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "sa-east-1"),
        *("eu-central-1", "eu-west-1", "eu-west-2", "eu-west-3", "eu-north-1"),
        *("ap-south-1", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-southeast-1", "ap-southeast-2"),
    }
)
#: Partitions whose regions are all enabled.
_OTHER_PARTITIONS = ("us-gov-", "cn-", "us-iso", "eu-isoe-", "eusc-")


def is_opt_in(region: str) -> bool:
    """Return whether an account has to enable a region before it can use it."""
    return bool(region) and region not in _BY_DEFAULT and not region.startswith(_OTHER_PARTITIONS)


def dns_suffix(partition: str) -> str:
    """Return the suffix of the names of a partition's endpoints, such as ``amazonaws.com.cn``."""
    from botocore.loaders import create_loader  # see `check_region`

    partitions = create_loader().load_data("endpoints")["partitions"]
    return next(str(each["dnsSuffix"]) for each in partitions if each["partition"] == partition)


def check_region(region: str) -> None:
    """Raise an error for an unknown region.

    Raises
    ------
    BadArgument
        botocore does not know it; the message suggests similar ones.
    """
    import botocore.session  # what a start does not need is not loaded by it

    core = botocore.session.Session()
    known = {name for part in core.get_available_partitions() for name in core.get_available_regions("ec2", part)}
    if region in known:
        return
    near = get_close_matches(region, sorted(known), 3)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "give one such as 'us-east-1'."
    raise BadArgument(
        f"region={region!r:.100} is not among the {len(known)} regions of botocore {botocore.__version__}; {hint}"
    )
