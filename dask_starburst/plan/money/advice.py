"""Advice on instance types: cost per core and GiB, Spot interruptions and benchmark results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dask_starburst.catalog import InstanceType, Price
from dask_starburst.catalog.markets import Market
from dask_starburst.plan.requests.sizing import accelerated, memory_limit, task_memory

GIB = 2**30
Sort = Literal["price", "cores", "interruption", "measured"]

#: Share of Spot instances of a family, or of one of its sizes, that AWS interrupts in a month, in percent: AWS Spot
#: Instance Advisor, us-east-1, June 2025 (aws-facts §4.3). It has no data for other families, or for some sizes only.
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
#: Region and date of these numbers.
INTERRUPTIONS_OF = "us-east-1, June 2025"


@dataclass(frozen=True, slots=True)
class Need:
    """The requirements of a worker: vCPUs, usable bytes of memory, architecture (None: any), and GPUs or not."""

    vcpus: int
    memory: int
    arch: str | None = None
    gpus: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """A benchmark result on a type: seconds, and the date of the run."""

    seconds: float
    date: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A type that fits, with its prices and measurements.

    ``on_demand`` and ``spot`` are its prices, None if unknown; ``band`` is the range of its monthly
    interruption rate in percent, None if not published; ``measured`` is its benchmark result.
    """

    type: InstanceType
    on_demand: Price | None
    spot: Price | None
    market: Market
    band: tuple[int, int] | None = None
    measured: Measured | None = None

    @property
    def price(self) -> Price | None:
        """The price in the candidate's market."""
        return self.spot if self.market is Market.SPOT else self.on_demand

    @property
    def usd(self) -> float:
        """USD an hour in the candidate's market; infinite if unknown."""
        return self.price.usd_per_hour if self.price is not None else float("inf")

    @property
    def usd_per_core(self) -> float:
        """USD per physical core and hour."""
        return self.usd / self.type.cores

    @property
    def usd_per_gib(self) -> float:
        """USD per GiB of nominal memory and hour."""
        return self.usd * 1024 / self.type.memory_mib

    @property
    def usd_per_run(self) -> float:
        """USD for one run of the benchmark; infinite if it was not measured."""
        return self.usd * self.measured.seconds / 3600 if self.measured is not None else float("inf")

    @property
    def spot_unpublished(self) -> bool:
        """Whether its Spot price is unknown and only bounded by the on-demand price."""
        spot, on_demand = self.spot, self.on_demand
        return (
            spot is not None and on_demand is not None and spot.assumed and spot.usd_per_hour >= on_demand.usd_per_hour
        )

    @property
    def hyperthreads(self) -> bool:
        """Whether a vCPU is a hyperthread, half a core."""
        return self.type.cores < self.type.vcpus


def fitting(need: Need, types: Iterable[InstanceType]) -> list[InstanceType]:
    """Return the types that fit a worker and have at most twice the vCPUs of the smallest that fits.

    Parameters
    ----------
    need : Need
        Requirements of the worker.
    types : iterable of InstanceType
        All known instance types.
    """
    large_enough = [
        kind
        for kind in types
        if kind.vcpus >= need.vcpus
        and memory_limit(task_memory(kind)) >= need.memory
        and need.arch in (None, kind.arch)
        and bool(kind.gpus) == need.gpus
        and (need.gpus or not accelerated(kind))
    ]
    smallest = min((kind.vcpus for kind in large_enough), default=0)
    return [kind for kind in large_enough if kind.vcpus <= 2 * smallest]


def rank(candidates: Iterable[Candidate], sort: Sort = "price") -> list[Candidate]:
    """Return the candidates, the best first.

    Burstable types come last, because a busy worker uses up their credits; before them those without a price.

    Parameters
    ----------
    candidates : iterable of Candidate
        The types that fit.
    sort : {"price", "cores", "interruption", "measured"}
        By USD an hour; by USD per physical core and hour; by Spot interruption rate; by USD for a run of the
        benchmark. Types for which the value is unknown come after the others.
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
    """Return the range of the monthly interruption rate of a type in percent; None if not published."""
    return INTERRUPTIONS.get(kind.name) or INTERRUPTIONS.get(kind.family)


def why(best: Candidate, sort: Sort) -> str:
    """Return why the first candidate is first."""
    name, usd = best.type.name, f"${best.usd:.4f} an hour"
    reasons = {
        "price": f"{name} is the cheapest type that fits the worker: {usd}",
        "cores": f"{name} has the cheapest physical cores: ${best.usd_per_core:.4f} per core and hour",
        "interruption": f"{name} has the lowest published Spot interruption rate: {band_text(best.band)} a month",
        "measured": f"{name} runs the benchmark at the lowest cost: ${best.usd_per_run:.4f}",
    }
    if best.price is None:
        return f"{name} fits the worker; its price is unknown"
    return reasons[sort]


def warnings(shown: Iterable[Candidate]) -> list[str]:
    """Return notes on the listed types."""
    kinds = list(shown)
    texts = []
    if any(one.spot is not None and one.spot.assumed and not one.spot_unpublished for one in kinds):
        texts.append("~ is an assumption: the on-demand price less the midpoint of the published savings of the family")
    if any(one.spot_unpublished for one in kinds):
        texts.append("≤ marks an unpublished Spot price: the on-demand price is used, and the real one is likely lower")
    threads = sorted({one.type.family for one in kinds if one.hyperthreads})
    if threads:
        texts.append(
            f"A vCPU of {', '.join(threads)} is a hyperthread, half a core; on Graviton and on AMD from 7a on it is a"
            " whole core. Cores are DefaultCores of EC2's DescribeInstanceTypes"
        )
    burstable = sorted({one.type.family for one in kinds if one.type.burstable})
    if burstable:
        texts.append(
            f"* Types of {', '.join(burstable)} are burstable: a busy worker uses up their CPU credits, then is slowed"
            " down or billed extra. Do not use them for Dask"
        )
    if any(one.band is not None for one in kinds):
        texts.append(
            "Interrupted is the share of Spot instances that AWS interrupts in a month: AWS Spot Instance Advisor,"
            f" {INTERRUPTIONS_OF}"
        )
    if not any(one.measured is not None for one in kinds):
        texts.append("Prices do not include speed: pass benchmark results with --results")
    return texts


def band_text(found: tuple[int, int] | None) -> str:
    """Format a range of interruption rates."""
    if found is None:
        return "unknown"
    low, high = found
    if high == 100:
        return f"over {low} %"
    return f"under {high} %" if not low else f"{low} to {high} %"
