"""Prices from the best available source: live, cached, bundled, derived or assumed. An unknown price is an error."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from dask_starburst.aws import pricing
from dask_starburst.aws.session import AWS
from dask_starburst.catalog import Price, price_table
from dask_starburst.cost.price_cache import Known, PriceCache
from dask_starburst.errors import PermissionDenied, PriceUnknown, StarburstError
from dask_starburst.paths import cache_dir

ON_DEMAND_SECONDS = 24 * 3600.0
"""Seconds for which a list price counts as live: AWS changes them a few times a year."""

SPOT_SECONDS = 300.0
"""Seconds for which a Spot price counts as live: AWS changes them by the hour."""

RETRY_AFTER_REFUSAL = 300.0
"""Seconds before a refused request is repeated."""

#: How the source of a price begins that a simulated AWS answered.
SIMULATED = "simulated "


class PriceBook:
    """The prices of one region, each from the best available source.

    The sources in order: a live price from AWS (on-demand: one day, Spot: five minutes), a cached one of any age, the
    bundled list, a price derived from the family's; else `PriceUnknown`. A Spot price that AWS has never returned is
    assumed from the on-demand price.

    Parameters
    ----------
    region : str
        Such as ``"eu-central-1"``.
    cache : Path, optional
        The cache folder; by default the user's. With another AWS than the real one, such as the embedded one, the cache
        is neither read nor written.
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
        self._simulated = ""  # a prefix of the sources if this is not the real AWS

    def on_demand(self, instance_type: str) -> Price:
        """Return the on-demand price of a type, as known now.

        Parameters
        ----------
        instance_type : str

        Raises
        ------
        PriceUnknown
            No source has a price.
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
        """Return the Spot price of a type, as known now.

        Parameters
        ----------
        instance_type : str
        zone : str, optional
            Such as ``"us-east-1a"``. Without a zone, or if its price is unknown: the highest price of the known zones.

        Raises
        ------
        PriceUnknown
            No source has a Spot or an on-demand price.
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
        """Request unknown and stale prices. A refusal is recorded, not raised.

        Parameters
        ----------
        aws : AWS
        types : iterable of str
            The instance types. Nothing is requested if it is empty.
        zones : iterable of str
            The zones for Spot; empty for all zones of the region.
        spot : bool, optional
            False to request on-demand prices only.
        """
        real = await self._check_real(aws)
        names, places = sorted(set(types)), sorted(set(zones))
        listed = [name for name in names if self._stale(name, ON_DEMAND_SECONDS)]
        spot_keys = {name: [f"{name} {zone}" for zone in places] or [f"{name} *"] for name in names}
        moving = [name for name in names if spot and any(self._stale(key, SPOT_SECONDS) for key in spot_keys[name])]
        await asyncio.gather(
            self._attempt("on-demand", lambda: self._ask_on_demand(aws, listed), listed),
            self._attempt(
                "Spot", lambda: self._ask_spot(aws, moving, places), [key for n in moving for key in spot_keys[n]]
            ),
        )
        if real and (listed or moving):
            await asyncio.to_thread(self._cache.write, dict(self._known))

    async def _check_real(self, aws: AWS) -> bool:
        """Return whether this is the real AWS; if not, discard the cached prices."""
        try:
            real = await aws.is_real("pricing")
        except StarburstError:
            return False  # no credentials or no region: the calls raise the error
        if not real and not self._simulated:
            self._simulated = SIMULATED
            self._known = {}
        return real

    async def _ask_on_demand(self, aws: AWS, types: list[str]) -> None:
        found, now = await pricing.on_demand(aws, self.region, types), self._now()
        self._store({name: Known(usd, now, now) for name, usd in found.items()})

    async def _ask_spot(self, aws: AWS, types: list[str], zones: list[str]) -> None:
        found, now = await pricing.spot(aws, types, zones, aws.now()), self._now()
        self._store({f"{name} {zone}": Known(usd, now, since) for (name, zone), (usd, since) in found.items()})

    def _store(self, news: dict[str, Known]) -> None:
        # A new dict, because another thread may be reading the old one.
        self._known = {**self._known, **news}

    async def _attempt(self, kind: str, ask: Callable[[], Awaitable[None]], keys: list[str]) -> None:
        if not keys:
            return
        self._requested.update(dict.fromkeys(keys, self._now()))
        try:
            await ask()
        except StarburstError as error:
            self._refusals[kind] = _reason(kind, error)
        else:
            self._refusals.pop(kind, None)

    def _stale(self, key: str, seconds: float) -> bool:
        """Return whether to request a price: it is not known or too old, and was not just refused."""
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
