"""Write the bundled catalogue, ``dask_starburst/catalog/data/*``, from packages or from AWS.

    pip install -e '.[test]'                                     # moto, and apache-libcloud for its prices
    python -m tools.refresh_catalog                              # types from moto, prices from apache-libcloud
    python -m tools.refresh_catalog --from aws                   # all of it from AWS, with your credentials
    python -m tools.refresh_catalog --from aws --region eu-west-1 --region us-east-1

A refresh that loses over 5 % of the types or moves over 10 % of the prices is refused, unless ``--accept`` says that it
is meant. What it writes depends on its sources alone: run twice, it changes nothing.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from tools import from_aws, from_packages, published
from tools.offered import Offered

DATA = Path(__file__).parent.parent / "dask_starburst" / "catalog" / "data"

#: More than this share of types lost, or of prices changed at all, looks like a broken source.
MOST_LOST = 0.05
MOST_MOVED = 0.10

TYPES_HEADER = ("name", "vcpus", "cores", "memory_mib", "gpus", "local_disk_gb", "network", "units")
FAMILIES_HEADER = ("family", "arch", "gpu", "burstable", "spot_saving_low", "spot_saving_high")


def rendered(offered: Offered) -> dict[str, str]:
    """File name to content, for the tests as for ``main``."""
    files = {
        "instance-types.csv": _csv(TYPES_HEADER, _type_rows(offered)),
        "families.csv": _csv(FAMILIES_HEADER, _family_rows(offered)),
        "prices.csv": _prices(offered),
        "fargate.csv": _csv(("arch", "vcpu", "gb"), [(a, *usd) for a, usd in sorted(published.FARGATE.items())]),
    }
    return {**files, "SOURCES.json": _sources(offered, files)}


def refusal(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Say why one catalogue should not take another's place; empty if it may."""
    types, new_types = (_names(files) for files in (before, after))
    lost = types - new_types
    if len(lost) > MOST_LOST * len(types):
        return f"{len(lost)} of {len(types)} types are lost: {_some(lost)}."
    prices, new_prices = (_cells(files) for files in (before, after))
    moved = {key for key, usd in prices.items() if new_prices.get(key) != usd}
    if len(moved) > MOST_MOVED * len(prices):
        return f"{len(moved)} of {len(prices)} prices have moved: {_some(' in '.join(key) for key in moved)}."
    return ""


@click.command(help=__doc__)
@click.option("--from", "source", type=click.Choice(["packages", "aws"]), default="packages", show_default=True)
@click.option("--region", "regions", multiple=True, help="With --from aws: only these regions. Default: all enabled.")
@click.option("--accept", is_flag=True, help="Write it although many types are lost or many prices have moved.")
@click.option("--into", type=click.Path(path_type=Path), default=DATA, help="Another folder than the package's.")
def main(source: str, regions: tuple[str, ...], accept: bool, into: Path) -> None:
    offered = from_aws.offered(regions) if source == "aws" else from_packages.offered()
    before = {path.name: path.read_text(encoding="utf-8") for path in into.glob("*.*")}
    after = rendered(offered)
    if "prices.csv" in before and (why := refusal(before, after)) and not accept:
        raise click.ClickException(f"{why} Nothing is written. If this is how it is now, say --accept.")
    into.mkdir(exist_ok=True)
    for name, content in after.items():
        (into / name).write_text(content, encoding="utf-8")
    click.echo(f"{len(_names(after))} types, {len(_cells(after))} prices of families in regions, to {into}")


def _type_rows(offered: Offered) -> Iterable[tuple[Any, ...]]:
    for each in offered.types:
        network = each.network.replace("Up to ", "^").replace(" Gigabit", "G")
        units = f"{offered.odd_units[each.name]:.8g}" if each.name in offered.odd_units else ""
        sizes = (each.vcpus, each.cores, each.memory_mib, each.gpus or "", each.local_disk_gb or "")
        yield each.name, *sizes, network, units


def _family_rows(offered: Offered) -> Iterable[tuple[Any, ...]]:
    families = {each.family: each for each in reversed(offered.types)}
    for family, one in sorted(families.items()):
        low, high = published.SAVINGS.get(family, ("", ""))
        yield family, one.arch, one.gpu, "yes" if one.burstable else "", low, high


def _prices(offered: Offered) -> str:
    """USD an hour of one unit: a row a family and source, a column a region, empty where it is not sold or not known.

    The rows of a family are in the order of their dates, so that the last one that has a price counts.
    """
    regions = sorted({region for rates in offered.rates.values() for region in rates})
    rows = []
    for source, rates in offered.rates.items():
        for family in {family for of_region in rates.values() for family in of_region}:
            cells = (rates.get(region, {}).get(family) for region in regions)
            rows.append((family, source, *("" if usd is None else f"{usd:.6g}" for usd in cells)))
    rows.sort(key=lambda row: (row[0], offered.about_prices[row[1]]["date"]))
    return _csv(("family", "source", *regions), rows)


def _sources(offered: Offered, files: Mapping[str, str]) -> str:
    about = {
        "written_by": "tools/refresh_catalog.py",
        "types": offered.about_types,
        "prices": offered.about_prices,
        "spot_savings": {"date": published.SAVINGS_DATE, "origin": "AWS Spot Instance Advisor, us-east-1"},
        "fargate": {
            "date": published.FARGATE_DATE,
            "origin": "AWS Fargate pricing page, us-east-1, Linux, as public notes quote it",
            "words": "AWS Fargate price",
        },
        "sha256": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()},
    }
    return json.dumps(about, indent=2) + "\n"


def _csv(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def _names(files: Mapping[str, str]) -> set[str]:
    return {row["name"] for row in csv.DictReader(files["instance-types.csv"].splitlines())}


def _cells(files: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """Price by family and region: the one that counts."""
    rows = csv.DictReader(files["prices.csv"].splitlines())
    known = {(row["family"], region): usd for row in rows for region, usd in row.items() if usd}
    return {key: usd for key, usd in known.items() if key[1] not in ("family", "source")}


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (", …" if len(ordered) > 5 else "")


if __name__ == "__main__":
    main()
