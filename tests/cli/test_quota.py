"""``starburst quota`` on the embedded AWS."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from dask_starburst.cli import main
from dask_starburst.local import LocalAWS, faults
from dask_starburst.local.services.service_quotas import REVIEW
from dask_starburst.plan.requests.rights import PEOPLE
from dask_starburst.plan.requests.rights_table import rights_of
from tests.support.cluster_asserts import wait_until


@pytest.fixture(autouse=True)
def new_account(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "120")
    aws.play([faults.Quota(market=market, vcpus=5) for market in ("spot", "on-demand")])
    aws.play([faults.Quota(code="L-DB2E81BA", vcpus=0), faults.Quota(code="L-3032A538", vcpus=6)])
    yield
    aws.play([faults.Clear()])


def quota(*words: str, code: int = 0, answer: str | None = None) -> Result:
    result = CliRunner().invoke(main, ["quota", *words], input=answer)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def row(output: str, code: str) -> list[str]:
    (found,) = [line for line in output.splitlines() if re.search(rf"│ {code} │", line)]
    return [cell.strip() for cell in found.strip("│").split("│")]


def test_status_shows_limit_use_and_room(aws: LocalAWS) -> None:
    ec2 = aws.client("ec2")
    image = aws.client("ssm").get_parameter(
        Name="/aws/service/ecs/optimized-ami/amazon-linux-2023/arm64/recommended/image_id"
    )["Parameter"]["Value"]
    made = ec2.run_instances(ImageId=image, InstanceType="c7g.large", MinCount=1, MaxCount=1)["Instances"]
    try:
        said = quota("status").output
        assert row(said, "L-1216C47A") == ["Standard, on demand", "L-1216C47A", "5", "2", "3", "0 c7g.xlarge"]
        assert row(said, "L-34B43A08") == ["Standard, Spot", "L-34B43A08", "5", "0", "5", "1 c7g.xlarge"]
        assert row(said, "L-DB2E81BA")[2:] == ["0", "0", "0", "–"]
        assert row(said, "L-3032A538")[-1] == "1 task of 4 vCPUs"
        assert "A scheduler takes 1 of L-1216C47A (m7g.medium, on demand)" in said
        shown = {one["code"]: one for one in json.loads(quota("status", "--json").output)["quotas"]}
        assert (shown["L-1216C47A"]["limit"], shown["L-1216C47A"]["used"], shown["L-1216C47A"]["free"]) == (5, 2, 3)
        assert shown["L-34B43A08"]["room"] == {"what": "c7g.xlarge", "count": 1}
        assert shown["L-34B43A08"]["asked"] is None
    finally:
        ec2.terminate_instances(InstanceIds=[made[0]["InstanceId"]])


def test_status_counts_tasks_on_fargate(aws: LocalAWS) -> None:
    ecs, ec2 = aws.client("ecs"), aws.client("ec2")
    ecs.create_cluster(clusterName="f", capacityProviders=["FARGATE", "FARGATE_SPOT"])
    definition = ecs.register_task_definition(
        family="f",
        networkMode="awsvpc",
        requiresCompatibilities=["FARGATE"],
        cpu="2048",
        memory="4096",
        containerDefinitions=[{"name": "main", "image": "any", "command": ["sleep", "600"]}],
    )["taskDefinition"]["taskDefinitionArn"]
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    request = {
        "cluster": "f",
        "taskDefinition": definition,
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": [subnet], "assignPublicIp": "ENABLED"}},
    }
    ecs.run_task(**request, launchType="FARGATE", count=2)
    ecs.run_task(**request, capacityProviderStrategy=[{"capacityProvider": "FARGATE_SPOT"}])

    said = quota("status").output
    assert [row(said, code)[3] for code in ("L-3032A538", "L-36FBB829")] == ["4", "2"]


def test_a_request_is_shown_asked_for_and_followed(aws: LocalAWS) -> None:
    said = quota("request", "64", answer="n\n", code=1).output
    assert "us-east-1: All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests (L-34B43A08): 5 vCPUs" in said
    assert "Request 64 vCPUs instead of 5?" in said
    assert "AWS Support" in said
    assert "requested on" not in quota("status").output
    assert "Requested 64 vCPUs, PENDING" in quota("request", "64", answer="y\n").output
    assert "Standard, Spot: requested on" in quota("status").output
    again = quota("request", "128", "--spot", "--yes", code=1).output
    assert "64 vCPUs were requested on" in again
    assert "one request for a quota at a time" in again
    aws.advance(REVIEW)
    wait_until(lambda: row(quota("status").output, "L-34B43A08")[2] == "64", 60, "it is granted")
    said = quota("status").output
    assert "64 vCPUs, APPROVED" in said
    assert row(said, "L-34B43A08")[-1] == "16 c7g.xlarge"


@pytest.mark.parametrize("vcpus", ["4", "5"])
def test_a_request_for_no_more_than_the_quota_is_refused_before_a_call(aws: LocalAWS, vcpus: str) -> None:
    before = aws.status().calls.get("servicequotas:RequestServiceQuotaIncrease", 0)
    assert "L-1216C47A is already 5 vCPUs" in quota("request", vcpus, "--on-demand", "--yes", code=1).output
    assert aws.status().calls.get("servicequotas:RequestServiceQuotaIncrease", 0) == before


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--instance-type", "g5.xlarge", "--on-demand"], "L-DB2E81BA"),
        (["--fargate"], "L-3032A538"),
        (["--on-demand"], "L-1216C47A"),
        ([], "L-34B43A08"),
    ],
)
def test_options_choose_the_quota(options: list[str], code: str) -> None:
    assert f"({code})" in quota("request", "8", *options, answer="n\n", code=1).output


def test_contradicting_options_are_refused() -> None:
    assert "are different quotas" in quota("request", "8", "--spot", "--on-demand", code=1).output
    assert "f1.2xlarge" in quota("request", "8", "--instance-type", "f1.2xlarge", code=1).output


def test_status_does_without_the_right_to_see_requests(aws: LocalAWS) -> None:
    action = "servicequotas:ListRequestedServiceQuotaChangeHistory"
    aws.inject(action, "AccessDeniedException", f"User: ann is not authorized to perform: {action}", times=2)
    said = quota("status").output
    assert row(said, "L-1216C47A")[2] == "5"
    assert f"not authorized to perform: {action}" in said


def test_the_published_statements_allow_all_calls(aws: LocalAWS) -> None:
    before = aws.status().calls
    quota("status")
    quota("request", "256", "--on-demand", "--yes")
    called = {name for name, count in aws.status().calls.items() if count > before.get(name, 0)}
    assert called <= {action for holder in PEOPLE for right in rights_of(holder) for action in right.actions}
