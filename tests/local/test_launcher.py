"""Start and stop of the embedded AWS, for every way in which the user's process can end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from botocore.exceptions import ClientError

from dask_starburst.errors import LocalAWSError
from dask_starburst.local import LocalAWS
from dask_starburst.local.launcher import Server, server_options
from tests.support.cluster_asserts import alive

USER = """
import os, sys, time
from dask_starburst.local import LocalAWS
aws = LocalAWS()
aws.start()
pid = os.fork()
if pid:
    print(aws.pid, pid, flush=True)
time.sleep(300)
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAWS]:
    """An embedded AWS started in a folder whose modules must not shadow the server's."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "moto.py").write_text("raise SystemExit('mine')")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with LocalAWS(region="eu-central-1") as running:
            yield running


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


def test_it_answers_at_its_url(aws: LocalAWS) -> None:
    assert aws.client("ecs").list_clusters()["clusterArns"] == []
    assert aws.endpoint_url.startswith("http://127.0.0.1:")
    assert aws.network.startswith("127.")
    assert alive(aws.pid)


def test_the_status_is_typed_and_counts_calls(aws: LocalAWS) -> None:
    before = aws.status().calls.get("ecs:ListClusters", 0)
    aws.client("ecs").list_clusters()
    status = aws.status()
    assert status.calls["ecs:ListClusters"] == before + 1
    assert (status.pid, status.region, status.network) == (aws.pid, "eu-central-1", aws.network)
    assert status.instances_running == status.instances_pending == status.tasks_running == status.desired == 0
    assert status.containers == {}


def test_its_clock_can_be_advanced_and_sped_up(aws: LocalAWS) -> None:
    before = aws.now()
    aws.advance(3600)
    assert 3600 <= aws.now() - before < 3660
    aws.set_speed(1000.0)
    before = aws.now()
    until(lambda: aws.now() - before > 100)
    aws.set_speed(1.0)
    assert aws.status().speed == 1.0


def test_a_refused_control_request_has_the_reason(aws: LocalAWS) -> None:
    with pytest.raises(LocalAWSError, match="refused clock"):
        aws.advance(-1)


def test_an_injected_error_happens_once(aws: LocalAWS) -> None:
    aws.inject("ecs:ListClusters", "ClusterNotFoundException", "Made up.")
    ecs = aws.client("ecs")
    with pytest.raises(ClientError, match="Made up"):
        ecs.list_clusters()
    assert ecs.list_clusters()["clusterArns"] == []


def test_a_child_process_uses_it_through_environment_variables(aws: LocalAWS) -> None:
    program = "import boto3; print(boto3.client('ecs').list_clusters()['clusterArns'])"
    environment = {"PATH": os.environ["PATH"], **aws.environment}
    assert subprocess.check_output([sys.executable, "-c", program], env=environment, text=True) == "[]\n"


def test_the_user_s_aws_configuration_does_not_redirect_calls(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL_ECS": "http://127.0.0.1:9",
        "AWS_PROFILE": "of-the-company",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    assert aws.client("ecs").list_clusters()["clusterArns"] == []
    assert aws.session().client("sts").get_caller_identity()["Account"] == "123456789012"
    assert aws.status().pid == aws.pid


def test_concurrent_starts_make_one_server() -> None:
    made = LocalAWS()
    threads = [threading.Thread(target=made.start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pid = made.pid
    assert made.start().pid == pid
    made.stop()
    made.stop()
    assert not alive(pid)
    with pytest.raises(LocalAWSError, match="not running"):
        _ = made.endpoint_url


def test_stopping_a_connected_handle_does_not_stop_the_server(aws: LocalAWS) -> None:
    with LocalAWS.connect(aws.endpoint_url) as handle:
        assert handle.pid == aws.pid
        assert handle.region == "eu-central-1"
        assert handle.scheduler_port == aws.scheduler_port
    assert alive(aws.pid)


def test_connecting_to_no_server_is_a_clear_error() -> None:
    with pytest.raises(LocalAWSError, match=r"No embedded AWS answers at http://127\.0\.0\.1:9"):
        LocalAWS.connect("http://127.0.0.1:9")


def test_a_server_that_does_not_start_reports_its_last_output() -> None:
    with pytest.raises(LocalAWSError, match=r"(?s)exit code 2.*invalid choice: 'slow'"):
        LocalAWS(timing="slow").start()


def test_a_server_that_starts_too_slowly_is_reported() -> None:
    options = server_options(region="us-east-1", timing="fast", speed=1.0, seed=0, aliases=None, processes=True)
    with pytest.raises(LocalAWSError, match=r"did not answer within 0\.01 s"):
        Server(options).wait_for_handshake(0.01)


def test_the_server_ends_with_a_killed_parent_despite_a_forked_child() -> None:
    user = subprocess.Popen([sys.executable, "-c", USER], stdout=subprocess.PIPE, text=True)
    assert user.stdout is not None
    server, child = map(int, user.stdout.readline().split())
    helpers = [each.pid for each in psutil.Process(server).children(recursive=True)]
    assert helpers, "the guard should be running"
    user.kill()
    user.wait()
    until(lambda: not any(map(alive, [server, *helpers])))
    assert alive(child)
    os.kill(child, signal.SIGKILL)
    user.stdout.close()


def _stop(aws: LocalAWS) -> None:
    aws.stop()


def test_a_server_ends_if_its_parent_dies_before_it_is_ready() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "dask_starburst.local"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.close()  # the parent is gone and cannot read the handshake
    try:
        assert process.wait(100) == 1
    finally:
        process.kill()


def test_a_forked_child_cannot_stop_it(aws: LocalAWS) -> None:
    child = multiprocessing.get_context("fork").Process(target=_stop, args=(aws,))
    child.start()
    child.join()
    assert child.exitcode == 0
    assert aws.status().pid == aws.pid


def test_the_command_line_options_are_parsed_by_the_server() -> None:
    options = server_options(region="r", timing="fast", speed=2.0, seed=7, aliases=False, port=80)
    expected = ["--port", "80", "--region", "r", "--timing", "fast", "--speed", "2.0", "--seed", "7", "--no-aliases"]
    assert options == expected
