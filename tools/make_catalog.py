"""Write the bundled catalogue: ``dask_starburst/catalog/data/*``.

Types come from moto's copy of DescribeInstanceTypes, prices from the tables below. Run it again after
changing a table or when moto has newer types; the tests hold the files to what this writes.

    python tools/make_catalog.py
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "dask_starburst" / "catalog" / "data"

REGION = "us-east-1"
ON_DEMAND_DATE = "2026-07-20"
SPOT_DATE = "2025-06"

# On demand, us-east-1, Linux, USD an hour of the xlarge (4 vCPUs). Within a family AWS prices by the vCPU.
XLARGE_PRICES = {
    "c6g": "0.136", "c7g": "0.145", "c8g": "0.15952",
    "m6g": "0.154", "m7g": "0.1632", "m8g": "0.17952",
    "r7g": "0.2142", "r8g": "0.23564",
    "c7gd": "0.1814", "c8gd": "0.19596",
    "c6i": "0.170", "c7i": "0.1785", "c7i-flex": "0.16958", "c6a": "0.153", "c7a": "0.20528",
    "m7i": "0.2016", "m7i-flex": "0.19152", "m7a": "0.23184",
    "r7i": "0.2646", "r7a": "0.3043",
    "c8i": "0.18742", "m8i": "0.21168", "r8i": "0.27784",
}  # fmt: skip
# Spot savings over on demand, percent, as AWS's Spot Instance Advisor gave them for us-east-1.
# A family that is not here had no published range: its Spot price is then taken to be the on-demand one.
SPOT_SAVINGS = {
    "c6g": (59, 71), "c7g": (49, 73), "c8g": (61, 70), "m7g": (62, 64), "m8g": (57, 72),
    "r7g": (67, 71), "r8g": (61, 78),
    "c7i": (59, 66), "c7i-flex": (47, 67), "c7a": (46, 69), "m7i": (52, 68),
}  # fmt: skip

SOURCES = {
    "instance-types.csv": {
        "what": "name, architecture, vCPUs and memory of the instance types that may be chosen",
        "source": "EC2 DescribeInstanceTypes, in the copy that the Python package moto 5.2.5 bundles (Apache-2.0)",
        "left_out": "bare metal and burstable types",
        "written_by": "tools/make_catalog.py",
    },
    "prices.csv": {
        "what": "on-demand USD an hour of a family's xlarge, and the range of its Spot savings in percent",
        "region": REGION,
        "on_demand": {"date": ON_DEMAND_DATE, "source": "Karpenter's generated on-demand price table (AWS Price List)"},
        "spot": {"date": SPOT_DATE, "source": "AWS Spot Instance Advisor, us-east-1"},
        "note": "other sizes are the xlarge price by the vCPU; an empty range was not published",
        "written_by": "tools/make_catalog.py",
    },
}


def described_types() -> dict[str, dict[str, Any]]:
    """What moto knows about every instance type."""
    packed = files("moto.ec2.resources").joinpath("instance_types.json.gz").read_bytes()
    described: dict[str, dict[str, Any]] = json.loads(gzip.decompress(packed))
    return described


def type_rows() -> list[tuple[str, str, int, int]]:
    """``(name, arch, vcpus, memory_mib)`` of each type of the families that have a price."""
    rows = []
    for name, described in described_types().items():
        family = name.partition(".")[0]
        if family not in XLARGE_PRICES or described["BareMetal"] or described["BurstablePerformanceSupported"]:
            continue
        architectures = described["ProcessorInfo"]["SupportedArchitectures"]
        arch = "arm64" if "arm64" in architectures else "x86_64"
        rows.append((name, arch, described["VCpuInfo"]["DefaultVCpus"], described["MemoryInfo"]["SizeInMiB"]))
    order = list(XLARGE_PRICES)
    return sorted(rows, key=lambda row: (order.index(row[0].partition(".")[0]), row[2]))


def price_rows() -> list[tuple[str, str, str, str]]:
    """``(family, usd_per_hour_xlarge, saving_low, saving_high)``, the last two empty where unknown."""
    unknown = ("", "")
    return [
        (family, price, str(low), str(high))
        for family, price in XLARGE_PRICES.items()
        for low, high in [SPOT_SAVINGS.get(family, unknown)]
    ]


def as_csv(header: tuple[str, ...], rows: list[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def rendered() -> dict[str, str]:
    """File name to content, for the test as for ``main``."""
    return {
        "instance-types.csv": as_csv(("name", "arch", "vcpus", "memory_mib"), type_rows()),
        "prices.csv": as_csv(("family", "usd_per_hour_xlarge", "spot_saving_low", "spot_saving_high"), price_rows()),
        "SOURCES.json": json.dumps(SOURCES, indent=2) + "\n",
    }


def main() -> None:
    DATA.mkdir(exist_ok=True)
    for name, content in rendered().items():
        (DATA / name).write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
