"""RunTask calls with an instance constraint: tasks are placed only there, and each failure has its reason."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from tests.local.conftest import Stack, code_of

DISTINCT = {"type": "distinctInstance"}


def on(*instances: str) -> list[dict[str, str]]:
    names = ", ".join(f"'{instance}'" for instance in instances)
    return [DISTINCT, {"type": "memberOf", "expression": f"ec2InstanceId in [{names}]"}]


@pytest.fixture
def pair(stack: Stack) -> Stack:
    """A stack with two connected instances."""
    stack.group(size=2)
    stack.cluster()
    stack.connected(2)
    return stack


def test_a_batch_is_placed_on_exactly_the_instances_that_it_names(pair: Stack) -> None:
    [one, other] = pair.instances
    definition = pair.definition()
    reply = pair.run(definition, group="w", placementConstraints=on(other["ec2InstanceId"]))
    assert [t["containerInstanceArn"] for t in reply["tasks"]] == [other["containerInstanceArn"]]
    reply = pair.run(definition, count=2, group="w", placementConstraints=on(one["ec2InstanceId"], "i-gone"))
    assert [t["containerInstanceArn"] for t in reply["tasks"]] == [one["containerInstanceArn"]]


def test_a_batch_with_an_occupied_instance_is_placed_in_part(pair: Stack) -> None:
    [one, other] = pair.instances
    definition = pair.definition()
    both = on(one["ec2InstanceId"], other["ec2InstanceId"])
    pair.run(definition, group="w", placementConstraints=on(one["ec2InstanceId"]))
    reply = pair.run(definition, count=2, group="w", placementConstraints=both)
    assert [t["containerInstanceArn"] for t in reply["tasks"]] == [other["containerInstanceArn"]]
    refused = {f["arn"]: f["reason"] for f in reply["failures"]}
    assert refused[one["containerInstanceArn"]] == "DISTINCT_INSTANCE"


def test_a_repeated_token_of_a_batch_returns_the_same_tasks_and_refusals(pair: Stack) -> None:
    instance = pair.instances[0]["ec2InstanceId"]
    definition = pair.definition()
    request = {"count": 2, "group": "w", "placementConstraints": on(instance, "i-gone"), "clientToken": "t"}
    first, again = pair.run(definition, **request), pair.run(definition, **request)
    assert [t["taskArn"] for t in again["tasks"]] == [t["taskArn"] for t in first["tasks"]]
    assert again["failures"] == first["failures"] != []


@pytest.mark.parametrize("expression", ["ec2InstanceId within ['i-1']", "weight == 1", ""])
def test_an_invalid_expression_is_refused(pair: Stack, expression: str) -> None:
    with pytest.raises(ClientError) as error:
        pair.run(pair.definition(), placementConstraints=[{"type": "memberOf", "expression": expression}])
    assert code_of(error) == "InvalidParameterException"


def test_a_task_is_described_with_its_overrides_and_size(pair: Stack) -> None:
    told = [{"name": "STARBURST_WORKERS", "value": "[]"}]
    overrides = {"cpu": "1024", "memory": "512", "containerOverrides": [{"name": "main", "environment": told}]}
    [task] = pair.run(pair.definition(), overrides=overrides)["tasks"]
    shown = pair.task(task["taskArn"])
    assert shown["overrides"]["containerOverrides"][0]["environment"] == told
    assert (shown["cpu"], shown["memory"]) == ("1024", "512")


def test_connected_instances_are_listed_by_a_filter(pair: Stack) -> None:
    arns = {i["containerInstanceArn"] for i in pair.instances}
    connected = pair.ecs.list_container_instances(cluster=pair.name, filter="agentConnected == true")
    assert set(connected["containerInstanceArns"]) == arns
    silent = pair.ecs.list_container_instances(cluster=pair.name, filter="agentConnected == false")
    assert silent["containerInstanceArns"] == []


def test_many_instances_are_terminated_by_one_call_or_none(pair: Stack) -> None:
    ids = [i["ec2InstanceId"] for i in pair.instances]
    terminate = pair.autoscaling.terminate_instance_in_auto_scaling_group
    mine = {"AutoScalingGroupName": pair.name, "ShouldDecrementDesiredCapacity": True}
    for wrong in (
        {**mine, "InstanceIds": [*ids, "i-0123456789abcdef0"]},
        {**mine, "InstanceIds": ids * 51},
        {"InstanceIds": ids, "ShouldDecrementDesiredCapacity": True},
    ):
        with pytest.raises(ClientError) as error:
            terminate(**wrong)
        assert code_of(error) == "ValidationError"
    assert pair.described["DesiredCapacity"] == 2
    assert len(terminate(**mine, InstanceIds=ids)["Activities"]) == 2
    assert pair.described["DesiredCapacity"] == 0
