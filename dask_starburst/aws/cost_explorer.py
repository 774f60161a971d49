"""Cost Explorer: billed costs, up to a day late."""

from __future__ import annotations

from datetime import date

from dask_starburst.aws.session import AWS

#: USD for one request (AWS Cost Explorer pricing).
REQUEST_USD = 0.01


async def billed(aws: AWS, tag: str, start: date, end: date) -> dict[str, float]:
    """Return the billed USD of each value of a cost allocation tag, without credits.

    AWS charges `REQUEST_USD` for each page. A tag counts from the day on which it was activated for cost allocation in
    the billing console; new charges appear within a day (AWS Cost Management User Guide).

    Parameters
    ----------
    aws : AWS
        The account.
    tag : str
        The key of the tag.
    start, end : date
        The first day, and the one after the last.
    """
    request = {
        "TimePeriod": {"Start": start.isoformat(), "End": end.isoformat()},
        "Granularity": "MONTHLY",
        "Metrics": ["UnblendedCost"],
        "GroupBy": [{"Type": "TAG", "Key": tag}],
    }
    found: dict[str, float] = {}
    token: str | None = None
    while True:
        more = {"NextPageToken": token} if token else {}
        answer = await aws.call("ce", "GetCostAndUsage", **request, **more)
        for period in answer["ResultsByTime"]:
            for group in period.get("Groups", []):
                value = group["Keys"][0].partition("$")[
                    2
                ]  # "starburst:pool$starburst-1234-0"; nothing after $: untagged
                if value:
                    found[value] = found.get(value, 0.0) + float(group["Metrics"]["UnblendedCost"]["Amount"])
        token = answer.get("NextPageToken")
        if not token:
            return found
