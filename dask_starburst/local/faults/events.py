"""The kinds of faults of an embedded AWS, as frozen records.

Times are virtual seconds. If a record leaves its target open, the scenario's seed chooses one of the matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from dask_starburst.catalog.quotas import QUOTAS
from dask_starburst.catalog.quotas import Quota as QuotaOfAws
from dask_starburst.local.faults.event import Event as Event  # its users have it from here

NOTICE_SECONDS = 120.0
"""Seconds from a Spot notice to the interruption: "Spot Instance interruption notices", EC2 User Guide."""


HIDDEN = (
    "tasks",
    "container-instances",
    "groups",
    "group-instances",
    "launch-templates",
    "security-groups",
    "roles",
    "service-linked-roles",
    "instance-profiles",
    "deleted-parameters",
)
"""Resources that can be hidden. A hidden service-linked role cannot be assumed; the name of a deleted parameter cannot
be used again until its deletion is visible."""
REFUSALS = ("capacity", "addresses", "verification")
"""Reasons of refused launches."""
_STANDARD = {"spot": "L-34B43A08", "on-demand": "L-1216C47A"}  # quotas of the standard families


@dataclass(frozen=True, kw_only=True)
class Pools(Event, common=True):
    """Applies to all capacity pools with this type, zone and market; None matches any."""

    type: str | None = None
    zone: str | None = None
    market: str | None = None


@dataclass(frozen=True, kw_only=True)
class Capacity(Pools):
    """Each matching pool has room for ``room`` more instances (None: unlimited), for ``seconds`` or for good."""

    room: int | None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Refuses(Pools):
    """Matching pools look available and refuse launches, ``count`` times or for ``seconds`` (neither: once).

    ``why`` is one of `REFUSALS`: no capacity, a subnet without addresses, or a new account that AWS still verifies.
    """

    count: int | None = None
    seconds: float | None = None
    why: str = "capacity"

    def __post_init__(self) -> None:
        """Validate the reason."""
        super().__post_init__()
        if self.why not in REFUSALS:
            raise ValueError(f"a launch is refused for {', '.join(REFUSALS)}, not {self.why}")


@dataclass(frozen=True, kw_only=True)
class SpotPrice(Event):
    """Spot of a ``type`` in a ``zone`` (None: any) costs ``times`` the assumed price, for ``seconds`` or for good.

    No instance is interrupted: AWS interrupts for capacity, not for price, unless the request has a maximum price.
    """

    times: float
    type: str | None = None
    zone: str | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Validate the fields."""
        super().__post_init__()
        if self.times == 0:
            raise ValueError("times of spot-price cannot be 0")


@dataclass(frozen=True, kw_only=True)
class Quota(Event):
    """A vCPU quota of the account is ``vcpus`` (None: the initial value), for ``seconds`` or for good.

    ``market="spot"`` or ``"on-demand"`` selects the quota of the standard families; ``code`` any other, such as
    ``"L-DB2E81BA"`` (G and VT on demand) or ``"L-3032A538"`` (Fargate).
    """

    market: str | None = None
    vcpus: int | None
    seconds: float | None = None
    code: str | None = None

    def __post_init__(self) -> None:
        """Validate the fields: exactly one quota."""
        super().__post_init__()
        if [self.market in _STANDARD, self.code in QUOTAS] != [self.code is None, self.market is None]:
            raise ValueError(f"quota needs a market ({', '.join(_STANDARD)}) or a code ({', '.join(QUOTAS)})")

    @property
    def quota(self) -> QuotaOfAws:
        """The selected quota."""
        return QUOTAS[self.code or _STANDARD[str(self.market)]]


@dataclass(frozen=True, kw_only=True)
class Instances(Event, common=True):
    """Applies to ``count`` running instances that match, chosen by the seed.

    ``group`` is a pattern for the name of their Auto Scaling group, such as ``"*-spot"``.
    """

    count: int = 1
    instance: str | None = None
    type: str | None = None
    zone: str | None = None
    market: str | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class Interrupt(Instances):
    """Spot interrupts instances, ``notice`` seconds after the notice."""

    notice: float = NOTICE_SECONDS


@dataclass(frozen=True, kw_only=True)
class Rebalance(Instances):
    """Spot instances receive a rebalance recommendation."""


@dataclass(frozen=True, kw_only=True)
class HostDeath(Instances):
    """Instances terminate at once, without a notice."""


@dataclass(frozen=True, kw_only=True)
class AgentLost(Instances):
    """The ECS agent of instances disconnects, for ``seconds`` or for good. Tasks keep running."""

    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class NextInstances(Event, common=True):
    """Applies to the next ``count`` matching instances that enter the state running."""

    count: int = 1
    type: str | None = None
    zone: str | None = None
    market: str | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class AgentNever(NextInstances):
    """Instances never register with ECS."""


@dataclass(frozen=True, kw_only=True)
class SlowBoot(NextInstances):
    """Instances take ``seconds`` longer to boot."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Tasks(Event, common=True):
    """Applies to ``count`` running tasks that match, chosen by the seed.

    ``task`` is an id or an ARN, ``family`` a pattern for the family of its definition, such as ``"*-worker"``, and
    ``group`` one for the name of its instance's Auto Scaling group.
    """

    count: int = 1
    task: str | None = None
    family: str | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class TaskDeath(Tasks):
    """Kill the process of tasks; they stop with an exit code."""

    exit_code: int = 137


@dataclass(frozen=True, kw_only=True)
class OutOfMemory(Tasks):
    """Tasks are killed for out of memory."""


@dataclass(frozen=True, kw_only=True)
class NextTasks(Event, common=True):
    """Applies to the next ``count`` tasks to start with a matching family."""

    count: int = 1
    family: str | None = None


@dataclass(frozen=True, kw_only=True)
class PullFailure(NextTasks):
    """The image cannot be pulled."""


@dataclass(frozen=True, kw_only=True)
class ExecFormat(NextTasks):
    """The image is for another architecture. runc exits with 255, older versions with 1."""

    exit_code: int = 255


@dataclass(frozen=True, kw_only=True)
class TaskStopsAtOnce(NextTasks):
    """The container exits as soon as it has started, with an optional last log line."""

    exit_code: int = 1
    log: str = ""


@dataclass(frozen=True, kw_only=True)
class LatePlacement(Event):
    """RunTask returns tasks of a capacity provider before ECS has placed them.

    They are ``PROVISIONING`` without container instance and containers. ``seconds`` later ECS places them, or
    they stop with ``stopCode=TaskFailedToStart`` and the reason that RunTask would have returned (``RESOURCE:MEMORY``,
    ``AGENT``, ...; see "Amazon ECS API failure reasons"). ``fails``: a reason for which they are never placed.
    Applies to the next ``count`` tasks with a matching family (None: all).
    """

    seconds: float
    fails: str | None = None
    count: int | None = None
    family: str | None = None


@dataclass(frozen=True, kw_only=True)
class Calls(Event, common=True):
    """Applies to calls of an action, a pattern such as ``"ecs:RunTask"``, ``"ecs:*"`` or ``"*"``.

    It ends after ``count`` calls or ``seconds`` (neither: one call), and affects each call with a probability.
    """

    action: str = "*"
    count: int | None = None
    seconds: float | None = None
    probability: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Throttle(Calls):
    """Calls are throttled, with the error of their service."""


@dataclass(frozen=True, kw_only=True)
class Error(Calls):
    """They fail."""

    code: str = "InternalFailure"
    message: str = "The request processing has failed because of an unknown error, exception or failure."
    status: int = 500

    def __post_init__(self) -> None:
        """Validate the HTTP status."""
        super().__post_init__()
        HTTPStatus(self.status)


@dataclass(frozen=True, kw_only=True)
class Timeout(Calls):
    """Calls are not performed and not answered; after ``hold`` seconds the connection is closed."""

    hold: float = 5.0


@dataclass(frozen=True, kw_only=True)
class LostResponse(Calls):
    """Calls are performed, then the connection is closed without an answer."""


@dataclass(frozen=True, kw_only=True)
class Invisible(Event):
    """Resources created from now on are hidden for ``delay`` seconds: AWS is eventually consistent.

    ``what`` is one of `HIDDEN`, or ``*`` for all. The fault lasts for ``seconds`` or for good.
    """

    delay: float
    what: str = "*"
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Validate the fields."""
        super().__post_init__()
        if self.what not in (*HIDDEN, "*"):
            raise ValueError(f"what can be invisible is one of {', '.join(HIDDEN)} or *, not {self.what}")


@dataclass(frozen=True, kw_only=True)
class FreshProfile(Event):
    """EC2 refuses instance profiles younger than ``age`` seconds, for ``seconds`` or for good."""

    age: float
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class ClockSkew(Event):
    """The callers' clock is ``behind`` or ``ahead`` of AWS's by seconds, for ``seconds`` or for good."""

    behind: float = 0.0
    ahead: float = 0.0
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class RegionNotEnabled(Event):
    """The account has not enabled the region: it does not know its keys, for ``seconds`` or for good."""

    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Clear(Event):
    """End all active and pending faults."""
