"""The partition of the account, and moto's state that is one for the whole account.

The partition follows from the region of the server. It is kept here as moto's state is: one in a process.
"""

from __future__ import annotations

from typing import Any

from moto.iam.models import iam_backends
from moto.sts.models import sts_backends
from moto.utilities.utils import get_partition

from dask_starburst.local.backend.backend import ACCOUNT

_DNS_SUFFIXES = {"aws-cn": "amazonaws.com.cn"}
_used = ["aws"]


def use_region(region: str) -> None:
    """Set the partition to that of a region."""
    _used[0] = get_partition(region)


def partition() -> str:
    """Return the partition: ``aws``, ``aws-cn`` or ``aws-us-gov``."""
    return _used[0]


def dns_suffix() -> str:
    """Return the suffix of the names of its endpoints."""
    return _DNS_SUFFIXES.get(partition(), "amazonaws.com")


def iam_backend() -> Any:
    """Return the users, roles and policies of the account."""
    return iam_backends[ACCOUNT][partition()]


def sts_backend() -> Any:
    """Return the assumed roles of the account."""
    return sts_backends[ACCOUNT][partition()]
