"""The buildx builder where there is no docker, and what it says to docker and hears of it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys

import pytest

from dask_starburst.environment.buildx.builder import BuildxBuilder
from dask_starburst.environment.buildx.context import dockerfile, write_secrets
from dask_starburst.environment.buildx.docker import BUILDER, Docker, configuration, platforms, private
from dask_starburst.environment.buildx.log import BuildLog, explained
from dask_starburst.environment.capture.model import Environment
from dask_starburst.environment.resolve.platforms import from_source, settle
from dask_starburst.errors import BadArgument, ImageError, RegistryDenied, RegistryUnavailable
from tests.support.fake_docker import StandIn
from tests.support.packages import source, wheel


@pytest.fixture
def stand_in(tmp_path):
    return StandIn(tmp_path)


def test_without_docker_it_says_what_to_install_and_that_the_other_builder_needs_none(tmp_path):
    with pytest.raises(ImageError, match=r'install Docker.*"builder": "direct"'):
        Docker({"PATH": str(tmp_path)})


def test_a_docker_without_buildx_is_told_from_one_without_an_engine(tmp_path):
    for name, facts, words in (
        ("a", {"buildx": False}, "install it .*docker-buildx"),
        ("b", {"engine": False}, r"engine does not answer \(Cannot connect to the Docker daemon.*start it"),
    ):
        (tmp_path / name).mkdir()
        with pytest.raises(ImageError, match=words):
            StandIn(tmp_path / name, **facts).docker.check()


def test_the_builder_is_made_once_and_then_used_by_every_process(stand_in):
    for _ in range(2):
        assert stand_in.docker.builder(stand_in.lock) == ("linux/amd64", "linux/amd64/v2", "linux/arm64")
    assert stand_in.commands == ["inspect", "create", "inspect", "inspect"]


def test_two_processes_that_come_at_one_moment_make_one_builder(stand_in):
    script = (
        "import sys; from pathlib import Path; from dask_starburst.environment.buildx.docker import Docker;"
        "print(Docker({'PATH': sys.argv[1]}).builder(Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", script, str(stand_in.programs), str(stand_in.lock)]
    both = [subprocess.Popen(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[1].decode() for process in both] == ["", ""]
    assert stand_in.commands.count("create") == 1


def test_a_builder_that_somebody_else_has_made_meanwhile_is_used(stand_in, tmp_path):
    # Another computer's home on the same engine has another lock: both find none, and both create.
    script = (
        "import sys; from pathlib import Path; from dask_starburst.environment.buildx.docker import Docker;"
        "print(Docker({'PATH': sys.argv[1]}).builder(Path(sys.argv[2])))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(stand_in.programs), str(tmp_path / name)], stderr=subprocess.PIPE
        )
        for name in ("one", "two")
    ]
    assert [process.communicate()[1].decode() for process in both] == ["", ""]


def test_a_builder_that_does_not_run_any_more_is_made_anew(stand_in):
    stand_in.state.joinpath("builder").write_text("error")
    assert "linux/arm64" in stand_in.docker.builder(stand_in.lock)
    assert stand_in.commands == ["inspect", "rm", "create", "inspect"]


def test_platforms_are_read_without_the_star_of_the_preferred_ones():
    assert platforms("Status: running\nPlatforms:  linux/amd64*, linux/arm64\n") == ("linux/amd64", "linux/arm64")


def test_credentials_are_in_a_folder_of_our_own_that_is_gone_afterwards(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "contexts").mkdir(parents=True)
    before = json.dumps({"credsStore": "desktop", "auths": {"other": {}}, "currentContext": "mine"})
    (home / "config.json").write_text(before)
    monkeypatch.setenv("DOCKER_CONFIG", str(home))
    monkeypatch.setenv("BUILDX_BUILDER", "somebody-elses")
    with private("host:5000", ("AWS", "s3cret")) as (environment, folder):
        found = json.loads((folder / "config.json").read_text())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "config.json").stat().st_mode) == 0o600
        assert environment["DOCKER_CONFIG"] == str(folder)
        assert environment["BUILDX_CONFIG"] == str(home / "buildx")
        assert "BUILDX_BUILDER" not in environment
        assert (folder / "contexts").resolve() == home / "contexts"
    assert not folder.exists()
    assert (home / "config.json").read_text() == before
    assert found["currentContext"] == "mine"
    assert found["auths"].keys() == {"other", "host:5000"}
    # The user's helper would be asked in place of the file, for this registry too.
    assert (found["credsStore"], found["credHelpers"]) == ("desktop", {"host:5000": ""})


def test_without_credentials_the_configuration_is_the_users():
    assert configuration({"credsStore": "desktop"}, "host", None) == {"credsStore": "desktop"}


def test_addresses_of_indexes_are_in_a_file_and_those_on_this_computers_disk_are_left_out(tmp_path):
    variables = {
        "UV_DEFAULT_INDEX": "https://me:s3cret@index.example/simple",
        "UV_INDEX": "file:///here /there name=https://more.example/simple",
        "UV_FIND_LINKS": "/opt/wheels",
        "NO_PROXY": "localhost,.example",
        "AWS_SECRET_ACCESS_KEY": "no",
    }
    words = write_secrets(tmp_path, variables)
    assert "s3cret" not in " ".join(words)
    assert stat.S_IMODE((tmp_path / "index.json").stat().st_mode) == 0o600
    assert json.loads((tmp_path / "index.json").read_text()) == {
        "UV_DEFAULT_INDEX": "https://me:s3cret@index.example/simple",
        "UV_INDEX": "name=https://more.example/simple",
        "NO_PROXY": "localhost,.example",
    }


def test_where_the_users_file_says_that_packages_come_from_is_a_secret_too(tmp_path):
    lines = ("--extra-index-url https://me:s3cret@index.example/simple", "--find-links /opt/wheels", "toolz==1.0.0")
    words = write_secrets(tmp_path, {}, lines)
    assert f"id=starburst-sources,src={tmp_path / 'sources.txt'}" in words
    assert "s3cret" not in " ".join(words)
    assert (tmp_path / "sources.txt").read_text() == lines[0]


def test_ours_goes_on_from_the_last_stage_of_the_users_dockerfile():
    text = dockerfile("# syntax=docker/dockerfile:1\nFROM a AS one\nFROM --platform=$X ${BASE}\nRUN true\n", ())
    assert text.startswith(
        "# syntax=docker/dockerfile:1\nFROM a AS one\nFROM --platform=$X ${BASE} AS starburst-user\n"
    )
    assert "RUN true\n\nFROM starburst-user AS starburst-base\n" in text
    named = dockerfile("from a as One\n", ())
    assert "\nFROM One AS starburst-base\n" in named
    with pytest.raises(BadArgument, match=r"no FROM.*ARG BASE"):
        dockerfile("RUN true\n", ())


def test_debian_packages_are_installed_before_ours_and_nothing_else_is_let_through():
    text = dockerfile(None, ("libgeos-c1v5", "gcc"))
    assert "--no-install-recommends gcc libgeos-c1v5 &&" in text
    assert text.index("apt-get") < text.index("assemble.py system")
    assert "apt-get" not in dockerfile(None, ())
    with pytest.raises(BadArgument, match="no name of a Debian package"):
        dockerfile(None, ("gcc; rm -rf /",))


def test_another_dockerfile_or_debian_package_makes_another_recipe(tmp_path):
    file = tmp_path / "Dockerfile"
    file.write_text("FROM ${BASE}\nCOPY data /data\n")
    (tmp_path / "data").write_text("1")
    first = BuildxBuilder(file).template
    assert first == BuildxBuilder(file).template
    (tmp_path / "data").write_text("2")
    others = {BuildxBuilder(file).template, BuildxBuilder().template, BuildxBuilder(apt=("gcc",)).template}
    assert len(others | {first}) == 4
    (tmp_path / "data").chmod(0o755)
    assert BuildxBuilder(file).template not in others
    assert BuildxBuilder(apt=("make", "gcc")).template == BuildxBuilder(apt=("gcc", "make", "gcc")).template


def test_what_a_dockerfile_does_not_copy_makes_no_other_recipe(tmp_path):
    file, beside = tmp_path / "Dockerfile", tmp_path / "notes.txt"
    file.write_text("FROM ${BASE}\nRUN true\n")
    beside.write_text("1")
    first = BuildxBuilder(file).template
    beside.write_text("2")
    assert BuildxBuilder(file).template == first
    file.write_text("FROM ${BASE}\nRUN false\n")
    assert BuildxBuilder(file).template != first


def test_a_dockerfile_that_is_not_there_is_a_wrong_argument(tmp_path):
    with pytest.raises(BadArgument, match="cannot be read"):
        _ = BuildxBuilder(tmp_path / "none" / "Dockerfile").template


def test_steps_are_told_once_each_with_their_platform_and_time():
    told = []
    log = BuildLog(lambda kind, facts: told.append((kind, dict(facts))))
    for line in (
        "#14 [linux/amd64 stage-1 1/5] RUN --mount=… /opt/venv/bin/python -B /starburst/assemble.py packages",
        "#14 0.386 Resolved 2 packages in 74ms",
        "#14 [linux/amd64 stage-1 1/5] RUN --mount=… /opt/venv/bin/python -B /starburst/assemble.py packages",
        "#14 DONE 3.0s",
        "#15 [2/5] WORKDIR /home/dask",
        "#15 CACHED",
        "#22 pushing layers",
        "#22 pushing layers 0.4s done",
    ):
        log.hear(line)
    packages = {"platform": "linux/amd64", "name": "packages", "number": 1, "of": 5}
    place = {"platform": "", "name": "WORKDIR /home/dask", "number": 2, "of": 5}
    assert told == [
        ("step", packages | {"state": "begun"}),
        ("step", packages | {"state": "done", "seconds": 3.0}),
        ("step", place | {"state": "begun"}),
        ("step", place | {"state": "kept"}),
        ("pushing", {"text": "pushing layers"}),
    ]


@pytest.mark.parametrize(
    ("lines", "kind", "words"),
    [
        (
            ["#9 0.2 oh no", 'ERROR: failed to solve: process "/bin/sh -c false" did not complete: exit code: 1'],
            ImageError,
            r'process "/bin/sh -c false".*last lines:\n#9 0.2 oh no',
        ),
        (["#9 0.1 starburst: the base image has no Python 3.12"], ImageError, "image: the base image has no Python"),
        (["exec /bin/sh: exec format error"], ImageError, "qemu-user-static.*tonistiigi/binfmt"),
        (["#3 write: no space left on device"], ImageError, "docker buildx prune"),
        (
            ["ERROR: failed to solve: failed to push h/r:t: unexpected status: 401 Unauthorized"],
            RegistryDenied,
            "h/r refuses docker",
        ),
        (
            ["ERROR: failed to solve: failed to do request: Put https://h/v2/: dial tcp: connection refused"],
            RegistryUnavailable,
            "cannot reach h",
        ),
    ],
)
def test_what_docker_says_in_the_end_becomes_an_error_in_words(lines, kind, words):
    error = explained(lines, "h/r", "h")
    assert type(error) is kind
    with pytest.raises(kind, match=f"(?s){words}"):
        raise error


def test_passwords_in_addresses_are_not_in_what_is_quoted():
    log = BuildLog(lambda kind, facts: None)
    log.hear("#9 0.2 error: could not fetch https://me:s3cret@index.example/simple/toolz/")
    assert "s3cret" not in str(log.failure("h/r", "h"))


def test_the_builders_name_is_always_a_flag(stand_in):
    stand_in.docker.builder(stand_in.lock)
    assert all(BUILDER in words for words in stand_in.said)
    assert not [words for words in stand_in.said if {"use", "--use"}.intersection(words)]


def test_what_has_no_wheel_is_ordered_as_source_and_only_of_this_builder(tmp_path, monkeypatch):
    index = tmp_path / "index"
    index.mkdir()
    source(index, "compiled", compiled=True)
    wheel(index, "fine")
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX"):
        monkeypatch.setenv(name, index.as_uri())
    environment = Environment("3.11", ("compiled", "fine"), (), origin="requirements.txt")
    settled = settle(environment, ("linux/arm64",), tmp_path / "cache")
    assert [each.name for each in settled.missing["linux/arm64"]] == ["compiled"]
    with_source = from_source(settled, tmp_path / "cache")
    assert with_source.missing == {}
    assert with_source.locks["linux/arm64"].packages == (("compiled", "1.0"), ("fine", "1.0"))
