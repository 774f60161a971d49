"""The kinds of faults: what may happen to an embedded AWS, as frozen records.

Times are virtual seconds. Where a record leaves its target open, the seed of the scenario chooses among all that match.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from dask_starburst.catalog.quotas import QUOTAS
from dask_starburst.catalog.quotas import Quota as QuotaOfAws
from dask_starburst.local.faults.event import Event as Event  # its users have it from here

NOTICE_SECONDS = 120.0
"""How long a Spot notice comes before the interruption: "Spot Instance interruption notices", EC2 User Guide."""


HIDDEN = ("tasks", "container-instances", "group-instances", "launch-templates", "instance-profiles")
"""What can be invisible for a while."""
_STANDARD = {"spot": "L-34B43A08", "on-demand": "L-1216C47A"}  # families' quotas


@dataclass(frozen=True, kw_only=True)
class Pools(Event, common=True):
    """Of all capacity pools that have this type, zone and market; what is None is any."""

    type: str | None = None
    zone: str | None = None
    market: str | None = None


@dataclass(frozen=True, kw_only=True)
class Capacity(Pools):
    """Each of some pools has ``room`` for so many instances more (None: any number), for ``seconds`` or for good."""

    room: int | None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Refuses(Pools):
    """Some pools look open and refuse, ``count`` times or for ``seconds`` (neither: once)."""

    count: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class SpotPrice(Event):
    """Spot of a ``type`` in a ``zone`` (None: any) costs ``times`` what is assumed, for ``seconds`` or for good.

    Nobody loses an instance by it: AWS interrupts for capacity, not for a price, unless one was bid.
    """

    times: float
    type: str | None = None
    zone: str | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse what AWS does not have."""
        super().__post_init__()
        if self.times == 0:
            raise ValueError("times of spot-price cannot be 0: nothing is free")


@dataclass(frozen=True, kw_only=True)
class Quota(Event):
    """A vCPU quota of the account is ``vcpus`` (None: as at the start), for ``seconds`` or for good.

    With ``market="spot"`` or ``"on-demand"`` that of the standard families; any other by its ``code``, such as
    ``"L-DB2E81BA"`` (G and VT on demand) or ``"L-3032A538"`` (Fargate).
    """

    market: str | None = None
    vcpus: int | None
    seconds: float | None = None
    code: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no quota, or two."""
        super().__post_init__()
        if [self.market in _STANDARD, self.code in QUOTAS] != [self.code is None, self.market is None]:
            raise ValueError(f"quota needs a market ({', '.join(_STANDARD)}) or a code ({', '.join(QUOTAS)})")

    @property
    def quota(self) -> QuotaOfAws:
        """The quota that is meant."""
        return QUOTAS[self.code or _STANDARD[str(self.market)]]


@dataclass(frozen=True, kw_only=True)
class Instances(Event, common=True):
    """To ``count`` running instances, which the seed chooses among those that fit.

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
    """Spot takes instances back, ``notice`` seconds after it has said so."""

    notice: float = NOTICE_SECONDS


@dataclass(frozen=True, kw_only=True)
class Rebalance(Instances):
    """Spot instances get a rebalance recommendation."""


@dataclass(frozen=True, kw_only=True)
class HostDeath(Instances):
    """Instances are gone at once, without a notice."""


@dataclass(frozen=True, kw_only=True)
class AgentLost(Instances):
    """The ECS agent of instances is disconnected, for ``seconds`` or for good. Tasks go on."""

    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class NextInstances(Event, common=True):
    """To the next ``count`` instances to come to the state running that fit."""

    count: int = 1
    type: str | None = None
    zone: str | None = None
    market: str | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class AgentNever(NextInstances):
    """Instances that never register with ECS."""


@dataclass(frozen=True, kw_only=True)
class SlowBoot(NextInstances):
    """Instances that take ``seconds`` more to boot."""

    seconds: float


@dataclass(frozen=True, kw_only=True)
class Tasks(Event, common=True):
    """To ``count`` running tasks, which the seed chooses among those that fit.

    ``task`` is an id or an ARN, ``family`` a pattern for the family of its definition, such as ``"*-worker"``, and
    ``group`` one for the name of its instance's Auto Scaling group.
    """

    count: int = 1
    task: str | None = None
    family: str | None = None
    group: str | None = None


@dataclass(frozen=True, kw_only=True)
class TaskDeath(Tasks):
    """The process of tasks is killed, and they end with an exit code."""

    exit_code: int = 137


@dataclass(frozen=True, kw_only=True)
class OutOfMemory(Tasks):
    """Tasks are killed for the memory that they use."""


@dataclass(frozen=True, kw_only=True)
class NextTasks(Event, common=True):
    """To the next ``count`` tasks to start whose family fits."""

    count: int = 1
    family: str | None = None


@dataclass(frozen=True, kw_only=True)
class PullFailure(NextTasks):
    """The image cannot be pulled."""


@dataclass(frozen=True, kw_only=True)
class ExecFormat(NextTasks):
    """The image is for another processor. runc ends with 255, older ones with 1."""

    exit_code: int = 255


@dataclass(frozen=True, kw_only=True)
class TaskStopsAtOnce(NextTasks):
    """The container ends as soon as it has started, with a last line in its log if there is one."""

    exit_code: int = 1
    log: str = ""


@dataclass(frozen=True, kw_only=True)
class Calls(Event, common=True):
    """To calls of an action, a pattern such as ``"ecs:RunTask"``, ``"ecs:*"`` or ``"*"``.

    It is over after ``count`` calls or ``seconds`` (neither: one call), and takes each call with a probability.
    """

    action: str = "*"
    count: int | None = None
    seconds: float | None = None
    probability: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Throttle(Calls):
    """They are throttled, in the words of their service."""


@dataclass(frozen=True, kw_only=True)
class Error(Calls):
    """They fail."""

    code: str = "InternalFailure"
    message: str = "The request processing has failed because of an unknown error, exception or failure."
    status: int = 500

    def __post_init__(self) -> None:
        """Refuse what is no status of HTTP."""
        super().__post_init__()
        HTTPStatus(self.status)


@dataclass(frozen=True, kw_only=True)
class Timeout(Calls):
    """They are not performed, and not answered: after ``hold`` seconds the connection is closed."""

    hold: float = 5.0


@dataclass(frozen=True, kw_only=True)
class LostResponse(Calls):
    """They are performed, and then the connection is closed without an answer."""


@dataclass(frozen=True, kw_only=True)
class Invisible(Event):
    """What is made from now on cannot be seen for ``delay`` seconds: AWS is eventually consistent.

    ``what`` is one of `HIDDEN`, or ``*`` for all. It goes on for ``seconds`` or for good.
    """

    delay: float
    what: str = "*"
    seconds: float | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be hidden."""
        super().__post_init__()
        if self.what not in (*HIDDEN, "*"):
            raise ValueError(f"what can be invisible is one of {', '.join(HIDDEN)} or *, not {self.what}")


@dataclass(frozen=True, kw_only=True)
class FreshProfile(Event):
    """An instance profile cannot be used until it is ``age`` seconds old, for ``seconds`` or for good."""

    age: float
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Clear(Event):
    """Everything that still goes on or is still to come to the next instance, task or call is over."""
