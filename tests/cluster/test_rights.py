"""The published policies: everything is done under them, and they hold nothing that is not needed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from click.testing import CliRunner
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.aws import autoscaling, cost_explorer, ecr, logs
from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.cli import main
from dask_starburst.errors import AWSError
from dask_starburst.fleet.pool.account import set_up
from dask_starburst.local import LocalAWS, faults
from dask_starburst.local.iam.evaluate import decide_by
from dask_starburst.local.iam.model import Check
from dask_starburst.plan.requests.pool import LEASE_ACTION
from dask_starburst.plan.requests.rights import Holder, Right, document
from dask_starburst.plan.requests.rights_table import rights_of
from dask_starburst.settings import Settings
from tests.support.cluster_asserts import wait_until
from tests.support.people import Person, person, role

pytestmark = pytest.mark.timeout(600)

Decided = dict[str, Any]
REPOSITORY = "starburst/worker"
_READ_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
HOLDERS: tuple[Holder, ...] = ("admin", "user", "builder", "instance", "execution", "scheduler")
#: What the embedded AWS does not ask for: a registry's password stands for the rights of a push, and tasks have the
#: network of their host.
NOT_ASKED = {
    "ecr:BatchCheckLayerAvailability",
    "ecr:CompleteLayerUpload",
    "ecr:GetDownloadUrlForLayer",
    "ecr:InitiateLayerUpload",
    "ecr:UploadLayerPart",
    "ecs:SubmitAttachmentStateChanges",
}


@pytest.fixture(scope="module")
def decided(aws: LocalAWS) -> list[Decided]:
    """Live the whole life of an account under the policies, and return what IAM decided."""
    aws.enforce_iam(True)
    admin, user, builder = (person(aws, name, name) for name in ("admin", "user", "builder"))
    _prepare(admin)
    _cluster(aws, user)
    everyone = person(aws, "everyone", "admin", "user", "builder")
    _pools(aws, user, everyone)
    _rarely(everyone)
    _images(builder)
    _leave(aws, everyone)
    found = aws.decisions()
    aws.enforce_iam(False)
    assert found["unknown"] == []
    every: list[Decided] = found["decided"]
    return every


def _prepare(admin: Person) -> None:
    """Set up the account, as the first start of an administrator does."""
    patience = Patience(60.0, lambda event: None)
    for _ in range(2):  # the second one finds what the first has made
        admin.call(lambda aws: set_up(aws, Settings.load(), ("m7g.large", "c7g.large"), patience))


def _cluster(aws: LocalAWS, user: Person) -> None:
    """Start a cluster, scale it down, read a log, and close it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in user.environment.items():
            patch.setenv(name, value)
        settings: dict[str, Any] = {
            "endpoint_url": aws.endpoint_url,
            "image": "dask-starburst/local",
            "scheduler": {"port": aws.scheduler_port, "dashboard": False},
            "network": {"checkip_url": aws.private_url("checkip", "caller")},
            "timeouts": {"poll": 0.25},
        }
        with StarburstCluster(n_workers=1, quiet=True, **settings) as cluster, Client(cluster) as client:
            client.wait_for_workers(1, timeout=120)
            cluster.scale(0)
            wait_until(lambda: aws.status().instances_running == 1, 120, "the scheduler's instance only")
            _renew_and_empty(aws)
    user.call(lambda ours: logs.tail(ours, "/starburst", "none", 1))


def _renew_and_empty(aws: LocalAWS) -> None:
    """Do with the scheduler's role what its lease keeper does, and with the instances' role what their reaper does."""
    groups = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    head = next(group for group in groups if group["AutoScalingGroupName"].endswith("-head"))
    workers = next(group["AutoScalingGroupName"] for group in groups if group is not head)
    keeper, reaper = role(aws, "starburst-scheduler"), role(aws, "starburst-instance").session.client("autoscaling")
    keeper.call(lambda ours: autoscaling.put_lease(ours, workers, LEASE_ACTION, ours.now() + 600))
    keeper.call(lambda ours: autoscaling.set_zero(ours, workers))
    reaper.describe_tags()
    reaper.terminate_instance_in_auto_scaling_group(
        InstanceId=head["Instances"][0]["InstanceId"], ShouldDecrementDesiredCapacity=True
    )


def run(who: Person, *words: str) -> str:
    result = CliRunner().invoke(main, [*words], env=who.environment)
    assert result.exit_code == 0, f"{words}: {result.output} {result.exception!r}"
    return result.output


def _pools(aws: LocalAWS, user: Person, everyone: Person) -> None:
    """Keep instances warm, look at pools, stop and delete them, and request a quota."""
    aws.play([faults.Quota(market="on-demand", vcpus=64)])
    run(user, "pool", "warm", "1", "--yes", "--for", "10 minutes")
    pool = next(name for name in aws.status().clusters if aws.client("ecs").list_container_instances(cluster=name))
    _pull_and_interrupt(aws, pool)
    _terminate(aws, everyone)
    run(user, "pool", "list")
    run(user, "pool", "stop", pool, "--yes")
    run(everyone, "quota", "request", "128", "--on-demand", "--yes")
    run(everyone, "quota", "status")
    user.call(lambda ours: cost_explorer.billed(ours, "starburst:pool", date(2026, 11, 1), date(2026, 12, 1)))
    run(user, "gc", "--delete")
    CliRunner().invoke(main, ["doctor"], env=everyone.environment)  # whatever it finds


def _pull_and_interrupt(aws: LocalAWS, pool: str) -> None:
    """Run a task with an image of the account's registry, which does not exist, and interrupt its instance."""
    client, roles = aws.client("ecs"), aws.client("iam")
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/starburst/worker:none"
    client.register_task_definition(
        family="pulls",
        networkMode="host",
        executionRoleArn=roles.get_role(RoleName="starburst-execution")["Role"]["Arn"],
        containerDefinitions=[{"name": "main", "image": image, "memory": 64}],
    )
    client.run_task(cluster=pool, taskDefinition="pulls", launchType="EC2")
    aws.play([faults.Interrupt()])
    wanted = {"ecr:BatchGetImage", "ecs:UpdateContainerInstancesState"}
    wait_until(lambda: wanted <= {each["action"] for each in aws.decisions()["decided"]}, 60, "a pull and a notice")


def _terminate(aws: LocalAWS, everyone: Person) -> None:
    """Ask to terminate an instance of a pool, as teardown does with one that its group has lost."""
    reservations = aws.client("ec2").describe_instances()["Reservations"]
    running = [i for each in reservations for i in each["Instances"] if i["State"]["Name"] == "running"]
    client = everyone.session.client("ec2")
    with suppress(client.exceptions.ClientError):  # a dry run: the account's groups are not told
        client.terminate_instances(InstanceIds=[running[0]["InstanceId"]], DryRun=True)


def _rarely(everyone: Person) -> None:
    """Make the calls of situations that do not come up here: private subnets, unset quotas, lost tasks, search."""
    host = "arn:aws:ecs:us-east-1:123456789012:container-instance/starburst-gone/0a"
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("ec2", "DescribeVpcEndpoints", {}),
        ("ec2", "DescribeSpotPriceHistory", {"InstanceTypes": ["c7g.large"], "MaxResults": 1}),
        ("service-quotas", "GetAWSDefaultServiceQuota", {"ServiceCode": "ec2", "QuotaCode": "L-34B43A08"}),
        ("logs", "FilterLogEvents", {"logGroupName": "/starburst"}),
        ("ecs", "StopTask", {"cluster": "starburst-gone", "task": "0a"}),
        ("ecs", "DeregisterContainerInstance", {"cluster": "starburst-gone", "containerInstance": host}),
    )

    async def work(aws: AWS) -> None:
        for service, operation, request in calls:
            with suppress(AWSError):
                await aws.call(service, operation, **request)

    everyone.call(work)


def _images(builder: Person) -> None:
    """Make, list, renew and delete images."""

    async def work(aws: AWS) -> None:
        await ecr.registry_credentials(aws)
        await ecr.ensure_repository(aws, REPOSITORY, {"starburst:pool": "starburst"}, 30)
        assert await ecr.ttl_days(aws, REPOSITORY) == 30
        await ecr.images(aws, REPOSITORY)
        for operation, request in (
            ("BatchGetImage", {"imageIds": [{"imageTag": "none"}]}),
            ("BatchDeleteImage", {"imageIds": [{"imageTag": "none"}]}),
            ("PutImage", {"imageManifest": "{}"}),
        ):
            with suppress(AWSError):
                await aws.call("ecr", operation, repositoryName=REPOSITORY, **request)

    builder.call(work)


def _leave(aws: LocalAWS, everyone: Person) -> None:
    """Remove everything."""
    aws.client("iam").attach_role_policy(RoleName="starburst-worker", PolicyArn=_READ_ONLY)
    run(everyone, "teardown", "--yes", "--roles")


def test_nothing_is_denied(decided: list[Decided]) -> None:
    denied = [each for each in decided if not each["allowed"]]
    assert [(each["principal"], each["call"], each["action"], each["resource"]) for each in denied] == []


@pytest.mark.parametrize("holder", HOLDERS)
def test_every_action_of_a_policy_is_needed(decided: list[Decided], holder: Holder) -> None:
    """Take away each action of each statement: a call has to be denied then."""
    mine = [_check(each) for each in decided if any(by.startswith(f"starburst-{holder}/") for by in each["by"])]
    assert [
        f"{right.sid}: {action}"
        for right in rights_of(holder)
        for action in sorted(set(right.actions) - NOT_ASKED)
        if not _denies(_without(holder, right, action), [check for check in mine if check.action == action])
    ] == []


def _denies(policy: dict[str, Any], checks: list[Check]) -> bool:
    return any(not decide_by({"less": policy}, check, check.context).allowed for check in checks)


def _without(holder: Holder, right: Right, action: str) -> dict[str, Any]:
    left = replace(right, actions=tuple(each for each in right.actions if each != action))
    return document(left if each is right else each for each in rights_of(holder))


def _check(decided: Mapping[str, Any]) -> Check:
    context = {key: tuple(values) for key, values in decided["context"]}
    return Check(decided["action"], decided["resource"], context)
