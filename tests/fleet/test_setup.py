"""A set-up ends in the same state, whenever it is interrupted."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.fleet.pool.account import set_up
from dask_starburst.fleet.setup import look, make, parts_of
from dask_starburst.local import LocalAWS, faults
from dask_starburst.settings import Settings
from tests.support.furnished import ask

#: Operations that change nothing.
READS = ("Describe", "List", "Get")


class Killed(BaseException):
    """The process ends here."""


async def run(aws: AWS) -> dict[str, str]:
    """Set up, and return the errors by the name of the part."""
    parts, errors = await parts_of(aws, Settings()), dict[str, str]()

    def tell(part: Any, error: str) -> None:
        if error:
            errors[part.name] = error

    done = await make(parts, Patience(60.0, lambda event: None), tell)
    assert done is not bool(errors)
    return errors


async def states(aws: AWS) -> dict[str, str | None]:
    return {f"{seen.part.kind} {seen.part.name}": seen.state for seen in await look(await parts_of(aws, Settings()))}


def killed_at(account: LocalAWS, call: int) -> bool:
    """Set up in a process that ends at a number of changes; return whether it ended before the set-up did."""
    session = account.session()
    changes = itertools.count()

    def count(model: Any, **_: Any) -> None:
        if not model.name.startswith(READS) and next(changes) >= call:
            raise Killed

    session.events.register("before-call", count)
    aws = AWS(session=session)
    try:
        asyncio.run(run(aws))
    except Killed:
        return True
    finally:
        aws.close()
    return False


def made(account: LocalAWS) -> Mapping[str, Any]:
    """Everything that a set-up creates, as AWS's APIs show it."""
    iam, ec2 = account.client("iam"), account.client("ec2")
    names = sorted(role["RoleName"] for role in iam.list_roles()["Roles"])
    policies = {
        (name, policy): iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        for name in names
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]
    }
    profiles = iam.list_instance_profiles()["InstanceProfiles"]
    [group] = ec2.describe_security_groups(GroupNames=["starburst"])["SecurityGroups"]
    [rule] = group["IpPermissions"]
    [log_group] = account.client("logs").describe_log_groups()["logGroups"]
    pairs = [pair["GroupId"] == group["GroupId"] for pair in rule["UserIdGroupPairs"]]
    return {
        "roles": names,
        "policies": policies,
        "profiles": [(each["InstanceProfileName"], [r["RoleName"] for r in each["Roles"]]) for each in profiles],
        "rule": (rule["FromPort"], rule["ToPort"], pairs),
        "logs": (log_group["logGroupName"], log_group["retentionInDays"]),
    }


def test_a_set_up_creates_all_that_a_launch_would_and_a_second_one_nothing(new_aws: LocalAWS) -> None:
    assert set(ask(new_aws, states).values()) == {"missing"}
    assert ask(new_aws, run) == {}
    assert set(ask(new_aws, states).values()) == {"there"}
    before = new_aws.status().calls
    assert ask(new_aws, run) == {}
    ask(new_aws, lambda aws: set_up(aws, Settings.load(), ("m7g.medium",), Patience(60.0, lambda event: None)))
    after = new_aws.status().calls
    changes = {call for call in after if after[call] > before.get(call, 0) and not call.split(":")[1].startswith(READS)}
    assert changes <= {"ec2:AuthorizeSecurityGroupIngress"}, "AWS answers that the rule is there"


@pytest.mark.parametrize("changes", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_a_set_up_killed_again_and_again_ends_in_the_same_state(new_aws: LocalAWS, changes: int) -> None:
    ask(new_aws, run)
    expected = made(new_aws)
    new_aws.reset()
    kills = 0
    while killed_at(new_aws, changes):
        kills += 1
        assert kills < 50
    assert kills >= 12 // changes
    assert made(new_aws) == expected


def test_what_aws_denies_is_told_the_rest_is_made_and_half_made_parts_are_completed(new_aws: LocalAWS) -> None:
    denied = "User: ann is not authorized to perform: iam:PutRolePolicy"
    new_aws.play([faults.Error(action="iam:PutRolePolicy", code="AccessDenied", message=denied, status=403, count=100)])
    errors = ask(new_aws, run)
    assert errors.keys() >= {"starburst-execution", "starburst-scheduler", "starburst-instance"}
    assert denied in errors["starburst-execution"]
    seen = ask(new_aws, states)
    assert seen["role starburst-execution"] == "incomplete"
    assert seen["role starburst-worker"] == seen["log group /starburst"] == "there"
    new_aws.play([faults.Clear()])
    assert ask(new_aws, run) == {}
    assert set(ask(new_aws, states).values()) == {"there"}
