"""Which instance type to choose: what each costs for what it has, and what is known of it besides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dask_starburst.catalog import InstanceType, Price
from dask_starburst.plan.requests.sizing import accelerated, memory_limit, task_memory

GIB = 2**30
Sort = Literal["price", "cores", "interruption", "measured"]

#: How many Spot instances of a family, or of one of its sizes, AWS takes back in a month, in percent: AWS Spot Instance
#: Advisor, us-east-1, June 2025 (aws-facts §4.3). What is not here was not published to us, or for some sizes only.
INTERRUPTIONS: Mapping[str, tuple[int, int]] = {
    "c7g": (0, 5),
    "c6g": (0, 10),
    "c8g.xlarge": (10, 15),
    "c8g.2xlarge": (20, 100),
    "c8g.4xlarge": (20, 100),
    "m7g": (5, 15),
    "r8g": (20, 100),
    "c7a": (20, 100),
}
#: Where and when that was so.
INTERRUPTIONS_OF = "us-east-1, June 2025"


@dataclass(frozen=True, slots=True)
class Need:
    """What a worker has to have: whole vCPUs, bytes that it may use, an architecture (None: any), and GPUs or none."""

    vcpus: int
    memory: int
    arch: str | None = None
    gpus: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """What a benchmark took on a type: seconds, and when it was run."""

    seconds: float
    date: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A type that fits, and what is known of it.

    ``on_demand`` and ``spot`` are its prices, None where nobody knows one; ``band`` is the range of its monthly
    interruptions in percent, None where it was not published; ``measured`` what a benchmark took.
    """

    type: InstanceType
    on_demand: Price | None
    spot: Price | None
    market: Literal["spot", "on-demand"]
    band: tuple[int, int] | None = None
    measured: Measured | None = None

    @property
    def price(self) -> Price | None:
        """The price in the market that counts."""
        return self.spot if self.market == "spot" else self.on_demand

    @property
    def usd(self) -> float:
        """USD an hour in the market that counts; infinite where nobody knows it."""
        return self.price.usd_per_hour if self.price is not None else float("inf")

    @property
    def usd_per_core(self) -> float:
        """USD for an hour of a physical core."""
        return self.usd / self.type.cores

    @property
    def usd_per_gib(self) -> float:
        """USD for an hour of a GiB of nominal memory."""
        return self.usd * 1024 / self.type.memory_mib

    @property
    def usd_per_run(self) -> float:
        """USD for the work that was measured; infinite where none was."""
        return self.usd * self.measured.seconds / 3600 if self.measured is not None else float("inf")

    @property
    def spot_unpublished(self) -> bool:
        """Whether nothing is known of its Spot price but that it is at most the one on demand."""
        spot, on_demand = self.spot, self.on_demand
        return (
            spot is not None and on_demand is not None and spot.assumed and spot.usd_per_hour >= on_demand.usd_per_hour
        )

    @property
    def hyperthreads(self) -> bool:
        """Whether a vCPU is half a core only."""
        return self.type.cores < self.type.vcpus


def fitting(need: Need, types: Iterable[InstanceType]) -> list[InstanceType]:
    """Return the types that hold a worker and are not more than twice as large as the smallest that does.

    Parameters
    ----------
    need : Need
        What the worker has to have.
    types : iterable of InstanceType
        What AWS sells.
    """
    able = [
        kind
        for kind in types
        if kind.vcpus >= need.vcpus
        and memory_limit(task_memory(kind)) >= need.memory
        and need.arch in (None, kind.arch)
        and bool(kind.gpus) == need.gpus
        and (need.gpus or not accelerated(kind))
    ]
    smallest = min((kind.vcpus for kind in able), default=0)
    return [kind for kind in able if kind.vcpus <= 2 * smallest]


def rank(candidates: Iterable[Candidate], sort: Sort = "price") -> list[Candidate]:
    """Return the candidates, the best first.

    Burstable types come last, for a busy worker uses up their credits; then those without a price.

    Parameters
    ----------
    candidates : iterable of Candidate
        Those that fit.
    sort : {"price", "cores", "interruption", "measured"}
        By USD an hour; by USD for an hour of a physical core; by how often Spot takes them; by USD for the work that
        was measured. Those of which that is not known come after the others.
    """
    orders: dict[Sort, Callable[[Candidate], float]] = {
        "price": lambda one: one.usd,
        "cores": lambda one: one.usd_per_core,
        "interruption": lambda one: one.band[1] if one.band is not None else float("inf"),
        "measured": lambda one: one.usd_per_run,
    }
    order = orders[sort]
    return sorted(candidates, key=lambda one: (one.type.burstable, order(one), one.usd, one.type.name))


def band(kind: InstanceType) -> tuple[int, int] | None:
    """Return the range of monthly interruptions of a type in percent, where it was published."""
    return INTERRUPTIONS.get(kind.name) or INTERRUPTIONS.get(kind.family)


def why(best: Candidate, sort: Sort) -> str:
    """Say why the first is first."""
    name, usd = best.type.name, f"${best.usd:.4f} an hour"
    reasons = {
        "price": f"{name} is the cheapest that holds the worker: {usd}",
        "cores": f"{name} has the cheapest physical cores: ${best.usd_per_core:.4f} an hour for one",
        "interruption": f"Spot takes {name} least often, as far as was published: {band_text(best.band)} a month",
        "measured": f"{name} does the measured work for the least money: ${best.usd_per_run:.4f}",
    }
    if best.price is None:
        return f"{name} holds the worker; nobody knows what it costs"
    return reasons[sort]


def warnings(shown: Iterable[Candidate]) -> list[str]:
    """Return what one has to know of the types that are shown."""
    kinds = list(shown)
    texts = []
    if any(one.spot is not None and one.spot.assumed and not one.spot_unpublished for one in kinds):
        texts.append("~ is an assumption: on demand less the middle of the published savings of the family")
    if any(one.spot_unpublished for one in kinds):
        texts.append("≤ is a Spot price of which nothing was published: it counts as on demand, and is likely less")
    threads = sorted({one.type.family for one in kinds if one.hyperthreads})
    if threads:
        texts.append(
            f"A vCPU of {', '.join(threads)} is a hyperthread, half a core; of Graviton and of AMD from 7a on it is a"
            " whole core. Cores are the DefaultCores of EC2's DescribeInstanceTypes"
        )
    burstable = sorted({one.type.family for one in kinds if one.type.burstable})
    if burstable:
        texts.append(
            f"* Types of {', '.join(burstable)} are burstable: a busy worker uses up their CPU credits, then is slowed"
            " down or billed for more. Do not choose them for Dask"
        )
    if any(one.band is not None for one in kinds):
        texts.append(
            f"Taken is how many of them Spot takes back in a month: {INTERRUPTIONS_OF}, by AWS's Spot Instance Advisor"
        )
    if not any(one.measured is not None for one in kinds):
        texts.append("Prices say nothing of speed: --results takes a file of what a benchmark has measured")
    return texts


def band_text(found: tuple[int, int] | None) -> str:
    """Write a range of interruptions."""
    if found is None:
        return "unknown"
    low, high = found
    if high == 100:
        return f"over {low} %"
    return f"under {high} %" if not low else f"{low} to {high} %"
