"""A subset of ECS's cluster query language: comparisons joined by ``and``.

https://docs.aws.amazon.com/AmazonECS/latest/developerguide/cluster-query-language.html
"""

from __future__ import annotations

import re

from dask_starburst.local.backend.state import ContainerInstance
from dask_starburst.local.services.ecs.common import invalid

_COMPARISON = re.compile(
    r"\s*(?P<subject>[A-Za-z][\w:.\-/]*)\s*"
    r"(?:(?P<operator>==|!=)\s*(?P<value>'[^']*'|\"[^\"]*\"|[\w:.\-/]+)"
    r"|(?P<membership>in|not_in)\s*\[(?P<values>[^\]]*)\]"
    r"|(?P<existence>exists|not_exists|!exists))\s*",
)


def matches(instance: ContainerInstance, query: str) -> bool:
    """Return whether a container instance matches an expression.

    Raises
    ------
    ServiceError
        The expression is not valid or not implemented.
    """
    comparisons = [_COMPARISON.fullmatch(part) for part in re.split(r"\band\b|&&", query)]
    if not all(comparisons):
        raise invalid(f"The expression {query!r} is not valid, or not implemented by the embedded AWS.")
    return all(_holds(instance, comparison) for comparison in comparisons if comparison is not None)


def _holds(instance: ContainerInstance, comparison: re.Match[str]) -> bool:
    value = _subject(instance, comparison["subject"])
    if comparison["operator"]:
        equal = value == comparison["value"].strip("'\"")
        return equal if comparison["operator"] == "==" else not equal
    if comparison["membership"]:
        among = value in [one.strip().strip("'\"") for one in comparison["values"].split(",")]
        return among if comparison["membership"] == "in" else not among
    return (value is not None) == (comparison["existence"] == "exists")


def _subject(instance: ContainerInstance, name: str) -> str | None:
    if name.startswith("attribute:"):
        return instance.attributes.get(name.removeprefix("attribute:"))
    subjects = {
        "ec2InstanceId": instance.ec2_instance.id,
        "agentConnected": str(instance.connected).lower(),
        "runningTasksCount": str(sum(task.status == "RUNNING" for task in instance.tasks.values())),
        "registeredAt": str(instance.registered_at),
    }
    if name not in subjects:
        raise invalid(f"The subject {name} is not implemented by the embedded AWS.")
    return subjects[name]
