"""EC2's GetSpotPlacementScores, which moto lacks: how likely Spot capacity is, by the room of capacity pools."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from dask_starburst.catalog.markets import Market
from dask_starburst.local.http.protocols import XML, Answer, ServiceError, error_answer
from dask_starburst.local.services.ec2.capacity import Ec2Capacity
from dask_starburst.local.services.ec2.capacity_pools import Pool

#: Scores go from 1 to 10; with fewer than three types AWS gives low ones ("Spot placement score", EC2 User Guide).
_BEST, _FEW_TYPES = 9, 3


class PlacementScores:
    """Answers GetSpotPlacementScores for single zones of one region.

    Parameters
    ----------
    capacity : Ec2Capacity
        The room of capacity pools.
    region : str
        The scored region.
    zones : mapping of str to str
        The ids of the zones by name.
    """

    def __init__(self, capacity: Ec2Capacity, region: str, zones: Mapping[str, str]) -> None:
        self._capacity = capacity
        self._region = region
        self._zones = zones

    def answer(self, body: bytes) -> Answer:
        """Answer one form-encoded request."""
        form = dict(parse_qsl(body.decode()))
        types = [value for key, value in form.items() if re.fullmatch(r"InstanceType\.\d+", key)]
        if form.get("SingleAvailabilityZone") != "true" or not types or "TargetCapacity" not in form:
            message = "The embedded AWS scores single zones, for a TargetCapacity and a list of InstanceTypes."
            return error_answer("ec2", ServiceError("InvalidParameterValue", message))
        scores = {zone: self._score(types, name, int(form["TargetCapacity"])) for name, zone in self._zones.items()}
        items = "".join(
            f"<item><region>{escape(self._region)}</region><availabilityZoneId>{escape(zone)}</availabilityZoneId>"
            f"<score>{score}</score></item>"
            for zone, score in sorted(scores.items(), key=lambda each: -each[1])
        )
        root = "GetSpotPlacementScoresResponse"
        text = (
            f'<{root} xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>local</requestId>'
            f"<spotPlacementScoreSet>{items}</spotPlacementScoreSet></{root}>"
        )
        return 200, XML, text.encode()

    def _score(self, types: list[str], zone: str, capacity: int) -> int:
        """Return the share of the requested capacity that has room, as a score."""
        room = sum(min(self._capacity.room(Pool(kind, zone, Market.SPOT)), capacity) for kind in types)
        share = min(room / capacity, 1.0) if capacity else 1.0
        return max(1, round(share * (_BEST if len(types) >= _FEW_TYPES else _FEW_TYPES)))
