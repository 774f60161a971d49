"""The reaper: its decisions, its requirements, and its effect on the embedded AWS."""

from __future__ import annotations

import ast
import base64
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from dask_starburst.fleet.pool.pool import boot_script
from dask_starburst.local import LocalAWS
from dask_starburst.plan.requests.reuse import WARM_TAG
from dask_starburst.runtime.host import reaper
from dask_starburst.runtime.host.reaper import State, idle_time, signed
from tests.support.cluster_asserts import wait_until
from tests.support.reaper_fixtures import INTERVAL, Reapers

LIMIT = 300
NOWHERE = "http://127.0.0.1:9"  # nothing listens there
AMI = "/aws/service/ecs/optimized-ami/amazon-linux-2023/arm64/recommended/image_id"
ROLE = "reaped"
GONE = "terminating this instance"


def test_the_boot_counts_as_the_last_task():
    assert idle_time(State(), False, 45) == (State(0, 45), 45)


def test_a_task_begins_it_all_again():
    assert idle_time(State(busy=10, answered=200, failures=2), True, 230) == (State(230, 230), 0)


def test_an_agent_that_is_silent_for_a_moment_may_have_a_task():
    state = State(busy=0, answered=290)
    assert idle_time(state, None, 320) == (state, 30)
    assert idle_time(state, False, 350)[1] == 350


def test_an_agent_that_has_never_answered_has_no_task():
    assert idle_time(State(), None, 300) == (State(), 300)


@pytest.mark.parametrize("url", ["https://autoscaling.eu-west-1.amazonaws.com/", "http://127.0.0.1:4566/"])
def test_the_signature_is_that_of_botocore(url: str):
    credentials = {"AccessKeyId": "ASIA", "SecretAccessKey": "se/cr+et", "Token": "to=ken"}
    body = "Action=TerminateInstanceInAutoScalingGroup&InstanceId=i-1"
    ours = signed(url, body, "eu-west-1", credentials, "20261125T101112Z")
    request = AWSRequest("POST", url, {"Content-Type": ours["content-type"]}, body)
    signer = SigV4Auth(Credentials(*credentials.values()), "autoscaling", "eu-west-1")
    request.context["timestamp"] = "20261125T101112Z"
    request.headers["X-Amz-Date"] = "20261125T101112Z"
    request.headers["X-Amz-Security-Token"] = credentials["Token"]
    text = signer.string_to_sign(request, signer.canonical_request(request))
    assert ours["authorization"].endswith(f"Signature={signer.signature(text, request)}")
    assert f"SignedHeaders={signer.signed_headers(signer.headers_to_sign(request))}," in ours["authorization"]


def test_it_needs_python_3_9_and_nothing_else():
    source = Path(reaper.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
    assert "match" not in {type(node).__name__.lower() for node in ast.walk(tree)}


class Pool:
    """A group whose instances have the boot script of a pool, its ECS cluster, and the reapers."""

    def __init__(self, aws: LocalAWS, clients: dict[str, Any], image: str, folder: Path) -> None:
        self.aws, self.name = aws, f"p-{uuid.uuid4().hex[:10]}"
        self.autoscaling, self.ecs, ec2 = clients["autoscaling"], clients["ecs"], clients["ec2"]
        name = self.name
        self.reapers = Reapers(aws, folder, name, ec2)
        self.ecs.create_cluster(clusterName=name)
        filled = {"@CLUSTER@": name, "@GROUP@": name, "@IDLE_LIMIT@": str(LIMIT)}
        script = boot_script()
        for key, value in filled.items():
            script = script.replace(key, value)
        data = {
            "ImageId": image,
            "InstanceType": "c7g.large",
            "IamInstanceProfile": {"Name": ROLE},
            "UserData": base64.b64encode(script.encode()).decode(),
        }
        template = ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)["LaunchTemplate"]
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        self.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=name,
            MinSize=0,
            MaxSize=2,
            DesiredCapacity=1,
            VPCZoneIdentifier=subnet,
            LaunchTemplate={"LaunchTemplateId": template["LaunchTemplateId"], "Version": "1"},
        )
        wait_until(lambda: any(i["agentConnected"] for i in self.instances()), 60, "an instance")

    def instances(self) -> list[dict]:
        arns = self.ecs.list_container_instances(cluster=self.name)["containerInstanceArns"]
        if not arns:
            return []
        found = self.ecs.describe_container_instances(cluster=self.name, containerInstances=arns)
        return found["containerInstances"]

    def running(self) -> set[str]:
        return {i["id"] for i in self.aws.instances() if i["group"] == self.name and i["state"] == "running"}

    @property
    def instance(self) -> str:
        (only,) = self.running()
        return only

    def run(self, seconds: float = 600) -> str:
        container = {
            "name": "main",
            "image": "any",
            "memory": 64,
            "command": ["python", "-c", f"import time; time.sleep({seconds})"],
        }
        self.ecs.register_task_definition(family=self.name, networkMode="host", containerDefinitions=[container])
        reply = self.ecs.run_task(cluster=self.name, taskDefinition=self.name, launchType="EC2")
        return reply["tasks"][0]["taskArn"]

    def status(self, task: str) -> str:
        return self.ecs.describe_tasks(cluster=self.name, tasks=[task])["tasks"][0]["lastStatus"]

    def agent_status(self) -> int:
        try:
            with urllib.request.urlopen(f"{self.aws.private_url('agent', self.instance)}/v1/tasks") as reply:
                return reply.status
        except HTTPError as error:
            return error.code

    def sizes(self) -> tuple[int, int]:
        """Return the desired capacity, and how many instances there are."""
        (group,) = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])["AutoScalingGroups"]
        return group["DesiredCapacity"], len(group["Instances"])

    def activities(self) -> list[str]:
        reply = self.autoscaling.describe_scaling_activities(AutoScalingGroupName=self.name)
        return [activity["Description"] for activity in reply["Activities"]]


@pytest.fixture(scope="module")
def aws(embedded: LocalAWS) -> LocalAWS:
    embedded.reset()
    iam = embedded.client("iam")
    iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName=ROLE)
    iam.add_role_to_instance_profile(InstanceProfileName=ROLE, RoleName=ROLE)
    return embedded


@pytest.fixture(scope="module")
def clients(aws: LocalAWS) -> dict[str, Any]:
    return {name: aws.client(name) for name in ("autoscaling", "ecs", "ec2")}


@pytest.fixture(scope="module")
def image(aws: LocalAWS) -> str:
    return aws.client("ssm").get_parameter(Name=AMI)["Parameter"]["Value"]


@pytest.fixture
def pool(aws: LocalAWS, clients: dict[str, Any], image: str, tmp_path: Path) -> Iterator[Pool]:
    made = Pool(aws, clients, image, tmp_path)
    yield made
    made.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=made.name, ForceDelete=True)


def test_an_idle_instance_terminates_itself_and_is_not_replaced(pool: Pool):
    instance = pool.instance
    assert pool.reapers.after(LIMIT - INTERVAL - 5) == {instance: ""}
    assert pool.sizes() == (1, 1)
    pool.aws.advance(INTERVAL + 5)
    assert GONE in pool.reapers.look()[instance]
    wait_until(lambda: pool.sizes() == (0, 0), 60, "it is gone")
    assert sum("Launching" in text for text in pool.activities()) == 1


def test_an_instance_with_a_task_stays_and_goes_when_that_has_ended_for_long_enough(pool: Pool):
    task, instance = pool.run(), pool.instance
    wait_until(lambda: pool.status(task) == "RUNNING", 60, "it runs")
    assert pool.reapers.after(10 * LIMIT) == {instance: ""}
    pool.ecs.stop_task(cluster=pool.name, task=task)
    wait_until(lambda: pool.status(task) == "STOPPED", 60, "it has stopped")
    assert pool.reapers.after(INTERVAL) == {instance: ""}, "though the agent still shows the stopped task"
    assert pool.sizes() == (1, 1)
    pool.aws.advance(LIMIT)
    assert GONE in pool.reapers.look()[instance]


def test_an_instance_whose_first_task_starts_stays(pool: Pool):
    instance = pool.instance
    assert pool.reapers.after(LIMIT - INTERVAL - 5) == {instance: ""}
    pool.aws.advance(INTERVAL + 5)  # with another look now it would go
    pool.aws.set_speed(0.01)  # for the pull to take ten seconds of ours
    try:
        task = pool.run()
        pool.aws.advance(0.05)
        wait_until(lambda: pool.agent_status() == 404, 60, "the agent has the task, but no container yet")
        assert pool.reapers.look() == {instance: ""}
        assert pool.status(task) == "PENDING"
    finally:
        pool.aws.set_speed(1)
    wait_until(lambda: pool.status(task) == "RUNNING", 60, "it runs")
    assert pool.reapers.look() == {instance: ""}
    assert pool.sizes() == (1, 1)


def test_an_instance_that_its_group_keeps_warm_stays_until_that_is_over(pool: Pool):
    tag = {"ResourceId": pool.name, "ResourceType": "auto-scaling-group", "PropagateAtLaunch": False}
    until = f"{pool.aws.now() + 3 * LIMIT:.0f}"
    pool.autoscaling.create_or_update_tags(Tags=[{**tag, "Key": reaper.KEEP_IDLE_TAG, "Value": until}])
    instance = pool.instance
    assert pool.reapers.after(LIMIT) == {instance: ""}
    assert pool.reapers.after(LIMIT) == {instance: ""}
    assert pool.sizes() == (1, 1)
    assert GONE in pool.reapers.after(LIMIT)[instance]


def test_the_tag_that_keeps_an_instance_is_the_one_that_pools_get():
    assert reaper.KEEP_IDLE_TAG == WARM_TAG


def test_an_instance_that_cannot_reach_aws_three_times_shuts_down(pool: Pool):
    instance = pool.instance
    assert pool.reapers.after(LIMIT, AWS_ENDPOINT_URL=NOWHERE).keys() == {instance}
    for said in (pool.reapers.look(AWS_ENDPOINT_URL=NOWHERE), pool.reapers.look(AWS_ENDPOINT_URL=NOWHERE)):
        assert "Connection refused" in said[instance]
    assert "shutting down" in said[instance]
    wait_until(lambda: pool.running() and instance not in pool.running(), 60, "replaced, so this is the last resort")
    assert pool.sizes()[0] == 1


def test_a_temporary_refusal_is_printed_with_the_error_of_aws_and_retried(pool: Pool):
    instance = pool.instance
    text = "User: reaped is not authorized to perform: autoscaling:TerminateInstanceInAutoScalingGroup"
    pool.aws.inject("autoscaling:TerminateInstanceInAutoScalingGroup", "AccessDenied", text, status=403, times=2)
    assert text in pool.reapers.after(LIMIT)[instance]
    assert text in pool.reapers.look()[instance]
    said = pool.reapers.look()[instance]
    assert GONE in said
    assert "shutting down" not in said


def test_an_agent_that_is_dead_for_a_moment_is_waited_for_and_one_that_stays_dead_has_no_task(pool: Pool):
    task, instance, dead = pool.run(), pool.instance, ("--agent", NOWHERE)
    wait_until(lambda: pool.status(task) == "RUNNING", 60, "it runs")
    assert pool.reapers.start(instance, 1000) == ""
    assert pool.reapers.start(instance, 1000 + LIMIT - 1, *dead) == ""
    assert (
        pool.reapers.start(
            instance,
            1000 + LIMIT,
        )
        == ""
    ), "it is back, with the task"
    assert pool.reapers.start(instance, 1000 + 2 * LIMIT - 1, *dead) == ""
    assert pool.sizes() == (1, 1)
    assert GONE in pool.reapers.start(instance, 1000 + 2 * LIMIT, *dead)
    wait_until(lambda: pool.sizes() == (0, 0), 60, "it is gone")


def test_a_reaper_that_has_lost_its_memory_begins_again(pool: Pool, tmp_path: Path):
    instance, lost = pool.instance, ("--state", str(tmp_path / "lost"))
    assert pool.reapers.start(instance, 5000, *lost) == ""
    assert GONE in pool.reapers.start(instance, 5000 + LIMIT, *lost)
