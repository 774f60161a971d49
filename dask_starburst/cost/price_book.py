"""What things cost, as well as it can be known: live, cached, bundled, derived, assumed; never zero, never made up."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Coroutine, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dask_starburst.aws import pricing
from dask_starburst.aws.session import AWS
from dask_starburst.catalog import Price, price_table
from dask_starburst.cost.price_cache import Known, PriceCache
from dask_starburst.errors import PermissionDenied, PriceUnknown, StarburstError
from dask_starburst.paths import cache_dir

ON_DEMAND_SECONDS = 24 * 3600.0
"""How long a list price counts as live: AWS changes them a few times a year."""

SPOT_SECONDS = 300.0
"""How long a Spot price counts as live: AWS changes them by the hour."""

RETRY_AFTER_REFUSAL = 300.0
"""How long AWS is not asked again for what it has refused, in seconds."""


class PriceBook:
    """The prices of one region, from the best source that there is for each.

    What AWS has said lately (on demand a day, Spot five minutes), else what it has said once and was kept on disk,
    however old; else the bundled list; else what follows from the family's price; else `PriceUnknown`. A Spot price
    that AWS has never told is assumed from the on-demand one.

    Parameters
    ----------
    region : str
        Such as ``"eu-central-1"``.
    cache : Path, optional
        The folder to keep prices in; by default one of this user. What another AWS than the real one says, such as
        the embedded one, is not kept, and what was kept is then put aside.
    now : callable, optional
        Returns seconds since the epoch.
    """

    def __init__(self, region: str, *, cache: Path | None = None, now: Callable[[], float] = time.time) -> None:
        self.region = region
        self._now = now
        self._table = price_table(region)
        self._cache = PriceCache((cache or cache_dir() / "prices") / f"{region}.json")
        self._known: dict[str, Known] = self._cache.read()
        self._requested: dict[str, float] = {}
        self._refusals: dict[str, str] = {}
        self._simulated = ""  # what is said before the sources of another AWS than the real one

    def on_demand(self, instance_type: str) -> Price:
        """Give the on-demand price of a type, from what is known now.

        Parameters
        ----------
        instance_type : str

        Raises
        ------
        PriceUnknown
            No source has one.
        """
        known = self._known.get(instance_type)
        if known is not None:
            return self._price(known, "AWS price list", ON_DEMAND_SECONDS, "on-demand")
        why = self._refusals.get("on-demand", "")
        try:
            return dataclasses.replace(self._table.on_demand(instance_type), why=why)
        except PriceUnknown as error:
            raise PriceUnknown(f"{error} ({why})" if why else str(error)) from None

    def spot(self, instance_type: str, zone: str = "") -> Price:
        """Give the Spot price of a type, from what is known now.

        Parameters
        ----------
        instance_type : str
        zone : str, optional
            Such as ``"us-east-1a"``. Without, or where it is not known: that of the dearest zone that is.

        Raises
        ------
        PriceUnknown
            No source has one, nor one of on demand.
        """
        zones = {
            place: known
            for key, known in self._known.items()
            for name, _, place in [key.partition(" ")]
            if place and name == instance_type
        }
        if zone in zones:
            return self._price(zones[zone], "AWS Spot price history", SPOT_SECONDS, "Spot")
        if zones:
            where = max(zones, key=lambda name: zones[name].usd)
            return self._price(zones[where], f"AWS Spot price history ({where})", SPOT_SECONDS, "Spot")
        estimate = self._table.spot_estimate(instance_type, self.on_demand(instance_type))
        return dataclasses.replace(estimate, why=self._refusals.get("Spot", ""))

    async def refresh(self, aws: AWS, types: Iterable[str], zones: Iterable[str], *, spot: bool = True) -> None:
        """Ask AWS for what is not known, or not lately. What AWS refuses is remembered, not raised.

        Parameters
        ----------
        aws : AWS
        types : iterable of str
            The instance types; none of a region are asked for if it is empty.
        zones : iterable of str
            The zones for Spot; empty for all of the region.
        spot : bool, optional
            False if only on-demand prices are wanted.
        """
        real = await self._check_real(aws)
        names, places = sorted(set(types)), sorted(set(zones))
        listed = [name for name in names if self._stale(name, ON_DEMAND_SECONDS)]
        spot_keys = {name: [f"{name} {zone}" for zone in places] or [f"{name} *"] for name in names}
        moving = [name for name in names if spot and any(self._stale(key, SPOT_SECONDS) for key in spot_keys[name])]
        await asyncio.gather(
            self._attempt("on-demand", self._ask_on_demand(aws, listed), listed),
            self._attempt("Spot", self._ask_spot(aws, moving, places), [key for n in moving for key in spot_keys[n]]),
        )
        if real and (listed or moving):
            await asyncio.to_thread(self._cache.write, dict(self._known))

    async def _check_real(self, aws: AWS) -> bool:
        """Return whether this is the real AWS; if not, put aside what the real one has said."""
        try:
            real = await aws.is_real("pricing")
        except StarburstError:
            return False  # no credentials or no region: the calls will say so
        if not real and not self._simulated:
            self._simulated = "simulated "
            self._known = {}
        return real

    async def _ask_on_demand(self, aws: AWS, types: list[str]) -> None:
        found, now = await pricing.on_demand(aws, self.region, types), self._now()
        self._store({name: Known(usd, now, now) for name, usd in found.items()})

    async def _ask_spot(self, aws: AWS, types: list[str], zones: list[str]) -> None:
        found, now = await pricing.spot(aws, types, zones, aws.now()), self._now()
        self._store({f"{name} {zone}": Known(usd, now, since) for (name, zone), (usd, since) in found.items()})

    def _store(self, news: dict[str, Known]) -> None:
        # Another dict, because another thread may be reading the old one.
        self._known = {**self._known, **news}

    async def _attempt(self, kind: str, ask: Coroutine[Any, Any, None], keys: list[str]) -> None:
        if not keys:
            ask.close()
            return
        self._requested.update(dict.fromkeys(keys, self._now()))
        try:
            await ask
        except StarburstError as error:
            self._refusals[kind] = _reason(kind, error)
        else:
            self._refusals.pop(kind, None)

    def _stale(self, key: str, seconds: float) -> bool:
        """Whether to ask: not known lately, and not asked in vain just now."""
        now, known = self._now(), self._known.get(key)
        if known is not None and now - known.asked < seconds:
            return False
        return key not in self._requested or now - self._requested[key] >= min(seconds, RETRY_AFTER_REFUSAL)

    def _price(self, known: Known, source: str, seconds: float, kind: str) -> Price:
        fresh = self._now() - known.asked < seconds
        date = datetime.fromtimestamp(known.asked, UTC).strftime("%Y-%m-%d")
        why = "" if fresh else self._refusals.get(kind, "")
        since = known.since if kind == "Spot" else None
        return Price(known.usd, self._simulated + source, date, "live" if fresh else "cached", why, since)


def _reason(kind: str, error: StarburstError) -> str:
    if isinstance(error, PermissionDenied):
        return f"live {'Spot ' if kind == 'Spot' else ''}price denied: {error.operation}"
    return f"no live {'Spot ' if kind == 'Spot' else ''}price: {error}"
