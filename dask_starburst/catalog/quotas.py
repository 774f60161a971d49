"""The vCPU quotas of an account: which instances and tasks count against which."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from dask_starburst.catalog.markets import Market

Service = Literal["ec2", "fargate"]


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota in Service Quotas, in vCPUs for an account and region.

    Attributes
    ----------
    code : str
        The quota code: ``"L-1216C47A"``.
    service : {"ec2", "fargate"}
        The service code.
    name : str
        AWS's name.
    label : str
        A short name for tables.
    market : {"on-demand", "spot"}
        The purchase option that it limits.
    default : float
        Quota of a new account in vCPUs. Most accounts have more: AWS raises it with use and on request.
    families : str
        A regular expression for the families of its instance types; empty for Fargate.
    """

    code: str
    service: Service
    name: str
    label: str
    market: Market
    default: float
    families: str = ""


_STANDARD = r"(?:[acdhimrtz]|im|is)\d"
_G = r"(?:g|gr|vt)\d"

#: Codes and names: "Amazon EC2 instance type quotas" (docs.aws.amazon.com/ec2/latest/instancetypes/
#: ec2-instance-quotas.html) and "AWS Fargate service quotas" (docs.aws.amazon.com/AmazonECS/latest/developerguide/
#: service-quotas.html), as accounts list them: those of Fargate under the service code ``fargate``, not ``ecs``.
#: Defaults: aws-facts §1.6. All read 2026-11. Families that do not suit Dask are left out (F, Inf, Trn, DL, HPC).
QUOTAS: Mapping[str, Quota] = MappingProxyType(
    {
        each.code: each
        for each in (
            Quota(
                "L-1216C47A",
                "ec2",
                "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
                "Standard, on demand",
                Market.ON_DEMAND,
                5.0,
                _STANDARD,
            ),
            Quota(
                "L-34B43A08",
                "ec2",
                "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
                "Standard, Spot",
                Market.SPOT,
                5.0,
                _STANDARD,
            ),
            Quota(
                "L-DB2E81BA",
                "ec2",
                "Running On-Demand G and VT instances",
                "G and VT, on demand",
                Market.ON_DEMAND,
                0.0,
                _G,
            ),
            Quota("L-3819A6DF", "ec2", "All G and VT Spot Instance Requests", "G and VT, Spot", Market.SPOT, 0.0, _G),
            Quota("L-417A185B", "ec2", "Running On-Demand P instances", "P, on demand", Market.ON_DEMAND, 0.0, r"p\d"),
            Quota(
                "L-7212CCBC",
                "ec2",
                "All P4, P3 and P2 Spot Instance Requests",
                "P2 to P4, Spot",
                Market.SPOT,
                0.0,
                r"p[234]",
            ),
            Quota("L-C4BD4855", "ec2", "All P5 Spot Instance Requests", "P5, Spot", Market.SPOT, 0.0, r"p5"),
            Quota("L-3032A538", "fargate", "Fargate On-Demand vCPU resource count", "Fargate", Market.ON_DEMAND, 6.0),
            Quota("L-36FBB829", "fargate", "Fargate Spot vCPU resource count", "Fargate Spot", Market.SPOT, 6.0),
        )
    }
)


@functools.cache
def quota_of(instance_type: str, market: Market) -> Quota | None:
    """Return the quota that an instance of this type counts against; None for a family that is not listed here.

    Parameters
    ----------
    instance_type : str
        Such as ``"c7g.xlarge"``.
    market : {"on-demand", "spot"}
        The purchase option.
    """
    mine = (each for each in QUOTAS.values() if each.service == "ec2" and each.market == market)
    return next((each for each in mine if re.match(each.families, instance_type)), None)


def fargate_quota(market: Market) -> Quota:
    """Return the quota that tasks on Fargate count against."""
    return next(each for each in QUOTAS.values() if each.service == "fargate" and each.market == market)
