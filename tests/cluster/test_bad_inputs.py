"""Invalid input is refused with a helpful message, before any AWS call."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dask.config
import pytest

from dask_starburst import StarburstCluster, estimate, quote
from dask_starburst.errors import BadArgument, UnknownArgument
from dask_starburst.plan.requests.pool import PlacementSpec, PoolSpec, launch_template_data
from dask_starburst.settings import UNSET, Settings
from tests.support.placements import SPOT


@dataclass
class Door:
    """Records AWS calls."""

    url: str = ""
    calls: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def listener() -> Iterator[Door]:
    door = Door()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Do nothing."""

        def do_POST(self) -> None:
            door.calls.append(self.path)
            self.send_error(500)

        do_GET = do_POST  # noqa: N815 -- http.server's name

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    door.url = f"http://127.0.0.1:{server.server_port}"
    yield door
    server.shutdown()
    server.server_close()


@pytest.fixture
def door(listener: Door, monkeypatch: pytest.MonkeyPatch) -> Door:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    listener.calls.clear()
    return listener


def tags(**more: str) -> dict[str, Any]:
    return {"tags": more}


LONG = "a" * 300
ROWS: list[tuple[dict[str, Any], str]] = [
    # numbers
    ({"max_workers": 0}, "give 1 or more"),
    ({"max_workers": -3}, "give 1 or more"),
    ({"max_workers": "many"}, "whole number"),
    ({"max_workers": True}, "whole number"),
    ({"n_workers": 2.5}, "whole number"),
    ({"n_workers": -1}, "0 or more"),
    ({"n_workers": 501}, "max_workers=501"),
    ({"keep": {"warm": -1}}, "0 or more"),
    ({"keep": {"lease": float("nan")}}, "duration"),
    ({"keep": {"lease": True}}, "duration"),
    ({"money": {"max_hourly_cost": -1}}, "US dollars"),
    ({"money": {"max_hourly_cost": float("nan")}}, "US dollars"),
    ({"worker": {"memory_limit": True}}, "'8 GiB'"),
    ({"worker": {"memory_limit": 8}}, "with a unit"),
    ({"keep": {"lease": float("inf")}}, "duration"),
    ({"keep": {"idle_timeout": float("inf")}}, "duration"),
    ({"environment": "/no/such/requirements.txt", "quiet": True}, "/no/such/requirements.txt"),
    ({"environment": "/dev", "quiet": True}, "is a folder without any of"),
    ({"build": {"builder": "buildx", "dockerfile": "/no/such/Dockerfile"}, "quiet": True}, "/no/such/Dockerfile"),
    ({"worker": {"memory_limit": float("inf")}}, "'8 GiB'"),
    # ports
    ({"scheduler": {"port": 0}}, "1 to 65535"),
    ({"scheduler": {"port": 65536}}, "1 to 65535"),
    ({"scheduler": {"port": 8787}}, "the same"),
    ({"scheduler": {"dashboard_port": 8786}}, "the same"),
    ({"scheduler": {"port": 51678}}, "the ECS agent"),
    ({"scheduler": {"port": 22}}, "SSH"),
    ({"scheduler": {"port": "8786"}}, "whole number"),
    # who may reach the scheduler
    ({"network": {"caller": "0.0.0.0/0"}}, "opens the scheduler to"),
    ({"network": {"caller": "0.0.0.0/1"}}, "opens the scheduler to"),
    ({"network": {"caller": "128.0.0.0/7"}}, "opens the scheduler to"),
    ({"network": {"caller": "::1"}}, "IPv6"),
    ({"network": {"caller": "2001:db8::/32"}}, "IPv6"),
    ({"network": {"caller": "203.0.113.300"}}, "203.0.113.7/32"),
    ({"network": {"caller": "203.0.113.7/33"}}, "203.0.113.7/32"),
    ({"network": {"caller": "203.0.113.7\n0.0.0.0/0"}}, "203.0.113.7/32"),
    ({"network": {"caller": "224.0.0.0/8"}}, "no valid client address"),
    ({"network": {"caller": ""}}, "203.0.113.7/32"),
    ({"network": {"caller": 5}}, "203.0.113.7/32"),
    ({"network": {"subnet": "subnet-1"}}, "subnet-0123456789abcdef0"),
    ({"network": {"subnet": "vpc-0123456789abcdef0"}}, "subnet-0123456789abcdef0"),
    ({"network": {"checkip_url": "file:///etc/passwd"}}, "http"),
    ({"network": {"checkip_url": "checkip.amazonaws.com"}}, "https://"),
    ({"endpoint_url": "localhost:4566"}, "https://"),
    ({"endpoint_url": "http://host:99999"}, "https://"),
    # tags
    (tags(**{f"key{i}": "x" for i in range(41)}), "40 or fewer"),
    (tags(**{"k" * 129: "x"}), "1 to 128"),
    (tags(**{"": "x"}), "1 to 128"),
    (tags(**{" team": "x"}), "without surrounding spaces"),
    (tags(team=LONG), "up to 256"),
    (tags(**{"aws:team": "x"}), "reserved for AWS"),
    (tags(**{"AWS:team": "x"}), "reserved for AWS"),
    (tags(**{"starburst:pool": "mine"}), "reserved for dask_starburst"),
    (tags(**{"Starburst:Pool": "mine"}), "reserved for dask_starburst"),
    (tags(team="a", Team="b"), "only in case"),
    (tags(team="a;b"), "';'"),
    (tags(team="a\nb"), r"'\n'"),
    (tags(**{"te(am": "x"}), "'('"),
    (tags(team="🚀"), "letters, digits"),
    ({"tags": {"team": None}}, "{'team': 'research'}"),
    ({"tags": ["team"]}, "{'team': 'research'}"),
    # names
    ({"name": "two\nlines"}, "one line"),
    ({"name": ""}, "1 to 128"),
    ({"name": "n" * 129}, "1 to 128"),
    ({"name": "bell\x07"}, "printable"),
    ({"image": "My Image"}, "name of an image"),
    ({"image": "repo:tag\nENTRYPOINT"}, "name of an image"),
    ({"image": "host.test/Upper:1"}, "name of an image"),
    ({"image": "repo@sha256:12"}, "name of an image"),
    ({"image": "repo:"}, "name of an image"),
    ({"image": "../x"}, "name of an image"),
    ({"build": {"base": "UPPER:{python}"}}, "build.base"),
    ({"build": {"repository": "Upper"}}, "ECR repository"),
    ({"build": {"repository": "../x"}}, "ECR repository"),
    # what does not exist
    ({"region": "us-esat-1"}, "'us-east-1'"),
    ({"region": "eu-west-9"}, "'eu-west-"),
    ({"region": "Frankfurt"}, "regions of botocore"),
    ({"region": "us-east-1\n"}, "'us-east-1'"),
    ({"cloud": "local", "region": "us-esat-1"}, "'us-east-1'"),
    ({"instance_types": ["c7g.xlrge"]}, "c7g.xlarge"),
    ({"instance_types": []}, "a list"),
    ({"instance_types": {"c7g.xlarge": 1}}, "a list"),
    ({"arch": "x86_64", "instance_types": ["c7g.xlarge"]}, "arm64"),
    # GPUs
    ({"arch": "x86_64", "instance_types": ["g5.xlarge"]}, "not supported yet"),
    ({"arch": "arm64", "instance_types": ["g5g.xlarge"]}, "not supported yet"),
    ({"arch": "x86_64", "instance_types": ["c7i.xlarge", "p4d.24xlarge"]}, "not supported yet"),
    ({"arch": "x86_64", "instance_types": ["inf2.xlarge"]}, "not supported yet"),
    ({"arch": "x86_64", "scheduler": {"instance_type": "g4dn.xlarge"}}, "not supported yet"),
    ({"worker": {"gpus": 1}}, "GPUs are not supported yet"),
    ({"gpus": 1}, "GPUs are not supported yet"),
    # names of settings
    ({"n_worker": 2}, "n_workers"),
    ({"instance_type": "c7g.large"}, "instance_types"),
    ({"idle_timeot": 5}, "did you mean keep={'idle_timeout': …}?"),
    ({"spot_polcy": "spot"}, "did you mean spot={'policy': …}?"),
    ({"policy": "spot"}, "did you mean spot={'policy': …}?"),
    ({"image_ttl": 5}, "did you mean build={'image_ttl_days': …}?"),
    ({"worker": {"idle_timeout": 5}}, "did you mean keep={'idle_timeout': …}?"),
    ({"port": 8786}, "did you mean scheduler={'port': …}?"),
    ({"asyncronous": True}, "asynchronous"),
    ({"nthreads": 4}, "worker={'nthreads'"),
    ({"dashboard_port": 1}, "scheduler={'dashboard_port'"),
    ({"worker": {"nthread": 4}}, "worker.nthreads"),
    ({"network": {"caler": "203.0.113.7"}}, "network.caller"),
    ({"worker": {4: 4}}, "worker.4 is not a setting"),
    # groups
    ({"worker": 4}, "{'nthreads': 4}"),
    ({"scheduler": []}, "mapping"),
    ({"adaptive": "fast"}, "mapping"),
    ({"timeouts": 30}, "mapping"),
    # null where it means nothing
    ({"arch": None}, "arch=None (null) is not valid"),
    ({"max_workers": None}, "whole number"),
    ({"keep": {"warm": None}}, "leave it out"),
    ({"keep": {"lease": None}}, "a duration"),
    ({"quiet": None}, "true or false"),
    ({"tags": None}, "{'team': 'research'}"),
    ({"worker": None}, "mapping"),
    ({"adaptive": {"minimum": None}}, "adaptive.minimum=None"),
    ({"adaptive": {"interval": None}}, "a duration"),
    ({"scheduler": {"port": None}}, "whole number"),
    ({"storage": {"volume_size": None}}, "whole number"),
    ({"build": {"add": None}}, "a list such as"),
]


def id_of(given: dict[str, Any]) -> str:
    return repr(given)[:60]


@pytest.mark.parametrize(("given", "word"), ROWS, ids=[id_of(given) for given, _ in ROWS])
def test_a_bad_input_is_refused_before_aws_is_called(given: dict[str, Any], word: str, door: Door) -> None:
    where = {} if "cloud" in given or "region" in given else {"endpoint_url": door.url, "region": "us-east-1"}
    with pytest.raises(BadArgument) as caught:
        StarburstCluster(**{**where, **given})
    text = str(caught.value)
    assert word in text
    assert text.isprintable()
    assert door.calls == []


@pytest.mark.parametrize("given", [{"n_worker": 2}, {"worker": {"nthread": 4}}])
def test_a_misspelt_name_is_a_type_error_too(given: dict[str, Any]) -> None:
    for refuse in (Settings.load, quote, lambda **more: estimate(len, ["a"], 2, **more)):
        with pytest.raises(TypeError) as caught:
            refuse(**given)
        assert isinstance(caught.value, UnknownArgument)


def test_a_quote_and_an_estimate_refuse_gpus_as_the_cluster_does() -> None:
    for refuse in (quote, lambda **more: estimate(len, ["a"], 2, **more)):
        with pytest.raises(BadArgument, match="not supported yet"):
            refuse(arch="x86_64", instance_types=["g5.xlarge"])


# -- valid input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "range_"),
    [
        ("203.0.113.7", "203.0.113.7/32"),
        (" 203.0.113.7 ", "203.0.113.7/32"),
        ("203.0.113.7/24", "203.0.113.0/24"),
        ("10.0.0.0/8", "10.0.0.0/8"),
    ],
)
def test_the_callers_range_is_normalized_as_ec2_does(caller: str, range_: str) -> None:
    assert Settings.load(network={"caller": caller}).network.caller == range_


def test_forty_tags_of_all_allowed_characters_are_accepted() -> None:
    given = {f"Team {i}_.:/=+-@é": "Forschung & ".replace("&", "@") + "x" * 200 for i in range(40)}
    assert Settings.load(tags=given).tags == given


def test_a_users_tag_overrides_the_default_name() -> None:
    spec = PoolSpec(
        *("us-east-1", "subnet-1", "vpc-1", (PlacementSpec(SPOT, "ami-1", ("c7g.large",)),), 30, "sg-1"),
        *("profile", "script"),
        tags={"Name": "mine"},
    )
    for specification in launch_template_data(spec, "starburst-1-0", SPOT, [], "")["TagSpecifications"]:
        names = [tag["Value"] for tag in specification["Tags"] if tag["Key"] == "Name"]
        assert names == ["mine"]


# -- null -----------------------------------------------------------------------------------------

NULLABLE = (
    *("cloud", "endpoint_url", "region", "profile", "name", "image", "environment"),
    *("instance_types", "n_workers"),
)
SET_IN_GROUPS = {
    "worker.nthreads": 3,
    "adaptive.scale-down-after": "9 s",
    "build.image-ttl-days": 5,
    "money.max-total-cost": 7.0,
    "keep.idle-timeout": "5 s",
}
SET = {"n-workers": 2, "name": "one"}


@pytest.mark.parametrize("name", NULLABLE)
def test_none_is_null_whatever_the_configuration_says(name: str) -> None:
    with dask.config.set({f"starburst.{key}": value for key, value in SET.items()}):
        given: dict[str, Any] = {name: None}
        assert getattr(Settings.load(**given), name) is None


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("worker", "nthreads"),
        ("worker", "memory_limit"),
        ("network", "caller"),
        ("adaptive", "scale_down_after"),
        ("money", "max_hourly_cost"),
        ("money", "max_total_cost"),
        ("money", "cost_alert_threshold"),
        ("keep", "idle_timeout"),
        ("keep", "no_client_timeout"),
        ("build", "image_ttl_days"),
    ],
)
def test_none_in_a_group_is_null(group: str, name: str) -> None:
    with dask.config.set({f"starburst.{key}": value for key, value in SET_IN_GROUPS.items()}):
        given: dict[str, Any] = {group: {name: None}}
        assert getattr(getattr(Settings.load(**given), group), name) is None


def test_arguments_that_are_not_given_come_from_the_configuration() -> None:
    with dask.config.set({"starburst.keep.idle-timeout": "5 s", "starburst.arch": "x86_64"}):
        settings = Settings.load(keep={"idle_timeout": UNSET}, arch=UNSET)
        assert (settings.keep.idle_timeout, settings.arch) == (5.0, "x86_64")
        with dask.config.set({"starburst.keep.idle-timeout": None}):
            assert Settings.load().keep.idle_timeout is None


# -- configuration --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "word"),
    [
        ("DASK_STARBURST", "5", "starburst=5 must be a mapping"),
        ("DASK_STARBURST__WORKER", "4", "worker=4 must be a mapping"),
        ("DASK_STARBURST__SCHEDULER", "[]", "scheduler=[] must be a mapping"),
        ("DASK_STARBURST__N_WORKER", "4", "did you mean n_workers?"),
        ("DASK_STARBURST__WORKER__NTHREAD", "4", "did you mean worker.nthreads?"),
        ("DASK_STARBURST__SPOT_POLICY", "cheap", "spot.policy='cheap'"),
        ("DASK_STARBURST__SPOT__POLICY", "cheap", "spot.policy='cheap'"),
    ],
)
def test_an_invalid_configuration_is_refused_like_a_keyword(variable: str, value: str, word: str) -> None:
    script = "from dask_starburst.settings import Settings; Settings.load()"
    env = {**os.environ, variable: value}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert word in done.stderr
    assert "BadArgument" in done.stderr or "UnknownArgument" in done.stderr
