"""Clusters, capacity providers, task definitions and tags of the embedded AWS, through boto3."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.local.conftest import Clients, Stack, code_of, message_of, wait_for


def test_creating_a_cluster_again_returns_it(stack: Stack) -> None:
    tags = [{"key": "a", "value": "b"}]
    stack.ecs.create_cluster(clusterName=stack.name, tags=tags)
    again = stack.ecs.create_cluster(clusterName=stack.name)["cluster"]
    assert (again["status"], again["tags"]) == ("ACTIVE", tags)


def test_an_unknown_cluster_is_a_failure_and_a_cluster_without_tags_has_an_empty_list(stack: Stack) -> None:
    stack.ecs.create_cluster(clusterName=stack.name)
    reply = stack.ecs.describe_clusters(clusters=[stack.name, "missing"])
    assert reply["clusters"][0]["tags"] == []
    assert [failure["reason"] for failure in reply["failures"]] == ["MISSING"]


def test_a_cluster_with_instances_cannot_be_deleted(warm: Stack) -> None:
    with pytest.raises(ClientError) as error:
        warm.ecs.delete_cluster(cluster=warm.name)
    assert code_of(error) == "ClusterContainsContainerInstancesException"


def test_a_deleted_cluster_is_inactive_and_takes_no_tasks(stack: Stack) -> None:
    arn = stack.ecs.create_cluster(clusterName=stack.name)["cluster"]["clusterArn"]
    stack.ecs.delete_cluster(cluster=stack.name)
    assert stack.ecs.describe_clusters(clusters=[stack.name])["clusters"][0]["status"] == "INACTIVE"
    assert arn not in stack.ecs.list_clusters()["clusterArns"]
    with pytest.raises(ClientError) as error:
        stack.run("anything", launchType="EC2")
    assert code_of(error) == "ClusterNotFoundException"


def test_a_provider_needs_an_existing_group_and_a_unique_name(stack: Stack) -> None:
    missing = "arn:aws:autoscaling:us-east-1:123456789012:autoScalingGroup:1:autoScalingGroupName/missing"
    with pytest.raises(ClientError) as error:
        stack.ecs.create_capacity_provider(name=stack.name, autoScalingGroupProvider={"autoScalingGroupArn": missing})
    assert code_of(error) == "ClientException"
    stack.group()
    arn = stack.described["AutoScalingGroupARN"]
    made = stack.ecs.create_capacity_provider(name=stack.name, autoScalingGroupProvider={"autoScalingGroupArn": arn})
    assert made["capacityProvider"]["autoScalingGroupProvider"]["managedDraining"] == "ENABLED"
    with pytest.raises(ClientError) as error:
        stack.ecs.create_capacity_provider(name=stack.name, autoScalingGroupProvider={"autoScalingGroupArn": arn})
    assert "already exists" in message_of(error)


def test_a_provider_in_use_by_a_cluster_cannot_be_deleted(stack: Stack) -> None:
    stack.group()
    stack.cluster()
    with pytest.raises(ClientError) as error:
        stack.ecs.delete_capacity_provider(capacityProvider=stack.name)
    assert code_of(error) == "ClientException"
    put = stack.ecs.put_cluster_capacity_providers
    put(cluster=stack.name, capacityProviders=[], defaultCapacityProviderStrategy=[])
    stack.ecs.delete_capacity_provider(capacityProvider=stack.name)
    reply = stack.ecs.describe_capacity_providers(capacityProviders=[stack.name])
    assert reply["capacityProviders"] == []
    assert reply["failures"][0]["reason"] == "MISSING"


def test_a_cluster_cannot_have_a_provider_that_does_not_exist(stack: Stack) -> None:
    stack.ecs.create_cluster(clusterName=stack.name)
    with pytest.raises(ClientError) as error:
        stack.ecs.put_cluster_capacity_providers(
            cluster=stack.name, capacityProviders=["missing"], defaultCapacityProviderStrategy=[]
        )
    assert code_of(error) == "InvalidParameterException"


def test_a_definition_has_revisions_and_becomes_inactive(stack: Stack) -> None:
    first, second = stack.definition(), stack.definition()
    assert [first[-2:], second[-2:]] == [":1", ":2"]
    latest = stack.ecs.describe_task_definition(taskDefinition=stack.name)["taskDefinition"]
    assert latest["taskDefinitionArn"] == second
    stack.ecs.deregister_task_definition(taskDefinition=second)
    listed = stack.ecs.list_task_definitions(familyPrefix=stack.name)["taskDefinitionArns"]
    assert listed == [first]
    deleted = stack.ecs.delete_task_definitions(taskDefinitions=[first, second])
    assert [one["status"] for one in deleted["taskDefinitions"]] == ["DELETE_IN_PROGRESS"]
    assert [one["arn"] for one in deleted["failures"]] == [first]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"runtimePlatform": {"cpuArchitecture": "Z80"}}, "cpuArchitecture"),
        ({"networkMode": "loopback"}, "networkMode"),
        ({"container": {"secrets": [{"name": "A", "valueFrom": "/a"}]}}, "executionRoleArn"),
        ({"container": {"memory": 2}}, "memory"),
        ({"container": {"logConfiguration": {"logDriver": "awslogs", "options": {}}}}, "awslogs-group"),
    ],
    ids=["architecture", "network", "secrets", "memory", "logs"],
)
def test_an_invalid_definition_is_refused(stack: Stack, changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ClientError) as error:
        stack.definition(**changes)
    assert code_of(error) in ("ClientException", "InvalidParameterException")
    assert word in message_of(error)


def test_memory_is_required_for_the_task_or_its_containers(stack: Stack) -> None:
    bare = {"name": "main", "image": "any", "command": ["true"]}
    with pytest.raises(ClientError):
        stack.ecs.register_task_definition(family=stack.name, containerDefinitions=[bare])
    stack.ecs.register_task_definition(family=stack.name, memory="256", containerDefinitions=[bare])


def test_everything_can_be_tagged(warm: Stack) -> None:
    arns = [
        warm.ecs.describe_clusters(clusters=[warm.name])["clusters"][0]["clusterArn"],
        warm.ecs.describe_capacity_providers(capacityProviders=[warm.name])["capacityProviders"][0][
            "capacityProviderArn"
        ],
        warm.definition(),
        warm.instances[0]["containerInstanceArn"],
        warm.start(warm.definition()),
    ]
    for arn in arns:
        warm.ecs.tag_resource(resourceArn=arn, tags=[{"key": "a", "value": "1"}, {"key": "b", "value": "2"}])
        warm.ecs.untag_resource(resourceArn=arn, tagKeys=["a"])
        assert warm.ecs.list_tags_for_resource(resourceArn=arn)["tags"] == [{"key": "b", "value": "2"}]


def test_container_instances_register_their_resources_and_attributes(warm: Stack) -> None:
    (instance,) = warm.instances
    attributes = {one["name"]: one["value"] for one in instance["attributes"]}
    assert attributes["ecs.instance-type"] == "c7g.large"
    assert attributes["ecs.cpu-architecture"] == "arm64"
    assert attributes["ecs.availability-zone"] == warm.members[0]["AvailabilityZone"]
    registered = {one["name"]: one["integerValue"] for one in instance["registeredResources"]}
    assert (registered["CPU"], registered["MEMORY"]) == (2048, int(0.95 * 4096))
    assert instance["capacityProviderName"] == warm.name
    assert instance["tags"] == []


def test_container_instances_are_found_by_a_filter(warm: Stack) -> None:
    (instance,) = warm.instances

    def found(query: str) -> list[str]:
        arns: list[str] = warm.ecs.list_container_instances(cluster=warm.name, filter=query)["containerInstanceArns"]
        return arns

    assert found(f"ec2InstanceId == {instance['ec2InstanceId']}") == [instance["containerInstanceArn"]]
    assert found("attribute:ecs.instance-type in [c7g.large, c8g.large] and agentConnected == true")
    assert found("attribute:ecs.cpu-architecture == x86_64") == []
    with pytest.raises(ClientError) as error:
        found("colour =~ blue")
    assert code_of(error) == "InvalidParameterException"


def test_a_terminated_instance_is_deregistered(warm: Stack) -> None:
    warm.ec2.terminate_instances(InstanceIds=[warm.instances[0]["ec2InstanceId"]])
    warm.autoscaling.update_auto_scaling_group(AutoScalingGroupName=warm.name, DesiredCapacity=0)
    wait_for(lambda: not warm.instances)


def test_account_settings_show_their_defaults(clients: Clients) -> None:
    settings = clients.ecs.list_account_settings(effectiveSettings=True)["settings"]
    assert {one["name"]: one["value"] for one in settings}["taskLongArnFormat"] == "enabled"


def test_more_than_a_hundred_names_are_refused(warm: Stack) -> None:
    many = [f"{number:032x}" for number in range(101)]
    for call in (
        lambda: warm.ecs.describe_tasks(cluster=warm.name, tasks=many),
        lambda: warm.ecs.describe_container_instances(cluster=warm.name, containerInstances=many),
    ):
        with pytest.raises(ClientError) as error:
            call()
        assert code_of(error) == "InvalidParameterException"
