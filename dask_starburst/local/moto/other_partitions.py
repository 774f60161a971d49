"""Images and offered instance types of GovCloud and China, of which moto has no data: those of another region.

What AWS really sells there is not simulated.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from moto.ec2.models import amis
from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ssm import models as ssm_models

from dask_starburst.local.backend.account import partition

_DONOR = "us-west-2"
_REGION = re.compile(r"\b(?:us-gov|cn)-[a-z]+-\d\b")


def install(region: str) -> None:
    """Give a region of these partitions the data of another region."""
    if partition() == "aws":
        return
    for module in (amis, ssm_models):
        module.load_resource = _with_donor(module.load_resource)
    zones = RegionsAndZonesBackend.zones[region]
    places = {
        "region": [region],
        "availability-zone": [zone.name for zone in zones],
        "availability-zone-id": [zone.zone_id for zone in zones],
    }
    for kind, names in places.items():
        offered = {one["InstanceType"] for one in INSTANCE_TYPE_OFFERINGS[kind][_DONOR]}
        INSTANCE_TYPE_OFFERINGS[kind][region] = [
            {"InstanceType": offer, "LocationType": kind, "Location": name}
            for name in names
            for offer in sorted(offered)
        ]


def _with_donor(load: Any) -> Any:
    @functools.wraps(load)
    def load_resource(path: str) -> Any:
        return load(_REGION.sub(_DONOR, path))

    return load_resource
