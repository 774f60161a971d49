"""The cost of a launch, computed before anything is launched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from dask_starburst.catalog import EBS_GP3_GB_MONTH, PUBLIC_IPV4_HOUR, FargateRates, InstanceType, Price, sources
from dask_starburst.catalog.markets import Market
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.money.budget import Caps

#: Hours by which AWS's own calculator divides a monthly price.
HOURS_A_MONTH = 730.0


@dataclass(frozen=True, slots=True)
class Line:
    """One item of a quote: what, count, kind, and USD an hour for all of them."""

    what: str
    count: int
    kind: str
    usd: float
    price: Price | None = None


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """The workers of one group that a quote is for.

    `markets`: the preferred one first. `adaptive`: whether `workers` is the maximum of an adaptive group.
    """

    name: str
    types: tuple[str, ...]
    markets: tuple[Market, ...]
    workers: int
    adaptive: bool = False
    spares: int = 0


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """The requested cluster. `volume_gb`: the size of each instance's volume."""

    head: str
    groups: tuple[GroupSpec, ...]
    volume_gb: int = 30

    @property
    def adaptive(self) -> bool:
        """Whether a group is adaptive."""
        return any(group.adaptive for group in self.groups)

    @property
    def all_adaptive(self) -> bool:
        """Whether without load only the scheduler costs something."""
        return all(group.adaptive and not group.spares for group in self.groups)


@dataclass(frozen=True, slots=True, repr=False)
class Quote:
    """The cost of a launch, in USD an hour without tax and discounts.

    Attributes
    ----------
    where : str
        The region or zone.
    spec : LaunchSpec
        The requested cluster.
    lines : tuple of Line
        The items of the quote.
    at_most : float
        Cost if AWS launches the most expensive allowed type for each worker, on demand if that is allowed.
    least : float
        Cost without workers: the scheduler alone.
    without_load : float
        Cost without load: the scheduler, spare instances, and the workers of groups that do not adapt.
    caps : Caps
        Cost caps.
    facts : tuple of str
        Additional facts, such as quotas.
    refusal : str
        Why the launch would be refused; empty if it would not.
    idle : tuple of (str, float)
        What continues to cost money after the cluster is closed, and USD a month.
    simulated : bool
        Whether it runs on the embedded AWS, which bills nothing.
    fargate : Price, optional
        Price of the same vCPUs and memory on Fargate; None if unknown.
    """

    where: str
    spec: LaunchSpec
    lines: tuple[Line, ...]
    at_most: float
    least: float
    without_load: float
    caps: Caps = field(default_factory=Caps)
    facts: tuple[str, ...] = ()
    refusal: str = ""
    idle: tuple[tuple[str, float], ...] = ()
    simulated: bool = False
    fargate: Price | None = None

    @property
    def usd_per_hour(self) -> float:
        """The sum of all lines."""
        return sum(line.usd for line in self.lines)

    def __repr__(self) -> str:
        return as_text(self)

    @property
    def sources(self) -> str:
        """Sources and dates of the prices."""
        return sources([line.price for line in self.lines if line.price is not None])


def compute_quote(
    where: str,
    spec: LaunchSpec,
    prices: Mapping[tuple[str, Market], Price],
    *,
    caps: Caps | None = None,
    facts: Sequence[str] = (),
    refusal: str = "",
    idle: Sequence[tuple[str, float]] = (),
    simulated: bool = False,
    fargate: Price | None = None,
) -> Quote:
    """Compute the cost of a launch.

    Parameters
    ----------
    where : str
        The region or zone.
    spec : LaunchSpec
        The requested cluster.
    prices : mapping of (str, Market) to Price
        Price of an hour of each type in each market.
    caps, facts, refusal, idle, simulated, fargate
        As in `Quote`.
    """
    head = prices[spec.head, Market.ON_DEMAND]
    volume = EBS_GP3_GB_MONTH * spec.volume_gb / HOURS_A_MONTH
    extra = PUBLIC_IPV4_HOUR + volume
    least = without_load = highest = head.usd_per_hour + extra
    lines, instances = [Line("scheduler", 1, f"{spec.head}, on demand", head.usd_per_hour, head)], 1
    for group in spec.groups:
        price, count = prices[group.types[0], group.markets[0]], group.workers + group.spares
        kind, own = f"{group.types[0]}, {group.markets[0].words}", "" if group.name == DEFAULT else f" of {group.name}"
        lines += [
            Line(f"workers{own}", group.workers, _kind(group), group.workers * price.usd_per_hour, price),
            Line(f"spare instances{own}", group.spares, kind, group.spares * price.usd_per_hour, price),
        ]
        instances += count
        without_load += (group.spares if group.adaptive else count) * (price.usd_per_hour + extra)
        most = max(prices[name, market].usd_per_hour for name in group.types for market in group.markets)
        highest += count * (most + extra)
    lines += [
        Line("public IPv4 addresses", instances, "one each", instances * PUBLIC_IPV4_HOUR),
        Line("volumes", instances, f"gp3, {spec.volume_gb} GB each", instances * volume),
    ]
    return Quote(
        where=where,
        spec=spec,
        lines=tuple(line for line in lines if line.count),
        at_most=highest,
        least=least,
        without_load=without_load,
        caps=caps or Caps(),
        facts=tuple(facts),
        refusal=refusal,
        idle=tuple(idle),
        simulated=simulated,
        fargate=fargate,
    )


def on_fargate(instances: Sequence[tuple[int, InstanceType]], rates: FargateRates) -> Price:
    """Return the Fargate price an hour for the vCPUs and memory of a number of instances of each type."""
    usd = sum(
        count * (each.vcpus * rates.vcpu.usd_per_hour + each.memory_mib / 1024 * rates.gb.usd_per_hour)
        for count, each in instances
    )
    return replace(rates.vcpu, usd_per_hour=usd)


def _kind(group: GroupSpec) -> str:
    others = group.types[1:]
    more = f" or {others[0]}" if len(others) == 1 else f" or one of {len(others)} like it" if others else ""
    lower = f", else {group.markets[1].words}" if len(group.markets) > 1 else ""
    return f"{group.types[0]}{more}, {group.markets[0].words}{lower}"


def sentences(quote: Quote) -> list[str]:
    """Return the notes below the table."""
    texts = [f"Prices: {quote.sources}."]
    if quote.spec.adaptive:
        stays = "the scheduler" if quote.spec.all_adaptive else "the scheduler and the workers that stay"
        texts.append(
            f"The cluster is adaptive: without load it costs ${quote.without_load:.4f} an hour, for {stays}, until"
            " idle_timeout closes it."
        )
    if quote.fargate is not None:
        texts.append(
            f"For comparison: on Fargate the same vCPUs and memory cost ${quote.fargate.usd_per_hour:.4f} an hour"
            f" ({sources([quote.fargate])}); clusters run on EC2 only."
        )
    texts += [f"{fact[0].upper()}{fact[1:]}." for fact in quote.facts]
    texts += _caps(quote)
    texts += [f"REFUSED: {quote.refusal}"] if quote.refusal else []
    texts.append(_idle(quote))
    texts.append("Nothing was launched." + (" The embedded AWS bills nothing." if quote.simulated else ""))
    return texts


def as_text(quote: Quote) -> str:
    """Return a quote as plain text."""
    lines = [f"Quote for a launch in {quote.where}"]
    lines += [f"  {line.what}: {line.count} x {line.kind}, ${line.usd:.4f} an hour" for line in quote.lines]
    lines += [f"  total: ${quote.usd_per_hour:.4f} an hour, {hedge(quote)}"]
    return "\n".join([*lines, *sentences(quote)])


def hedge(quote: Quote) -> str:
    """Return the maximum cost if AWS does not launch the first type."""
    return f"at most ${quote.at_most:.4f} if AWS launches the most expensive allowed types"


def _caps(quote: Quote) -> list[str]:
    caps = {
        "max_hourly_cost": (quote.caps.hourly, "an hour"),
        "max_total_cost": (quote.caps.total, "in total"),
        "cost_alert_threshold": (quote.caps.alert, "an hour"),
    }
    given = [f"{name}: ${usd:g} {per}" for name, (usd, per) in caps.items() if usd is not None]
    none = "No caps are set; set money.max_hourly_cost or money.max_total_cost."
    return [f"Caps: {', '.join(given)}." if given else none]


def _idle(quote: Quote) -> str:
    if not quote.idle:
        return "After the cluster is closed, only the image in ECR and the logs cost money; see `starburst status`."
    parts = ", ".join(f"{what} ${usd:.2f}" for what, usd in quote.idle)
    return f"After the cluster is closed, these continue to cost money, a month: {parts}."
