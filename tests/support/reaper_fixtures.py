"""The reapers of the instances of an embedded AWS: the real program, as each instance's own user data installs it."""

from __future__ import annotations

import base64
import os
import shlex
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from pathlib import Path
from typing import Any

from dask_starburst.local import LocalAWS

#: Seconds between two runs of the timer.
INTERVAL = 30
#: A shutdown inside of an instance terminates it on EC2.
POWER_OFF = (
    "import boto3, sys; boto3.client('ec2', endpoint_url=sys.argv[1]).terminate_instances(InstanceIds=sys.argv[2:])"
)
UNITS = "etc/systemd/system"


def install(user_data: str, root: Path) -> Path:
    """Run a boot script that writes below `root`, with a systemctl that only records its arguments."""
    commands = root / "bin"
    commands.mkdir(parents=True)
    systemctl = commands / "systemctl"
    systemctl.write_text('#!/bin/sh\necho "$@" >> "$STARBURST_ROOT/systemctl"\n')
    systemctl.chmod(systemctl.stat().st_mode | stat.S_IXUSR)
    script = root / "boot"
    script.write_text(user_data.removeprefix("#cloud-boothook\n"))  # as cloud-init does
    environment = {"STARBURST_ROOT": str(root), "PATH": f"{commands}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-eu", script], check=True, env=environment)
    return root


def unit(root: Path, name: str) -> ConfigParser:
    """Read a systemd unit that a boot script has written."""
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keep capitals: the documented way
    parser.read_string((root / UNITS / name).read_text())
    return parser


def command(root: Path) -> list[str]:
    """Return the command of the installed service, with this Python instead of the instance's."""
    python, *rest = shlex.split(unit(root, "starburst-reaper.service")["Service"]["ExecStart"])
    assert python == "/usr/bin/python3"
    return [sys.executable, *(str(root / part[1:]) if part.startswith("/opt/") else part for part in rest)]


class Reapers:
    """The reapers of all instances.

    Parameters
    ----------
    aws : LocalAWS
        The embedded AWS.
    folder : Path
        The folder for the disks of the instances.
    group : str, optional
        Only the instances of this Auto Scaling group.
    ec2 : optional
        An EC2 client, which takes a while to create.
    """

    def __init__(self, aws: LocalAWS, folder: Path, group: str | None = None, ec2: Any = None) -> None:
        self._aws = aws
        self._folder = folder
        self._group = group
        self._ec2 = ec2 or aws.client("ec2")

    def look(self, **environment: str) -> dict[str, str]:
        """Run the reaper of every running instance once; return the output by instance."""
        now = self._aws.now()
        every = [i for i in self._aws.instances() if i["state"] == "running"]
        ages = {i["id"]: now - i["launched_at"] for i in every if self._group in (None, i["group"])}
        for identity in ages:
            self._root(identity)
        with ThreadPoolExecutor(4) as pool:
            said = pool.map(lambda identity: self.start(identity, ages[identity], **environment), ages)
            return dict(zip(ages, said, strict=True))

    def after(self, seconds: float, **environment: str) -> dict[str, str]:
        """Run all reapers before and after some virtual time; return the second output."""
        self.look(**environment)
        self._aws.advance(seconds)
        return self.look(**environment)

    def start(self, identity: str, uptime: float, *arguments: str, **environment: str) -> str:
        """Run the reaper of one instance with an uptime in seconds; return its output."""
        root, url = self._root(identity), self._aws.endpoint_url
        power_off = shlex.join([sys.executable, "-c", POWER_OFF, url, identity])
        agent = self._aws.private_url("agent", identity)
        given = ["--agent", agent, "--state", str(root / "state"), "--shutdown", power_off]
        ran = subprocess.run(
            [*command(root), *given, "--uptime", str(uptime), *arguments],
            env={
                **os.environ,
                **self._aws.environment,
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._aws.private_url("imds", identity) + "/",
                **environment,
            },
            check=True,
            capture_output=True,
            text=True,
        )
        return ran.stdout.strip()

    def _root(self, identity: str) -> Path:
        root = self._folder / identity
        if not root.exists():
            answer = self._ec2.describe_instance_attribute(InstanceId=identity, Attribute="userData")
            install(base64.b64decode(answer["UserData"]["Value"]).decode(), root)
        return root
