"""From a user's environment to the image that a cluster runs: on the embedded AWS, with its ECR."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.environment.image import plan_order
from dask_starburst.environment.registry import documents
from dask_starburst.environment.registry.client import Registry
from dask_starburst.errors import BadArgument, ImageError, NoWheels
from dask_starburst.local import LocalAWS
from dask_starburst.settings import Settings
from tests.support.cluster_asserts import alive, leftovers, starburst, wait_until
from tests.support.fake_docker import StandIn
from tests.support.image_fixtures import ROOT, Built, Kitchen
from tests.support.packages import wheel

DAY = 86_400.0


@pytest.fixture(autouse=True)
def user(built: Built, kitchen: Kitchen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user in a folder of their own, who has built an image before: Dask's layers need not be made again."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    monkeypatch.setenv("UV_CACHE_DIR", os.environ.get("UV_CACHE_DIR", str(caches / "uv")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(kitchen.cache.parent))
    monkeypatch.chdir(tmp_path)


def ask_for(*lines: str) -> None:
    """Write a file of requirements, at the versions that the tests run with."""
    Path("requirements.txt").write_text("\n".join([f"-c {ROOT / 'constraints.txt'}", *lines, ""]))


def cluster(aws: LocalAWS, kitchen: Kitchen, environment: str | None, **arguments: Any) -> StarburstCluster:
    build = {"base": kitchen.base, **arguments.pop("build", {})}
    return StarburstCluster(
        cloud="local",
        endpoint_url=aws.endpoint_url,
        environment=environment,
        build=build,
        quiet=True,
        **{"n_workers": 0, "arch": "arm64", **arguments},
    )


def told(made: StarburstCluster, kind: str) -> list[str]:
    return [event.message for event in made.events if event.kind == kind]


def images(aws: LocalAWS) -> dict[str, list[str]]:
    """The tags of every tagged image by its digest."""
    ecr = aws.client("ecr")
    try:
        details = ecr.describe_images(repositoryName="starburst/worker")["imageDetails"]
    except ecr.exceptions.RepositoryNotFoundException:
        return {}
    return {each["imageDigest"]: each["imageTags"] for each in details if each.get("imageTags")}


@pytest.mark.timeout(300)  # with the first build of the session in it
def test_an_image_is_built_once_used_by_the_tasks_and_found_by_the_next_cluster(aws: LocalAWS, kitchen: Kitchen):
    ask_for("toolz")
    with cluster(aws, kitchen, "requirements.txt", n_workers=1) as first, Client(first) as client:
        assert client.submit(sum, [1, 2, 3]).result() == 6
        image = str(first.settings.image)
        tasks = aws.client("ecs").list_task_definitions()["taskDefinitionArns"]
        used = [aws.client("ecs").describe_task_definition(taskDefinition=arn)["taskDefinition"] for arn in tasks]
        assert {one["containerDefinitions"][0]["image"] for one in used} == {image}
    assert "for linux/amd64 and linux/arm64" in told(first, "image-building")[0]
    assert len(told(first, "image-built")) == 1
    assert image.partition("@")[2] in images(aws)

    with cluster(aws, kitchen, "requirements.txt") as second:
        assert second.settings.image == image
    assert told(second, "image-building") == []
    assert told(second, "image-found")[0].startswith("nothing has changed")
    # So does the command line.
    said = starburst(aws, "image", "build", "--environment", "requirements.txt", "--base", kitchen.base)
    assert "nothing has changed" in said
    assert image in said


def test_an_image_is_renewed_in_time_and_built_anew_when_it_is_gone(aws: LocalAWS, kitchen: Kitchen):
    ask_for("toolz", "iniconfig")

    def build() -> tuple[str, str]:
        said = starburst(aws, "image", "build", "--environment", "requirements.txt", "--base", kitchen.base)
        return said, said.splitlines()[-2].partition("@")[2]

    said, first = build()
    assert "building an image of requirements.txt" in said

    aws.advance(26 * DAY)
    said, again = build()
    assert again == first
    assert "ECR deletes it in 4 days" in said

    aws.advance(2.5 * DAY)
    said, renewed = build()
    assert renewed != first
    assert "it was pushed again, for 30 more days" in said
    assert "building" not in said

    aws.advance(2.5 * DAY)  # now the first one is gone, and the renewed one is there
    assert list(images(aws)) == [renewed]
    aws.advance(40 * DAY)
    said, _ = build()
    assert "building an image" in said


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("UV_FIND_LINKS", str(folder))
    return folder


def test_what_has_no_wheel_for_the_architecture_is_an_error_before_anything_is_launched(
    aws: LocalAWS, kitchen: Kitchen, index: Path
):
    wheel(index, "starburst_test_fast", tag="py3-none-manylinux_2_17_x86_64")
    ask_for("starburst-test-fast==1.0")
    before = aws.status().calls.get("autoscaling:CreateAutoScalingGroup", 0)
    with pytest.raises(NoWheels, match=r'starburst-test-fast 1\.0.*arch="x86_64"'):
        cluster(aws, kitchen, "requirements.txt")
    assert aws.status().calls.get("autoscaling:CreateAutoScalingGroup", 0) == before
    # The one-word way out.
    common = ("image", "build", "--environment", "requirements.txt", "--base", kitchen.base)
    said = starburst(aws, *common, "--arch", "x86_64")
    assert "for linux/amd64, on" in said
    assert "the image is for linux/amd64 only" in said


def test_a_name_to_leave_out_that_nothing_has_or_that_others_need_is_a_warning(kitchen: Kitchen):
    told = []
    ask_for("toolz", "iniconfig")
    build = {"base": kitchen.base, "exclude": ["iniconfig", "toolz", "tools"]}
    order = plan_order(
        Settings.load(environment="requirements.txt", build=build), lambda *what, **facts: told.append(what)
    )
    names = dict(order.recipe.packages["linux/arm64"]).keys()
    assert "toolz" in names
    assert "iniconfig" not in names
    assert [(what[2], what[3]) for what in told] == [
        ("build.exclude names toolz; other packages need that, so it comes all the same", logging.WARNING),
        ("build.exclude names tools, and requirements.txt has no such package: is the name right?", logging.WARNING),
    ]


def test_docker_gets_the_users_dockerfile_and_debian_packages_which_make_another_image(
    aws: LocalAWS, kitchen: Kitchen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    docker = StandIn(tmp_path)
    monkeypatch.setenv("PATH", f"{docker.programs}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nENV OURS=1\n")
    ask_for("toolz")
    common = ("image", "build", "--environment", "requirements.txt", "--base", kitchen.base, "--builder", "buildx")
    tags = []
    for more in ((), ("--dockerfile", "worker/Dockerfile", "--apt", "libgeos-c1v5", "--apt", "gcc")):
        starburst(aws, *common, *more, "--again")
        tags.append(next(word for word in docker.said[-1] if word.startswith("io.dask-starburst.recipe=")))
    assert tags[0] != tags[1]
    assert "ENV OURS=1" in docker.dockerfile
    assert "--no-install-recommends gcc libgeos-c1v5 &&" in docker.dockerfile
    # What it may copy is in the folder of the Dockerfile.
    assert docker.said[-1][-1] == str(tmp_path / "worker")


def test_a_base_without_this_python_is_an_error_before_anything_is_launched(aws: LocalAWS, kitchen: Kitchen):
    ask_for("toolz")
    with pytest.raises(ImageError, match=r"no-such-base:1.*does not exist"):
        cluster(aws, kitchen, "requirements.txt", build={"base": f"{kitchen.registry.host}/no-such-base:1"})
    assert leftovers(aws) == {kind: [] for kind in leftovers(aws)}


# -- Ctrl-C ---------------------------------------------------------------------------------------


@contextmanager
def building(aws: LocalAWS, kitchen: Kitchen, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A shell's `starburst image build`, with an empty cache of its own."""
    command = [str(Path(sys.executable).with_name("starburst")), "image", "build", "--base", kitchen.base]
    environment = {**os.environ, **aws.environment, "XDG_CACHE_HOME": str(Path("cold").absolute()), **variables}
    with subprocess.Popen(
        [*command, "--environment", "requirements.txt"],
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        yield process
        process.kill()


def children(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_ctrl_c_in_the_middle_of_a_build_ends_it_and_what_it_has_started_and_nothing_is_tagged(
    aws: LocalAWS, kitchen: Kitchen
):
    ask_for("toolz", "humanize")
    before = images(aws)
    with building(aws, kitchen) as process:
        assert process.stdout is not None
        while "building an image" not in (line := process.stdout.readline()):
            assert line, "it has ended"
        wait_until(lambda: children(process), 60, "uv installs packages")
        uv = children(process)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted. An image gets its tag last" in said
    assert "Traceback" not in said
    assert not [each for each in uv if alive(each.pid)]
    assert images(aws) == before
    assert list(Path("cold/dask-starburst/layers/work").iterdir()) == []


def test_ctrl_c_while_an_index_does_not_answer_is_heard_at_once(aws: LocalAWS, kitchen: Kitchen):
    ask_for("toolz")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        with building(aws, kitchen, UV_DEFAULT_INDEX=index, UV_HTTP_TIMEOUT="3000", UV_NO_CACHE="1") as process:
            connection, _ = silent.accept()
            uv = children(process)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
            connection.close()
    assert (process.returncode, "Interrupted." in said) == (130, True), said
    assert uv
    assert not [each for each in uv if alive(each.pid)]


# -- an image that the user has -------------------------------------------------------------------


@pytest.fixture
def account(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the embedded AWS look like a configured account: there, images are looked at."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)


def pushed(kitchen: Kitchen, architecture: str, *, index: bool) -> str:
    registry, repository = Registry(kitchen.registry.host), f"team/{uuid.uuid4().hex[:8]}"
    config = documents.canonical(
        {"architecture": architecture, "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}
    )
    described = documents.Descriptor(documents.CONFIG, documents.digest_of(config), len(config))
    registry.push_blob(repository, described.digest, config)
    made = documents.manifest(described, [])
    registry.put_manifest(repository, made.digest if index else "v1", made)
    if index:
        one = documents.Descriptor(made.media_type, made.digest, len(made.body), f"linux/{architecture}")
        registry.put_manifest(repository, "v1", documents.index([one]))
    return f"{registry.host}/{repository}:v1"


@pytest.mark.usefixtures("account")
@pytest.mark.parametrize("index", [True, False])
def test_an_image_for_another_architecture_is_refused_before_anything_is_launched(
    aws: LocalAWS, kitchen: Kitchen, index: bool
):
    image, before = pushed(kitchen, "amd64", index=index), launches(aws)
    with pytest.raises(BadArgument, match=r"is made for linux/amd64, but arch='arm64'.*give arch='x86_64'"):
        StarburstCluster(image=image, n_workers=1, quiet=True)
    assert launches(aws) == before


@pytest.mark.usefixtures("account")
def test_an_image_that_is_not_there_is_refused_before_anything_is_launched(aws: LocalAWS, kitchen: Kitchen):
    before = launches(aws)
    with pytest.raises(BadArgument, match="does not exist"):
        StarburstCluster(image=f"{kitchen.registry.host}/team/nothing:v7", n_workers=1, quiet=True)
    assert launches(aws) == before


def launches(aws: LocalAWS) -> dict[str, int]:
    """Count the calls that order something that costs money."""
    orders = ("autoscaling:CreateAutoScalingGroup", "autoscaling:UpdateAutoScalingGroup", "ecs:RunTask")
    return {call: aws.status().calls.get(call, 0) for call in orders}
