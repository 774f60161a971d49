"""``starburst local``, as run from a shell."""

from __future__ import annotations

import os
import shlex
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import boto3
import psutil
import pytest
from click.testing import CliRunner, Result

from dask_starburst.cli.local import local
from dask_starburst.local import LocalAWS, endpoints
from tests.support.cluster_asserts import alive, wait_until


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A separate state folder; servers left by a failed test are stopped."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder / "dask-starburst" / "local"
        starburst("down", "--yes")


def starburst(*words: str) -> Result:
    return CliRunner().invoke(local, words)


def pid_of(up: dict[str, str]) -> int:
    return endpoints.read(up["AWS_ENDPOINT_URL"]).pid


def exports(result: Result) -> dict[str, str]:
    assert result.exit_code == 0, result.output
    words = shlex.split(result.stdout)
    assert words[::2] == ["export"] * (len(words) // 2)
    return dict(word.split("=", 1) for word in words[1::2])


@pytest.fixture
def up(state: Path) -> dict[str, str]:
    return exports(starburst("up", "--region", "eu-west-1"))


def test_standard_output_is_shell_code_and_standard_error_is_for_the_user(up: dict[str, str]) -> None:
    assert up["AWS_DEFAULT_REGION"] == "eu-west-1"
    result = starburst("up")
    for words in ("LocalAWS.connect", "aws ecs list-clusters", "starburst local down", up["AWS_ENDPOINT_URL"]):
        assert words in result.stderr


def test_the_printed_variables_direct_boto3_to_it(up: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in up.items():
        monkeypatch.setenv(name, value)
    assert boto3.Session().client("ecs").list_clusters()["clusterArns"] == []


def test_a_second_up_reports_the_running_one(up: dict[str, str]) -> None:
    result = starburst("up")
    assert "is already running" in result.stderr
    assert exports(result) == up


def test_the_status_shows_containers_and_calls(up: dict[str, str]) -> None:
    boto3.client("ecs", **_where(up)).list_clusters()
    result = starburst("status")
    assert result.exit_code == 0
    for words in (up["AWS_ENDPOINT_URL"], "eu-west-1", "0 running, 0 pending", "ecs:ListClusters"):
        assert words in result.output
    assert str(pid_of(up)) in result.output


def test_down_stops_it_and_reports_what_was_stopped(up: dict[str, str], state: Path) -> None:
    server = psutil.Process(pid_of(up))
    helpers = server.children(recursive=True)
    result = starburst("down", "--yes")
    assert result.exit_code == 0
    where = up["AWS_ENDPOINT_URL"]
    assert result.output == f"Stopped the embedded AWS at {where}: 0 instances, 0 tasks, 0 processes.\n"
    assert not alive(server.pid)
    wait_until(lambda: not any(alive(each.pid) for each in helpers), 60, "what it had started ends")
    assert not list(state.glob("*.json"))


def test_down_stops_nothing_without_confirmation(up: dict[str, str], state: Path) -> None:
    where, pid = up["AWS_ENDPOINT_URL"], pid_of(up)
    LocalAWS.connect(where).client("ecs").create_cluster(clusterName="of-another-program")
    for answer in ("", "n\n"):  # a script has no input
        result = CliRunner().invoke(local, ["down"], input=answer)
        assert result.exit_code == 1
        for words in (where, str(pid), "0 instances, 0 tasks", "of-another-program", f"starburst local down {where}"):
            assert words in result.stderr
        assert alive(pid)
    assert starburst("down", "http://127.0.0.1:9").exit_code == 1
    assert alive(pid)
    assert starburst("down", where).exit_code == 0
    assert not alive(pid)
    again = exports(starburst("up"))
    assert CliRunner().invoke(local, ["down"], input="y\n").exit_code == 0
    assert not list(state.glob("*.json")), again


def test_down_does_not_stop_the_embedded_aws_of_a_program(state: Path) -> None:
    starburst("down", "--yes")
    with LocalAWS() as aws:
        assert starburst("down", "--yes").output == "No embedded AWS is running.\n"
        assert aws.status().pid == aws.pid
        assert starburst("status", aws.endpoint_url).exit_code == 0


def test_only_the_owner_can_read_its_state_file(up: dict[str, str], state: Path) -> None:
    files = [state, *state.iterdir()]
    assert len(files) == 3, "the folder, the state file, the log"
    assert {oct(stat.S_IMODE(file.stat().st_mode)) for file in files[1:]} == {"0o600"}
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    assert not any(up["AWS_SECRET_ACCESS_KEY"] in file.read_text() for file in files[1:])
    assert endpoints.read(up["AWS_ENDPOINT_URL"]).token not in (state / "up.log").read_text()


@pytest.mark.usefixtures("state")
def test_if_none_is_running_status_fails_and_down_does_nothing() -> None:
    starburst("down", "--yes")
    status = starburst("status")
    assert status.exit_code == 1
    assert "starburst local up" in status.output
    down = starburst("down")
    assert (down.exit_code, down.output) == (0, "No embedded AWS is running.\n")


def test_one_that_was_killed_is_forgotten(up: dict[str, str]) -> None:
    server = psutil.Process(pid_of(up))
    helpers = server.children(recursive=True)
    server.kill()
    assert os.waitpid(server.pid, 0)[0] == server.pid
    assert starburst("status").exit_code == 1
    assert not psutil.wait_procs(helpers, timeout=90)[1]
    assert starburst("down").exit_code == 0


@pytest.mark.parametrize(
    "content",
    ["", "no json", "{}", '{"url": "http://127.0.0.1:9", "pid": 1, "region": "r", "token": "t", "stays": true}'],
)
def test_an_invalid_state_file_is_ignored(state: Path, content: str) -> None:
    starburst("down", "--yes")
    (state / "9.json").write_text(content)
    assert starburst("status").exit_code == 1
    assert starburst("down").exit_code == 0
    (state / "9.json").unlink(missing_ok=True)


def test_a_port_in_use_is_an_error_with_the_server_s_output(state: Path) -> None:
    starburst("down", "--yes")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = starburst("up", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == 1
    assert "Address already in use" in result.output
    assert not list(state.glob("*.json"))


@pytest.mark.parametrize("words", [("--timing", "slow"), ("--speed", "0"), ("--port", "70000")])
def test_an_invalid_option_is_refused(words: tuple[str, ...]) -> None:
    assert starburst("up", *words).exit_code == 2


def _where(up: dict[str, str]) -> dict[str, str]:
    return {
        "endpoint_url": up["AWS_ENDPOINT_URL"],
        "region_name": up["AWS_DEFAULT_REGION"],
        "aws_access_key_id": up["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": up["AWS_SECRET_ACCESS_KEY"],
    }


@pytest.mark.parametrize("speed", ["nan", "inf", "0", "-1"])
def test_a_speed_that_is_not_a_positive_number_is_refused(speed: str):
    done = CliRunner().invoke(local, ["up", "--speed", speed])
    assert done.exit_code == 2
    assert "Invalid value for '--speed'" in done.output
