"""A cache on disk of prices from AWS. It may be deleted at any time."""

from __future__ import annotations

import json
import logging
from dataclasses import astuple, dataclass
from pathlib import Path

from dask_starburst.paths import write_atomic

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """One price: USD an hour, when it was requested, and since when it applies (seconds since the epoch)."""

    usd: float
    asked: float
    since: float


class PriceCache:
    """One file with the prices of a region, by type, or by type and zone.

    Parameters
    ----------
    path : Path
        The file; neither it nor its folder need exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, Known]:
        """Return the prices in the file; none, with a warning in the log, if it cannot be read."""
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            return {str(key): _sound(*map(float, values)) for key, values in kept["prices"].items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            logger.warning("the cached prices in %s cannot be read and are not used: %s", self._path, error)
            return {}

    def write(self, prices: dict[str, Known]) -> None:
        """Merge prices into the file, which other processes write too; the later of two prices wins."""
        both = self.read()
        both |= {key: known for key, known in prices.items() if key not in both or both[key].asked <= known.asked}
        text = json.dumps({"prices": {key: astuple(known) for key, known in sorted(both.items())}})
        try:
            write_atomic(self._path, text.encode())
        except OSError as error:
            logger.warning("prices cannot be cached in %s: %s", self._path, error)


def _sound(usd: float, asked: float, since: float) -> Known:
    if not 0 < usd < float("inf"):
        raise ValueError(f"a price of {usd}")
    return Known(usd, asked, since)
