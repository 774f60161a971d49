"""AWS's regions from botocore, without a call to AWS."""

from __future__ import annotations

from difflib import get_close_matches

from dask_starburst.errors import BadArgument


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
