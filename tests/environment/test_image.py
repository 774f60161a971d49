"""From a user's environment to the image of a cluster, with the embedded AWS's ECR."""

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

from benchmarks.harness.images.fixtures import ROOT, Built, ImageFixtures
from dask_starburst import StarburstCluster
from dask_starburst.environment.image import plan_order
from dask_starburst.environment.registry import documents
from dask_starburst.environment.registry.client import Registry
from dask_starburst.errors import BadArgument, ImageError, NoWheels
from dask_starburst.events import Event, ImageBuilding, ImageBuilt, ImageFound
from dask_starburst.local import LocalAWS
from dask_starburst.settings import Settings
from dask_starburst.settings.arguments import BuildDict
from tests.support.cluster_asserts import alive, emitted, leftovers, starburst, wait_until
from tests.support.fake_docker import FakeDocker
from tests.support.packages import wheel

DAY = 86_400.0


@pytest.fixture(autouse=True)
def user(built: Built, image_fixtures: ImageFixtures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user in an empty folder with a warm cache: Dask's layers are not rebuilt."""
    caches = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    monkeypatch.setenv("UV_CACHE_DIR", os.environ.get("UV_CACHE_DIR", str(caches / "uv")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(image_fixtures.cache.parent))
    monkeypatch.chdir(tmp_path)


def write_requirements(*lines: str) -> None:
    """Write a requirements file, pinned to the versions of the test environment."""
    Path("requirements.txt").write_text("\n".join([f"-c {ROOT / 'constraints.txt'}", *lines, ""]))


def cluster(
    aws: LocalAWS, image_fixtures: ImageFixtures, environment: str | None, **arguments: Any
) -> StarburstCluster:
    build: Any = {"base": image_fixtures.base, **arguments.pop("build", {})}
    return StarburstCluster(
        cloud="local",
        endpoint_url=aws.endpoint_url,
        environment=environment,
        build=build,
        quiet=True,
        **{"n_workers": 0, "arch": "arm64", **arguments},
    )


def told(made: StarburstCluster, kind: type[Event]) -> list[str]:
    return [event.message for event in emitted(made, kind)]


def images(aws: LocalAWS) -> dict[str, list[str]]:
    """The tags of every tagged image by its digest."""
    ecr = aws.client("ecr")
    try:
        details = ecr.describe_images(repositoryName="starburst/worker")["imageDetails"]
    except ecr.exceptions.RepositoryNotFoundException:
        return {}
    return {each["imageDigest"]: each["imageTags"] for each in details if each.get("imageTags")}


@pytest.mark.timeout(300)  # includes the first build of the session
def test_an_image_is_built_once_used_by_tasks_and_reused_by_the_next_cluster(
    aws: LocalAWS, image_fixtures: ImageFixtures
):
    write_requirements("toolz")
    with cluster(aws, image_fixtures, "requirements.txt", n_workers=1) as first, Client(first) as client:
        assert client.submit(sum, [1, 2, 3]).result() == 6
        image = str(first.settings.image)
        tasks = aws.client("ecs").list_task_definitions()["taskDefinitionArns"]
        used = [aws.client("ecs").describe_task_definition(taskDefinition=arn)["taskDefinition"] for arn in tasks]
        assert {one["containerDefinitions"][0]["image"] for one in used} == {image}
    assert "for linux/amd64 and linux/arm64" in told(first, ImageBuilding)[0]
    assert len(told(first, ImageBuilt)) == 1
    assert image.partition("@")[2] in images(aws)

    with cluster(aws, image_fixtures, "requirements.txt") as second:
        assert second.settings.image == image
    assert told(second, ImageBuilding) == []
    assert told(second, ImageFound)[0].startswith("nothing has changed")
    # The command line reuses it as well.
    said = starburst(aws, "image", "build", "--environment", "requirements.txt", "--base", image_fixtures.base)
    assert "nothing has changed" in said
    assert image in said


def test_an_image_is_refreshed_before_it_expires_and_rebuilt_afterwards(aws: LocalAWS, image_fixtures: ImageFixtures):
    write_requirements("toolz", "iniconfig")

    def build() -> tuple[str, str]:
        said = starburst(aws, "image", "build", "--environment", "requirements.txt", "--base", image_fixtures.base)
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
    assert "pushed again before ECR expires it, for 30 more days" in said
    assert "building" not in said

    aws.advance(2.5 * DAY)  # the first one expires, the refreshed one does not
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


def test_a_missing_wheel_for_the_architecture_is_an_error_before_a_launch(
    aws: LocalAWS, image_fixtures: ImageFixtures, index: Path
):
    wheel(index, "starburst_test_fast", tag="py3-none-manylinux_2_17_x86_64")
    write_requirements("starburst-test-fast==1.0")
    before = aws.status().calls.get("autoscaling:CreateAutoScalingGroup", 0)
    with pytest.raises(NoWheels, match=r'starburst-test-fast 1\.0.*arch="x86_64"'):
        cluster(aws, image_fixtures, "requirements.txt")
    assert aws.status().calls.get("autoscaling:CreateAutoScalingGroup", 0) == before
    # The suggested solution.
    common = ("image", "build", "--environment", "requirements.txt", "--base", image_fixtures.base)
    said = starburst(aws, *common, "--arch", "x86_64")
    assert "for linux/amd64, on" in said
    assert "the image is for linux/amd64 only" in said


def test_excluding_an_unknown_or_required_package_is_a_warning(image_fixtures: ImageFixtures):
    emitted: list[Event] = []
    write_requirements("toolz", "iniconfig")
    build: BuildDict = {"base": image_fixtures.base, "exclude": ["iniconfig", "toolz", "tools"]}
    order = plan_order(Settings.load(environment="requirements.txt", build=build), emitted.append)
    names = dict(order.recipe.packages["linux/arm64"]).keys()
    assert "toolz" in names
    assert "iniconfig" not in names
    assert [(event.message, event.level) for event in emitted] == [
        ("build.exclude names toolz; other packages require it, so it is installed", logging.WARNING),
        ("build.exclude names tools, and requirements.txt has no such package: is the name right?", logging.WARNING),
    ]


def test_the_users_dockerfile_and_debian_packages_are_built_with_docker_into_another_image(
    aws: LocalAWS, image_fixtures: ImageFixtures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    docker = FakeDocker(tmp_path)
    monkeypatch.setenv("PATH", f"{docker.programs}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker" / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nENV OURS=1\n")
    write_requirements("toolz")
    common = (
        "image",
        "build",
        "--environment",
        "requirements.txt",
        "--base",
        image_fixtures.base,
        "--builder",
        "buildx",
    )
    tags = []
    for more in ((), ("--dockerfile", "worker/Dockerfile", "--apt", "libgeos-c1v5", "--apt", "gcc")):
        starburst(aws, *common, *more, "--again")
        tags.append(next(word for word in docker.said[-1] if word.startswith("io.dask-starburst.recipe=")))
    assert tags[0] != tags[1]
    assert "ENV OURS=1" in docker.dockerfile
    assert "--no-install-recommends gcc libgeos-c1v5 &&" in docker.dockerfile
    # The build context is the folder of the Dockerfile.
    assert docker.said[-1][-1] == str(tmp_path / "worker")


def test_a_missing_base_image_is_an_error_before_a_launch(aws: LocalAWS, image_fixtures: ImageFixtures):
    write_requirements("toolz")
    with pytest.raises(ImageError, match=r"no-such-base:1.*does not exist"):
        cluster(
            aws, image_fixtures, "requirements.txt", build={"base": f"{image_fixtures.registry.host}/no-such-base:1"}
        )
    assert leftovers(aws) == {kind: [] for kind in leftovers(aws)}


# -- Ctrl-C ---------------------------------------------------------------------------------------


@contextmanager
def building(aws: LocalAWS, image_fixtures: ImageFixtures, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """Run `starburst image build` in a subprocess with an empty cache."""
    command = [str(Path(sys.executable).with_name("starburst")), "image", "build", "--base", image_fixtures.base]
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


def test_ctrl_c_during_a_build_terminates_its_subprocesses_and_nothing_is_tagged(
    aws: LocalAWS, image_fixtures: ImageFixtures
):
    write_requirements("toolz", "humanize")
    before = images(aws)
    with building(aws, image_fixtures) as process:
        assert process.stdout is not None
        while "building an image" not in (line := process.stdout.readline()):
            assert line, "the process has ended"
        wait_until(lambda: children(process), 60, "uv installs packages")
        uv = children(process)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted. An image is tagged last" in said
    assert "Traceback" not in said
    assert not [each for each in uv if alive(each.pid)]
    assert images(aws) == before
    assert list(Path("cold/dask-starburst/layers/work").iterdir()) == []


def test_ctrl_c_ends_a_build_that_waits_for_an_index(aws: LocalAWS, image_fixtures: ImageFixtures):
    write_requirements("toolz")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        with building(aws, image_fixtures, UV_DEFAULT_INDEX=index, UV_HTTP_TIMEOUT="3000", UV_NO_CACHE="1") as process:
            connection, _ = silent.accept()
            uv = children(process)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=60)
            connection.close()
    assert (process.returncode, "Interrupted." in said) == (130, True), said
    assert uv
    assert not [each for each in uv if alive(each.pid)]


# -- a user's image -------------------------------------------------------------------------------


@pytest.fixture
def account(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure the embedded AWS like a real account, for which images are checked."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)


def pushed(image_fixtures: ImageFixtures, architecture: str, *, index: bool) -> str:
    registry, repository = Registry(image_fixtures.registry.host), f"team/{uuid.uuid4().hex[:8]}"
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
def test_an_image_for_another_architecture_is_an_error_before_a_launch(
    aws: LocalAWS, image_fixtures: ImageFixtures, index: bool
):
    image, before = pushed(image_fixtures, "amd64", index=index), launches(aws)
    with pytest.raises(BadArgument, match=r"is built for linux/amd64, but arch='arm64'.*give arch='x86_64'"):
        StarburstCluster(image=image, n_workers=1, quiet=True)
    assert launches(aws) == before


@pytest.mark.usefixtures("account")
def test_a_missing_image_is_an_error_before_a_launch(aws: LocalAWS, image_fixtures: ImageFixtures):
    before = launches(aws)
    with pytest.raises(BadArgument, match="does not exist"):
        StarburstCluster(image=f"{image_fixtures.registry.host}/team/nothing:v7", n_workers=1, quiet=True)
    assert launches(aws) == before


def launches(aws: LocalAWS) -> dict[str, int]:
    """Count the calls that launch billed resources."""
    orders = ("autoscaling:CreateAutoScalingGroup", "autoscaling:UpdateAutoScalingGroup", "ecs:RunTask")
    return {call: aws.status().calls.get(call, 0) for call in orders}
