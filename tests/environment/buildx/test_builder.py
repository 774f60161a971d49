"""The buildx builder without docker: its arguments, and parsing docker's output."""

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
from dask_starburst.environment.resolve.platforms import from_source, resolve_platforms
from dask_starburst.errors import BadArgument, ImageError, RegistryDenied, RegistryUnavailable
from tests.support.fake_docker import FakeDocker
from tests.support.packages import source, wheel


@pytest.fixture
def fake_docker(tmp_path):
    return FakeDocker(tmp_path)


def test_the_error_without_docker_says_what_to_install_and_names_the_direct_builder(tmp_path):
    with pytest.raises(ImageError, match=r'install Docker.*"builder": "direct"'):
        Docker({"PATH": str(tmp_path)})


def test_a_missing_buildx_and_a_missing_engine_are_different_errors(tmp_path):
    for name, facts, words in (
        ("a", {"buildx": False}, "install it .*docker-buildx"),
        ("b", {"engine": False}, r"engine does not answer \(Cannot connect to the Docker daemon.*start it"),
    ):
        (tmp_path / name).mkdir()
        with pytest.raises(ImageError, match=words):
            FakeDocker(tmp_path / name, **facts).docker.check()


def test_the_builder_is_created_once_and_reused(fake_docker):
    for _ in range(2):
        assert fake_docker.docker.builder(fake_docker.lock) == ("linux/amd64", "linux/amd64/v2", "linux/arm64")
    assert fake_docker.commands == ["inspect", "create", "inspect", "inspect"]


def test_concurrent_processes_create_one_builder(fake_docker):
    script = (
        "import sys; from pathlib import Path; from dask_starburst.environment.buildx.docker import Docker;"
        "print(Docker({'PATH': sys.argv[1]}).builder(Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", script, str(fake_docker.programs), str(fake_docker.lock)]
    both = [subprocess.Popen(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    assert [process.communicate()[1].decode() for process in both] == ["", ""]
    assert fake_docker.commands.count("create") == 1


def test_a_builder_created_meanwhile_by_another_process_is_used(fake_docker, tmp_path):
    # Processes with different home folders on the same engine have different locks: both create the builder.
    script = (
        "import sys; from pathlib import Path; from dask_starburst.environment.buildx.docker import Docker;"
        "print(Docker({'PATH': sys.argv[1]}).builder(Path(sys.argv[2])))"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(fake_docker.programs), str(tmp_path / name)], stderr=subprocess.PIPE
        )
        for name in ("one", "two")
    ]
    assert [process.communicate()[1].decode() for process in both] == ["", ""]


def test_a_builder_that_no_longer_runs_is_recreated(fake_docker):
    fake_docker.state.joinpath("builder").write_text("error")
    assert "linux/arm64" in fake_docker.docker.builder(fake_docker.lock)
    assert fake_docker.commands == ["inspect", "rm", "create", "inspect"]


def test_platforms_are_parsed_without_the_asterisk():
    assert platforms("Status: running\nPlatforms:  linux/amd64*, linux/arm64\n") == ("linux/amd64", "linux/arm64")


def test_credentials_are_in_a_temporary_private_folder(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "contexts").mkdir(parents=True)
    before = json.dumps({"credsStore": "desktop", "auths": {"other": {}}, "currentContext": "mine"})
    (home / "config.json").write_text(before)
    monkeypatch.setenv("DOCKER_CONFIG", str(home))
    monkeypatch.setenv("BUILDX_BUILDER", "another")
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
    # Otherwise the user's credential helper would take precedence for this registry too.
    assert (found["credsStore"], found["credHelpers"]) == ("desktop", {"host:5000": ""})


def test_without_credentials_the_users_configuration_is_unchanged():
    assert configuration({"credsStore": "desktop"}, "host", None) == {"credsStore": "desktop"}


def test_index_urls_are_a_secret_and_local_paths_are_omitted(tmp_path):
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


def test_index_options_of_the_users_file_are_a_secret(tmp_path):
    lines = ("--extra-index-url https://me:s3cret@index.example/simple", "--find-links /opt/wheels", "toolz==1.0.0")
    words = write_secrets(tmp_path, {}, lines)
    assert f"id=starburst-sources,src={tmp_path / 'sources.txt'}" in words
    assert "s3cret" not in " ".join(words)
    assert (tmp_path / "sources.txt").read_text() == lines[0]


def test_our_steps_continue_the_last_stage_of_the_users_dockerfile():
    text = dockerfile("# syntax=docker/dockerfile:1\nFROM a AS one\nFROM --platform=$X ${BASE}\nRUN true\n", ())
    assert text.startswith(
        "# syntax=docker/dockerfile:1\nFROM a AS one\nFROM --platform=$X ${BASE} AS starburst-user\n"
    )
    assert "RUN true\n\nFROM starburst-user AS starburst-base\n" in text
    named = dockerfile("from a as One\n", ())
    assert "\nFROM One AS starburst-base\n" in named
    with pytest.raises(BadArgument, match=r"no FROM.*ARG BASE"):
        dockerfile("RUN true\n", ())


def test_debian_packages_are_installed_first_and_their_names_are_validated():
    text = dockerfile(None, ("libgeos-c1v5", "gcc"))
    assert "--no-install-recommends gcc libgeos-c1v5 &&" in text
    assert text.index("apt-get") < text.index("assemble.py system")
    assert "apt-get" not in dockerfile(None, ())
    with pytest.raises(BadArgument, match="not a valid Debian package name"):
        dockerfile(None, ("gcc; rm -rf /",))


def test_another_dockerfile_or_debian_package_changes_the_recipe(tmp_path):
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


def test_files_that_a_dockerfile_does_not_copy_do_not_change_the_recipe(tmp_path):
    file, beside = tmp_path / "Dockerfile", tmp_path / "notes.txt"
    file.write_text("FROM ${BASE}\nRUN true\n")
    beside.write_text("1")
    first = BuildxBuilder(file).template
    beside.write_text("2")
    assert BuildxBuilder(file).template == first
    file.write_text("FROM ${BASE}\nRUN false\n")
    assert BuildxBuilder(file).template != first


def test_a_missing_dockerfile_is_an_invalid_argument(tmp_path):
    with pytest.raises(BadArgument, match="cannot be read"):
        _ = BuildxBuilder(tmp_path / "none" / "Dockerfile").template


def test_each_step_is_reported_once_with_platform_and_time():
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
        log.feed(line)
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
        (
            ["#9 0.1 starburst: the base image does not have Python 3.12"],
            ImageError,
            "image: the base image does not have",
        ),
        (["exec /bin/sh: exec format error"], ImageError, "qemu-user-static.*tonistiigi/binfmt"),
        (["#3 write: no space left on device"], ImageError, "docker buildx prune"),
        (
            ["ERROR: failed to solve: failed to push h/r:t: unexpected status: 401 Unauthorized"],
            RegistryDenied,
            "h/r denied docker access",
        ),
        (
            ["ERROR: failed to solve: failed to do request: Put https://h/v2/: dial tcp: connection refused"],
            RegistryUnavailable,
            "cannot reach h",
        ),
    ],
)
def test_dockers_final_output_becomes_an_error(lines, kind, words):
    error = explained(lines, "h/r", "h")
    assert type(error) is kind
    with pytest.raises(kind, match=f"(?s){words}"):
        raise error


def test_quoted_output_does_not_contain_passwords_of_urls():
    log = BuildLog(lambda kind, facts: None)
    log.feed("#9 0.2 error: could not fetch https://me:s3cret@index.example/simple/toolz/")
    assert "s3cret" not in str(log.failure("h/r", "h"))


def test_the_builders_name_is_always_a_flag(fake_docker):
    fake_docker.docker.builder(fake_docker.lock)
    assert all(BUILDER in words for words in fake_docker.said)
    assert not [words for words in fake_docker.said if {"use", "--use"}.intersection(words)]


def test_only_this_builder_accepts_source_distributions(tmp_path, monkeypatch):
    index = tmp_path / "index"
    index.mkdir()
    source(index, "compiled", compiled=True)
    wheel(index, "fine")
    monkeypatch.setenv("UV_FIND_LINKS", str(index))
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX"):
        monkeypatch.setenv(name, index.as_uri())
    environment = Environment("3.11", ("compiled", "fine"), (), origin="requirements.txt")
    resolved = resolve_platforms(environment, ("linux/arm64",), tmp_path / "cache")
    assert [each.name for each in resolved.missing["linux/arm64"]] == ["compiled"]
    with_source = from_source(resolved, tmp_path / "cache")
    assert with_source.missing == {}
    assert with_source.locks["linux/arm64"].packages == (("compiled", "1.0"), ("fine", "1.0"))
