"""Examine everything that a launch needs, and say what is wrong and how to mend it. Nothing is changed."""

from __future__ import annotations

import asyncio
import platform
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from dask_starburst import extras
from dask_starburst.aws import ecr, iam, identity, network, volume_keys
from dask_starburst.aws.identity import Caller
from dask_starburst.aws.session import AWS
from dask_starburst.errors import PermissionDenied, QuotaExceeded, StarburstError
from dask_starburst.events import Event
from dask_starburst.fleet.blueprint import Blueprint, blueprint
from dask_starburst.fleet.pool import discovery, preflight
from dask_starburst.fleet.pool.account import choose_zone
from dask_starburst.plan.images.lifetime import stored_bytes
from dask_starburst.plan.requests import policies
from dask_starburst.plan.requests.garbage import usd_per_hour
from dask_starburst.plan.requests.placement import Zone
from dask_starburst.plan.requests.quotas import number
from dask_starburst.plan.requests.routes import Access, lacking_endpoints, way_out, why_not
from dask_starburst.settings import Settings

State = Literal["ok", "warning", "failed"]

#: AWS refuses signatures that are more than five minutes off ("Signature Version 4 request elements", IAM User Guide).
CLOCK_LIMIT = 300.0
#: Seconds from which a clock is called wrong; the ``Date`` header has whole seconds, and an answer takes a while.
CLOCK_WRONG = 30.0
_PACKAGES = ("dask-starburst", "dask", "distributed", "boto3")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found.

    Attributes
    ----------
    name : str
        What was checked.
    state : {"ok", "warning", "failed"}
        A launch works; it may work, or could not be checked; it does not work.
    text : str
        The facts.
    fix : str
        What to do, in one line; empty if there is nothing to do.
    """

    name: str
    state: State
    text: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class _Patient:
    """What the checks examine."""

    aws: AWS
    settings: Settings
    plan: Blueprint
    caller: Caller


_Check = Callable[[_Patient], Awaitable[list[Finding]]]


async def examine(aws: AWS, settings: Settings) -> tuple[Finding, ...]:
    """Return the findings of all checks; a check that AWS denies is a warning.

    Parameters
    ----------
    aws : AWS
        The account and region.
    settings : Settings
        Those of the clusters to launch, with the region.
    """
    try:
        caller = await identity.caller(aws)
    except StarburstError as error:
        return (Finding("credentials", "failed", str(error)), _clock(aws), *versions(settings))
    patient = _Patient(aws, settings, blueprint(settings, ""), caller)
    first = (Finding("credentials", "ok", f"{caller.arn}, account {caller.account}"), _clock(aws))
    parts = await asyncio.gather(*(_guarded(name, check, patient) for name, check in _CHECKS))
    return (*first, *(each for part in parts for each in part), *versions(settings))


async def _guarded(name: str, check: _Check, patient: _Patient) -> list[Finding]:
    try:
        return await check(patient)
    except PermissionDenied as error:
        return [Finding(name, "warning", f"not checked: {error}")]
    except StarburstError as error:
        return [Finding(name, "failed", str(error))]


def _clock(aws: AWS) -> Finding:
    off = time.time() - aws.now()
    text = f"{abs(off):.0f} s {'ahead of' if off > 0 else 'behind'} AWS's" if abs(off) >= 1 else "as AWS's"
    if abs(off) < CLOCK_WRONG:
        return Finding("clock", "ok", text)
    state: State = "failed" if abs(off) > CLOCK_LIMIT else "warning"
    return Finding(
        "clock", state, text, "set the clock of this computer by NTP; AWS refuses one that is 5 minutes off."
    )


async def _region(patient: _Patient) -> list[Finding]:
    aws = patient.aws
    status = await network.opt_in_status(aws)
    if status == "not-opted-in":
        fix = f"`aws account enable-region --region-name {aws.region}`, or choose another region with region=."
        return [Finding("region", "failed", f"{aws.region} is not enabled in this account.", fix)]
    return [Finding("region", "ok", aws.region)]


async def _roles(patient: _Patient) -> list[Finding]:
    """Check the shared resources of IAM: the first launch creates them, which needs an administrator's permissions."""
    number = patient.caller.account
    profile = policies.instance_role(number).name
    ours = (policies.execution_role(number), policies.scheduler_role(number), policies.worker_role())
    names = [profile, *(role.name for role in ours), *(name for _, name in policies.SERVICE_LINKED_ROLES)]
    state, *there = await asyncio.gather(
        iam.profile_state(patient.aws, profile), *(iam.role_exists(patient.aws, name) for name in names)
    )
    lacking = [name for name, found in zip(names, there, strict=True) if not found]
    if state != "there":
        lacking.append(f"the instance profile {profile}")
    if lacking:
        fix = "an administrator runs `starburst setup`; or the first launch creates them, with such permissions."
        return [Finding("roles", "warning", f"not there yet: {', '.join(lacking)}", fix)]
    return [Finding("roles", "ok", f"all {len(names)} roles and the instance profile are there")]


async def _quotas(patient: _Patient) -> list[Finding]:
    counts = patient.plan.first_counts()
    quotas = await preflight.fetch_quotas(patient.aws, patient.plan.requests())
    warnings: list[Event] = []
    try:
        preflight.check(quotas, patient.plan.requests(counts), "", warnings.append)
    except QuotaExceeded as error:
        return [Finding("quotas", "failed", str(error))]
    if quotas.unknown:
        return [Finding("quotas", "warning", f"not checked: {quotas.unknown}")]
    if warnings:
        return [Finding("quotas", "warning", " ".join(each.message for each in warnings))]
    standings = preflight.standings(quotas, patient.plan.requests())
    texts = (f"{one.quota.label}: {one.free:,} of {number(one.limit)} vCPUs free" for one in standings)
    return [Finding("quotas", "ok", "; ".join(texts))]


async def _network(patient: _Patient) -> list[Finding]:
    aws = patient.aws
    zone = await choose_zone(aws, patient.settings, patient.plan.types)
    free, route = await asyncio.gather(network.free_addresses(aws, zone.subnet), _route(patient, zone))
    text = f"{zone.subnet} of {zone.vpc} in {zone.name}, {free:,} addresses free"
    subnet = Finding("subnet", "ok", text)
    if not free:
        fix = 'give another one with network={"subnet": "subnet-…"}.'
        subnet = Finding("subnet", "failed", text, fix)
    return [subnet, route]


async def _route(patient: _Patient, zone: Zone) -> Finding:
    aws, access = patient.aws, _access(patient)
    tables, services = await asyncio.gather(
        network.route_tables(aws, zone.vpc), network.endpoint_services(aws, zone.vpc)
    )
    way, lacking = way_out(tables, zone.subnet), lacking_endpoints(services)
    why = why_not(way, lacking, access)
    if why:
        fix = (
            'give a public subnet; or network={"access": "private"}, if this computer is in the VPC.'
            if access == "public"
            else "give a subnet with a route to NAT, or make the endpoints."
        )
        return Finding("way out", "failed", f"{zone.subnet} has {why}", fix)
    if access == "public":
        return Finding("way out", "ok", f"through {way.target}; instances have public addresses")
    text = f"through {way.kind if way.kind == 'NAT' else 'gateway'} {way.target}" if way.target else "by endpoints"
    if way.target and "s3" in lacking:
        text += "; image layers and data of S3 pay for its traffic"
        return Finding("way out", "warning", text, "make a gateway endpoint for S3, which is free.")
    return Finding("way out", "ok", f"{text}; instances have private addresses only")


def _access(patient: _Patient) -> Access:
    return "public" if patient.settings.network.access == "public" else "private"


async def _address(patient: _Patient) -> list[Finding]:
    aws, given = patient.aws, patient.settings.network
    if given.caller:
        return [Finding("your address", "ok", f"{given.caller} may reach the scheduler (network.caller)")]
    if not await aws.is_real("ec2"):
        return [Finding("your address", "ok", "not needed: a simulated AWS on this computer")]
    if _access(patient) == "private":
        cidr = await network.caller_in_vpc(aws, await network.vpc_of(aws, given.requested, given.vpc))
    else:
        cidr = await identity.caller_cidr(given.checkip_url)
    return [Finding("your address", "ok", f"{cidr} may reach the scheduler")]


async def _volume_key(patient: _Patient) -> list[Finding]:
    await volume_keys.check_default_key(patient.aws, patient.caller)
    return [Finding("volume key", "ok", "Auto Scaling may use the default key of EBS, as far as AWS shows it")]


async def _image(patient: _Patient) -> list[Finding]:
    settings, aws = patient.settings, patient.aws
    if settings.image:
        return [Finding("image", "ok", f"{settings.image} (given)")]
    repository = settings.build.repository
    images, _ = await asyncio.gather(ecr.images(aws, repository), ecr.registry_credentials(aws))
    heads = [each for each in images if each.tags]
    if not heads:
        return [Finding("image", "ok", f"none in {repository} yet; the first launch builds it")]
    size = stored_bytes(images) / 1e9
    return [Finding("image", "ok", f"{len(heads)} in {repository}, {size:.2f} GB")]


async def _leftovers(patient: _Patient) -> list[Finding]:
    pools = await discovery.find(patient.aws)
    running = [pool for pool in pools if pool.running]
    count = sum(pool.running for pool in running)
    usd = usd_per_hour(group for pool in running for group in pool.groups)
    cost = "an unknown price" if usd is None else f"${usd:.4f}"
    text = f"{count} instances run in {len(running)} pools for {cost} an hour" if running else "nothing runs"
    expired = [pool.name for pool in pools if pool.state == "expired"]
    if not expired:
        return [Finding("leftovers", "ok", text)]
    return [Finding("leftovers", "warning", f"{text}; left behind: {', '.join(expired)}", "`starburst gc --delete`")]


_CHECKS: tuple[tuple[str, _Check], ...] = (
    ("region", _region),
    ("roles", _roles),
    ("quotas", _quotas),
    ("network", _network),
    ("your address", _address),
    ("volume key", _volume_key),
    ("image", _image),
    ("leftovers", _leftovers),
)


def versions(settings: Settings) -> list[Finding]:
    """Return the versions of what runs here, and whether an image can be built."""
    found = [f"{name} {_version(name)}" for name in _PACKAGES]
    findings = [Finding("versions", "ok", ", ".join([f"Python {platform.python_version()}", *found]))]
    if settings.image is None and (lacking := extras.lacking("image")):
        text = f"images cannot be built without {', '.join(lacking)}"
        findings.append(Finding("image builder", "failed", text, f"{extras.install('image')}, or give image=."))
    return findings


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"


def healthy(findings: Iterable[Finding]) -> bool:
    """Return whether a launch can work."""
    return all(each.state != "failed" for each in findings)
