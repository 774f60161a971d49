"""Terminate the instance that this runs on when it has had no ECS task for too long.

The boot script installs this program, and systemd runs it every 30 s. It needs only what Amazon Linux 2023 provides:
Python 3.9 as /usr/bin/python3, for the lifetime of that release (docs.aws.amazon.com/linux/al2023/ug/python.html).
It uses neither boto3 nor the AWS CLI.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import hmac
import json
import os
import re
import shlex
import subprocess
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

#: docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-agent-introspection.html
AGENT = "http://localhost:51678"
METADATA = "http://169.254.169.254/"
#: Under /run, which is cleared at boot, when the monotonic clock restarts.
STATE = "/run/starburst-reaper.json"
#: The tag of a group that keeps idle instances. Its value is the end of that time in seconds since the epoch.
KEEP_IDLE_TAG = "starburst:warm-until"
ATTEMPTS = 3
_TIMEOUT = 5
_TROUBLE = (OSError, HTTPException, ValueError, KeyError, TypeError)

_open = build_opener(ProxyHandler({})).open  # never through a proxy


@dataclasses.dataclass(frozen=True)
class State:
    """State that is saved between two runs. Times are seconds since boot.

    Parameters
    ----------
    busy : float
        When a task was last present. The boot counts as one.
    answered : float
        When the agent last listed its tasks.
    failures : int
        How many requests to terminate the instance have failed in a row.
    """

    busy: float = 0.0
    answered: float = 0.0
    failures: int = 0


def idle_time(state: State, tasks: bool | None, now: float) -> tuple[State, float]:
    """Return the next state, and for how many seconds the instance has been idle.

    `tasks` is whether the agent has a task, None if it does not answer. Then only the time since its last answer
    counts, because it may have had a task in between.
    """
    if tasks:
        return State(now, now), 0.0
    if tasks is None:
        return state, now - state.answered
    return dataclasses.replace(state, answered=now), now - state.busy


def any_task(agent: str) -> bool | None:
    """Return whether the agent has a task that has not stopped; None if it does not answer.

    The agent does not answer before it has registered. It answers 404 while a task pulls its image, and for hours after
    a failed pull, because it finds no containers then (amazon-ecs-agent, GetTasksMetadata).
    """
    try:
        with _open(f"{agent}/v1/tasks", timeout=_TIMEOUT) as reply:
            return any(task["KnownStatus"] != "STOPPED" for task in json.load(reply)["Tasks"])
    except _TROUBLE:
        return None


def keeps_idle_instances(group: str) -> bool:
    """Return whether the group keeps idle instances for the next cluster; False if AWS does not answer."""
    form = {
        "Action": "DescribeTags",
        "Filters.member.1.Name": "auto-scaling-group",
        "Filters.member.1.Values.member.1": group,
        "Filters.member.2.Name": "key",
        "Filters.member.2.Values.member.1": KEEP_IDLE_TAG,
    }
    try:
        answer, now = _call(form)
    except _TROUBLE:
        return False
    return any(float(until) > now for until in re.findall(r"<Value>(\d+)</Value>", answer))


def terminate() -> None:
    """Terminate this instance through Auto Scaling, without a replacement."""
    form = {
        "Action": "TerminateInstanceInAutoScalingGroup",
        "InstanceId": _metadata("instance-id"),
        "ShouldDecrementDesiredCapacity": "true",
    }
    _call(form)


def _call(form: dict[str, str]) -> tuple[str, float]:
    """Call Auto Scaling; return the answer and AWS's time in seconds since the epoch."""
    region = _metadata("placement/region")
    domain = _metadata("services/domain")
    url = os.environ.get("AWS_ENDPOINT_URL", f"https://autoscaling.{region}.{domain}").rstrip("/") + "/"
    role = _metadata("iam/security-credentials/")
    credentials = json.loads(_metadata(f"iam/security-credentials/{role}"))
    body = urlencode({**form, "Version": "2011-01-01"})
    headers = signed(url, body, region, credentials, time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
    try:
        with _open(Request(url, body.encode(), headers), timeout=_TIMEOUT) as reply:
            return reply.read().decode(), parsedate_to_datetime(reply.headers["Date"]).timestamp()
    except HTTPError as error:
        raise OSError(f"{error}: {error.read(1000).decode(errors='replace')}") from error


def signed(url: str, body: str, region: str, credentials: dict[str, str], stamp: str) -> dict[str, str]:
    """Return the signed headers of a POST to Auto Scaling.

    Signature Version 4, docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. curl would
    show the secret on its command line.
    """
    headers = {
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
        "host": urlsplit(url).netloc,
        "x-amz-date": stamp,
        "x-amz-security-token": credentials["Token"],
    }
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    request = "\n".join(("POST", "/", "", lines, names, _sha256(body)))
    scope = (stamp[:8], region, "autoscaling", "aws4_request")
    text = "\n".join(("AWS4-HMAC-SHA256", stamp, "/".join(scope), _sha256(request)))
    key = ("AWS4" + credentials["SecretAccessKey"]).encode()
    for part in (*scope, text):
        key = hmac.digest(key, part.encode(), "sha256")
    who = f"Credential={credentials['AccessKeyId']}/{'/'.join(scope)}"
    headers["authorization"] = f"AWS4-HMAC-SHA256 {who}, SignedHeaders={names}, Signature={key.hex()}"
    return headers


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _metadata(path: str) -> str:
    root = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", METADATA).rstrip("/") + "/latest/"
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    with _open(Request(root + "api/token", method="PUT", headers=lifetime), timeout=_TIMEOUT) as reply:
        token = {"X-aws-ec2-metadata-token": reply.read().decode()}
    with _open(Request(f"{root}meta-data/{path}", headers=token), timeout=_TIMEOUT) as reply:
        return str(reply.read().decode())


def _load(path: str, now: float, limit: float) -> State:
    try:
        with open(path, encoding="utf-8") as file:
            state = State(**json.load(file))
        if state.answered <= now:
            return state
    except _TROUBLE:
        pass
    # The first run follows soon after the boot. A later run without a state has lost it and starts the time again.
    return State() if now < limit else State(now, now)


def _save(path: str, state: State) -> None:
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(state), file)
    os.replace(path + ".new", path)


def main() -> None:
    """Check once, and terminate the instance if it has been idle too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--idle-limit", type=float, required=True, help="seconds without a task")
    parser.add_argument("--group", default="", help="the instance's Auto Scaling group, which may keep it when idle")
    parser.add_argument("--agent", default=AGENT, help="URL of the ECS agent's introspection endpoint")
    parser.add_argument("--state", default=STATE, help="state file")
    parser.add_argument("--shutdown", default="shutdown -h now", help="last resort, a shell command")
    parser.add_argument("--uptime", type=float, default=None, help="seconds since boot")
    given = parser.parse_args()
    # Monotonic time, on Linux the time since boot, stops while an instance hibernates.
    now = time.monotonic() if given.uptime is None else given.uptime
    before = _load(given.state, now, given.idle_limit)
    state, idle = idle_time(before, any_task(given.agent), now)
    if idle < given.idle_limit:
        _save(given.state, dataclasses.replace(state, failures=0))
        return
    if given.group and keeps_idle_instances(given.group):
        _save(given.state, State(now, now))  # counts as busy: checked again after the idle limit
        return
    failures = state.failures + 1
    _save(given.state, dataclasses.replace(state, failures=failures))  # first: a hanging attempt has failed too
    try:
        terminate()
        print(f"no task for {idle:.0f} s: terminating this instance", flush=True)
        _save(given.state, dataclasses.replace(state, failures=0))
        return
    except _TROUBLE as error:
        print(f"no task for {idle:.0f} s, but AWS did not terminate this instance: {error!r}", flush=True)
    if failures >= ATTEMPTS:
        # The last resort: the group replaces an instance that shuts down by itself. But an instance that cannot reach
        # AWS is unusable, and its replacement may work. Our launch templates terminate on shutdown.
        print(f"shutting down: {given.shutdown}", flush=True)
        subprocess.run(shlex.split(given.shutdown), check=True)


if __name__ == "__main__":
    main()
