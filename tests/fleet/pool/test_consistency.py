"""AWS shows late what a start has created: the start waits, tells why, and ends in the same state as without delays."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from benchmarks.harness.stand_in import StandIn
from dask_starburst.aws.patience import TABLE, Lag
from dask_starburst.aws.session import AWS
from dask_starburst.events import EventLog, StartDelayed, TaskRefused
from dask_starburst.fleet.blueprint import blueprint
from dask_starburst.fleet.session import Session
from dask_starburst.local import LocalAWS, faults
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.state import WorkerState
from dask_starburst.settings import Settings

#: Every call and row: an error that means that something new is not visible yet.
LAGS = [(operation, row) for row in TABLE for operation in row.operations]
HIDDEN = ("roles", "service-linked-roles", "instance-profiles", "security-groups", "launch-templates", "groups")
HIDDEN = ("roles", "service-linked-roles", "instance-profiles", "security-groups", "launch-templates", "groups")
#: Pairs that are tried in each run; the slow test tries every call and row once and twice.
SAMPLED = 4


@pytest.fixture(scope="module")
def local() -> Iterator[LocalAWS]:
    with LocalAWS(timing="none", processes=False) as running:
        running.throttle(False)
        yield running


def error(operation: str, row: Lag, code: str = "", times: int = 1) -> faults.Error:
    text = row.phrases[0].replace("…", "it") if row.phrases else "It is not there yet."
    return faults.Error(
        action=operation, code=code or (row.codes or ("ClientException",))[0], message=text, status=400, count=times
    )


async def start(local: LocalAWS, events: EventLog) -> None:
    """Start a cluster of one worker, and end without closing it."""
    settings = Settings.load(
        arch="arm64",
        endpoint_url=local.endpoint_url,
        image="none",
        network={"caller": "127.0.0.1/32"},
        timeouts={"poll": 0.1},
    )
    aws = AWS(endpoint_url=local.endpoint_url, session=local.session())
    session = Session(aws, blueprint(settings, "{}"), events.emit)
    try:
        async with asyncio.timeout(60), StandIn(local) as dask:
            controller = await session.start(dask, {0: DEFAULT})
            await controller.until(
                lambda: all(w.state is WorkerState.READY for w in controller.roster.workers.values())
            )
            await controller.stop()
    finally:
        aws.close()


def started(local: LocalAWS, script: Iterable[faults.Event]) -> tuple[dict[str, Any], EventLog]:
    """Start on a fresh account while AWS behaves as in `script`; return the account's state and the events."""
    local.reset()
    local.throttle(False)
    local.play(list(script))
    events = EventLog(quiet=True)
    asyncio.run(start(local, events))
    local.play([faults.Clear()])
    return state(local), events


def state(local: LocalAWS) -> dict[str, Any]:
    """Return what a start has created, without ids and times. The name of the pool depends on the ids of the VPC."""
    iam, ec2, ecs = local.client("iam"), local.client("ec2"), local.client("ecs")
    logs, scaling, ssm = local.client("logs"), local.client("autoscaling"), local.client("ssm")
    tag = [{"Name": "tag-key", "Values": ["starburst:pool"]}]
    roles = [role["RoleName"] for role in iam.list_roles()["Roles"]]
    profiles = iam.list_instance_profiles()["InstanceProfiles"]
    clusters = ecs.describe_clusters(clusters=ecs.list_clusters()["clusterArns"] or ["none"])["clusters"]
    groups = scaling.describe_auto_scaling_groups()["AutoScalingGroups"]
    security_groups = ec2.describe_security_groups(Filters=tag)["SecurityGroups"]
    actions = scaling.describe_scheduled_actions()["ScheduledUpdateGroupActions"]
    found = {
        "roles": {
            name: iam.list_role_policies(RoleName=name)["PolicyNames"] for name in roles if name.startswith("starburst")
        },
        "linked": sorted(name for name in roles if name.startswith("AWSService")),
        "profiles": {p["InstanceProfileName"]: [r["RoleName"] for r in p["Roles"]] for p in profiles},
        "security groups": sorted((g["GroupName"], len(g["IpPermissions"])) for g in security_groups),
        "log groups": [(g["logGroupName"], g.get("retentionInDays")) for g in logs.describe_log_groups()["logGroups"]],
        "templates": sorted(
            t["LaunchTemplateName"] for t in ec2.describe_launch_templates(Filters=tag)["LaunchTemplates"]
        ),
        "groups": sorted((g["AutoScalingGroupName"], g["MaxSize"], g["DesiredCapacity"]) for g in groups),
        "leases": sorted(a["AutoScalingGroupName"] for a in actions),
        "clusters": [(c["clusterName"], sorted(c["capacityProviders"]), c["runningTasksCount"]) for c in clusters],
        "definitions": sorted(arn.rpartition("/")[2] for arn in ecs.list_task_definitions()["taskDefinitionArns"]),
        "parameters": sorted(
            p["Name"] for p in ssm.get_parameters_by_path(Path="/starburst/", Recursive=True)["Parameters"]
        ),
    }
    anonymous: dict[str, Any] = json.loads(re.sub(r"starburst-[0-9a-f]{8}-", "starburst-pool-", json.dumps(found)))
    return anonymous


@pytest.fixture(scope="module")
def expected(local: LocalAWS) -> dict[str, Any]:
    """Return the state after a start without delays."""
    found, events = started(local, [])
    assert [event for event in events if isinstance(event, StartDelayed)] == []
    assert len(found["groups"]) == len(found["leases"]) >= 2
    assert found["clusters"][0][2] == 2
    return found


def test_a_start_on_a_fresh_account_outlasts_every_delay_at_once(local: LocalAWS, expected: dict[str, Any]) -> None:
    script: list[faults.Event] = [error(operation, row) for operation, row in LAGS]
    script += [faults.Invisible(what=what, delay=1.0) for what in HIDDEN]
    denied = "User: ann is not authorized to perform: {} on resource: *"
    script += [
        faults.Error(action=action, code="AccessDenied", message=denied.format(action), status=403, count=1)
        for action in ("iam:GetRole", "iam:GetInstanceProfile")
    ]
    found, events = started(local, script)
    assert found == expected
    told = [event for event in events if isinstance(event, StartDelayed)]
    assert {event.what for event in told} >= {"the service-linked role of ECS", "the security group"}
    assert len({(event.operation, event.what) for event in told}) == len(told), "each reason is told once"
    assert all(event.passing for event in events if isinstance(event, TaskRefused))


@pytest.mark.parametrize("seed", range(SAMPLED))
def test_a_start_outlasts_any_two_delays(local: LocalAWS, expected: dict[str, Any], seed: int) -> None:
    pair = Counter(random.Random(seed).choices(range(len(LAGS)), k=2))
    script = [error(*LAGS[which], times=times) for which, times in pair.items()]
    assert started(local, script)[0] == expected, script


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("times", [1, 2])
def test_a_start_outlasts_each_delay_of_the_table(local: LocalAWS, expected: dict[str, Any], times: int) -> None:
    for operation, row in LAGS:
        for code in row.codes or ("",):
            assert started(local, [error(operation, row, code, times)])[0] == expected, (operation, row, code)
