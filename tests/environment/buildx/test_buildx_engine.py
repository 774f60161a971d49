"""The buildx builder with a real docker engine and a real registry; arm64 is built under emulation."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from benchmarks.harness.images.containers import run, unpack
from benchmarks.harness.images.engine import Engine, running_engine
from benchmarks.harness.images.fixtures import ROOT, Built, ImageFixtures, debian_base
from benchmarks.harness.images.registry import serving, why_no_registry
from benchmarks.harness.images.rootfs import PLATFORMS
from dask_starburst.environment.build.base_image import BaseImage
from dask_starburst.environment.build.direct import DirectBuilder
from dask_starburst.environment.build.interface import Destination, Image, Order
from dask_starburst.environment.buildx import context
from dask_starburst.environment.buildx.builder import BuildxBuilder
from dask_starburst.environment.buildx.docker import BUILDER, Docker
from dask_starburst.environment.capture import wheels
from dask_starburst.environment.capture.model import Environment, OwnModule
from dask_starburst.environment.registry import documents
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.resolve.lock import Lock
from dask_starburst.errors import ImageError, RegistryDenied
from dask_starburst.local import LocalAWS
from dask_starburst.plan.images.recipe import recipe_hash

pytestmark = [pytest.mark.buildx, pytest.mark.timeout(600)]
SMALL = Environment("3.11", ("toolz==1.0.0",), ())


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Iterator[Engine]:
    with running_engine(tmp_path_factory.mktemp("engine")) as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def image_fixtures(tmp_path_factory) -> Iterator[ImageFixtures]:
    if why := why_no_registry():
        pytest.skip(why)
    with serving(tmp_path_factory.mktemp("registry")) as host:
        yield debian_base(Registry(host), tmp_path_factory.mktemp("image_fixtures"))


@dataclass
class DockerBuilds:
    """Build with docker, and record the reports."""

    engine: Engine
    image_fixtures: ImageFixtures
    cache: Path
    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def order(self, environment: Environment, *platforms: str) -> Order:
        order = self.image_fixtures.order(environment, self.cache)
        return replace(order, recipe=replace(order.recipe, platforms=platforms or tuple(PLATFORMS)))

    def build(self, order: Order, repository: str, registry: Registry | None = None, **how: Any) -> Built:
        self.said.clear()
        registry = registry or Registry(self.image_fixtures.registry.host)
        builder = BuildxBuilder(options=self.engine.options, cache=self.cache, **how)
        to = Destination(registry, repository, recipe_hash(order.recipe))
        image: Image = builder.build(order, to, lambda kind, facts: self.said.append((kind, dict(facts))))
        return Built(image, order, registry, repository, [*self.said])


@pytest.fixture(scope="module")
def docker_builds(engine, image_fixtures) -> DockerBuilds:
    return DockerBuilds(engine, image_fixtures, image_fixtures.shared / "cache")


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Environment:
    """An index package, a local package, and a module of the user."""
    folder = tmp_path_factory.mktemp("mine")
    (folder / "pyproject.toml").write_text('[project]\nname = "mine"\nversion = "1.0"\n')
    (folder / "mine.py").write_text("answer = 42\n")
    wheel = wheels.of_folder(folder, tmp_path_factory.mktemp("wheels"), "local folder")
    module = tmp_path_factory.mktemp("own") / "helpers.py"
    module.write_text("word = 'hello'\n")
    own = OwnModule("helpers", module, hashlib.sha256(module.read_bytes()).hexdigest())
    return replace(SMALL, wheels=(wheel,), modules=(own,))


@pytest.fixture(scope="module")
def built(docker_builds, environment) -> Built:
    return docker_builds.build(docker_builds.order(environment), "worker")


def config_of(built: Built, platform: str) -> dict[str, Any]:
    digest = built.manifest(platform).document["config"]["digest"]
    found: dict[str, Any] = json.loads(built.registry.blob(built.repository, digest))
    return found


def in_image(built: Built, platform: str, folder: Path, script: str) -> str:
    config = unpack(built.registry, built.repository, built.manifest(platform).digest, folder)
    status, said = run(folder, config, ["python", "-c", script])
    assert status == 0, said
    return said


def test_the_index_has_both_platforms_and_nothing_else_and_skopeo_agrees(built):
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    name = f"docker://{built.registry.host}/worker:{built.image.tag}"
    raw = subprocess.run(["skopeo", "inspect", "--raw", "--tls-verify=false", name], check=True, capture_output=True)
    assert f"sha256:{hashlib.sha256(raw.stdout).hexdigest()}" == built.image.digest
    there = [each["platform"] for each in json.loads(raw.stdout)["manifests"]]
    assert there == [{"os": "linux", "architecture": "amd64"}, {"os": "linux", "architecture": "arm64"}]


def test_it_runs_like_an_image_of_the_direct_builder(built, image_fixtures, environment, tmp_path):
    order = image_fixtures.order(environment, tmp_path)
    to = Destination(Registry(image_fixtures.registry.host), "direct", "1")
    direct = Built(DirectBuilder(tmp_path).build(order, to, lambda kind, facts: None), order, to.registry, "direct")
    for platform in PLATFORMS:
        ours, theirs = config_of(built, platform)["config"], config_of(direct, platform)["config"]
        for name in ("User", "WorkingDir", "StopSignal", "Labels", "Cmd"):
            assert ours[name] == theirs[name], name
        assert sorted(ours["Env"]) == sorted(theirs["Env"])
        assert not ours.get("Entrypoint")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_index_packages_local_packages_and_modules_are_installed_and_compiled(built, platform, tmp_path):
    script = (
        "import getpass, os, sys, json, mine, helpers, toolz;"
        "compiled = [os.path.exists(m.__cached__) for m in (mine, helpers, toolz, json)];"
        "print(getpass.getuser(), os.getuid(), sys.prefix, mine.answer, helpers.word, toolz.__version__, all(compiled))"
    )
    said = in_image(built, platform, tmp_path, script)
    assert said.split() == ["dask", "1000", "/opt/venv", "42", "hello", "1.0.0", "True"]


def test_each_step_is_reported_with_its_platform(built):
    done = {(f["platform"], f["name"]) for kind, f in built.said if kind == "step" and f["state"] == "done"}
    assert done >= {(platform, name) for platform in PLATFORMS for name in ("system", "packages", "own packages")}
    assert ("pushing", {"text": "pushing manifest"}) in built.said


def test_an_unchanged_image_is_neither_rebuilt_nor_pushed(built, docker_builds, environment):
    again = docker_builds.build(docker_builds.order(environment), "worker")
    assert (again.image.digest, again.image.bytes_uploaded) == (built.image.digest, 0)
    ends = {f["state"] for kind, f in again.said if kind == "step" and "assemble" in f["name"]}
    assert ends <= {"begun", "kept"}
    assert built.image.bytes_uploaded > 1_000_000


def test_it_works_from_any_folder_and_ignores_the_users_selected_builder(
    built, docker_builds, environment, monkeypatch
):
    monkeypatch.chdir("/")
    monkeypatch.setenv("BUILDX_BUILDER", "another")
    assert docker_builds.build(docker_builds.order(environment), "worker").image.digest == built.image.digest


def test_a_rebuild_under_another_tag_has_another_digest(built, docker_builds, environment):
    order = docker_builds.order(environment)
    to = Destination(Registry(docker_builds.image_fixtures.registry.host), "worker", "another")
    builder = BuildxBuilder(options=docker_builds.engine.options, cache=docker_builds.cache)
    assert builder.build(order, to, lambda kind, facts: None).digest != built.image.digest


def test_packages_are_installed_on_the_users_dockerfile(docker_builds, tmp_path):
    (tmp_path / "data.txt").write_text("carried along")
    (tmp_path / "Dockerfile").write_text("ARG BASE\nFROM ${BASE} AS mine\nCOPY data.txt /data.txt\nENV ANSWER=42\n")
    built = docker_builds.build(docker_builds.order(SMALL, "linux/amd64"), "users", dockerfile=tmp_path / "Dockerfile")
    # With one platform, docker pushes no index.
    assert built.image.platforms == ("linux/amd64",)
    manifest = built.registry.manifest("users", built.image.digest)
    assert manifest is not None
    config = unpack(built.registry, "users", built.image.digest, tmp_path / "image")
    script = "import os, toolz; print(open('/data.txt').read(), os.environ['ANSWER'], toolz.__version__)"
    assert run(tmp_path / "image", config, ["python", "-c", script]) == (0, "carried along 42 1.0.0\n")


def test_the_error_of_a_failed_step_has_dockers_last_lines_and_nothing_is_tagged(docker_builds, tmp_path):
    (tmp_path / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nRUN echo what went wrong; exit 3\n")
    order = docker_builds.order(SMALL, "linux/amd64")
    with pytest.raises(ImageError, match=r"(?s)exit code: 3.*what went wrong"):
        docker_builds.build(order, "failing", dockerfile=tmp_path / "Dockerfile")
    assert docker_builds.image_fixtures.registry.manifest("failing", recipe_hash(order.recipe)) is None


def test_a_base_without_the_required_python_is_an_error(docker_builds):
    order = docker_builds.order(SMALL, "linux/amd64")
    other = replace(order, recipe=replace(order.recipe, python="3.12"))
    with pytest.raises(ImageError, match=r"image: the base image does not have Python 3\.12, your version"):
        docker_builds.build(other, "failing")


def test_an_unsupported_platform_is_an_error_before_the_build(docker_builds):
    order = docker_builds.order(SMALL, "linux/amd64", "linux/s390x")
    with pytest.raises(ImageError, match=r"cannot run programs for linux/s390x.*It builds for linux/amd64"):
        docker_builds.build(order, "failing")


def test_the_base_image_of_this_repository_is_compiled_and_its_user_is_not_root(engine, image_fixtures, tmp_path):
    name = f"{image_fixtures.registry.host}/bases/python:3.11"
    words = ["--builder", BUILDER, "--platform", ",".join(PLATFORMS), "--provenance=false", "--push", "--tag", name]
    said = engine.docker(
        "buildx",
        "build",
        *words,
        "--build-arg",
        f"BASE={image_fixtures.base}",
        *engine.options,
        str(ROOT / "images/base"),
    )
    index = image_fixtures.registry.manifest("bases/python", "3.11")
    assert index is not None, said
    script = (
        "import asyncio, getpass, json, os;"
        "open(os.path.expanduser('~/file'), 'w').close();"
        "print(getpass.getuser(), os.getuid(), all(os.path.exists(m.__cached__) for m in (asyncio, json)))"
    )
    for platform in PLATFORMS:
        folder = tmp_path / platform
        config = unpack(image_fixtures.registry, "bases/python", documents.choose(index, platform).digest, folder)
        assert run(folder, config, ["python3", "-c", script]) == (0, "dask 1000 True\n")
        assert (config["config"]["Cmd"], config["config"].get("Entrypoint")) == (["python3"], None)


def like_ubuntu(folder: Path) -> Path:
    """Write the Dockerfile of a base with the tools of Ubuntu that ours lacks, except installable packages."""
    usr = folder / "usr"
    (usr / "bin").mkdir(parents=True)
    for tool in ("chown", "grep", "mkdir", "rm"):
        path = shutil.which(tool)
        assert path
        shutil.copy(path, usr / "bin")
        for library in re.findall(r"=> (/\S+)", subprocess.check_output(["ldd", path], text=True)):
            there = usr / Path("/", library).resolve().relative_to("/usr").with_name(Path(library).name)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, there)
    (usr / "bin" / "apt-get").write_text("#!/bin/sh\nexit 0\n")
    (usr / "bin" / "apt-get").chmod(0o755)
    (folder / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY usr /usr\n")
    return folder


def test_the_gpu_image_of_this_repository_can_be_built_and_its_user_is_not_root(engine, image_fixtures, tmp_path):
    """On a base that resembles Ubuntu: NVIDIA's is not available here, and the test does not use a GPU."""
    common = ["--builder", BUILDER, "--platform", "linux/amd64", "--provenance=false", "--push", *engine.options]
    base = f"{image_fixtures.registry.host}/bases/ubuntu:1"
    built = {base: (image_fixtures.base, like_ubuntu(tmp_path / "ubuntu"))}
    built[f"{image_fixtures.registry.host}/bases/gpu:1"] = (base, ROOT / "images/gpu")
    for name, (below, folder) in built.items():
        engine.docker("buildx", "build", *common, "--tag", name, "--build-arg", f"BASE={below}", str(folder))
    found = image_fixtures.registry.manifest("bases/gpu", "1")
    assert found is not None
    config = unpack(image_fixtures.registry, "bases/gpu", found.digest, tmp_path / "image")
    script = (
        "import getpass, os; open(os.path.expanduser('~/file'), 'w').close(); print(getpass.getuser(), os.getuid())"
    )
    assert run(tmp_path / "image", config, ["python3", "-c", script]) == (0, "dask 1000\n")
    assert config["config"]["StopSignal"] == "SIGTERM"
    assert (config["config"]["Cmd"], config["config"].get("Entrypoint")) == (["python3"], None)
    assert "NVIDIA_DRIVER_CAPABILITIES=compute,utility" in config["config"]["Env"]


# -- a registry with a password -----------------------------------------------------------------


@contextmanager
def password_protected(image_fixtures: ImageFixtures, user: str, password: str) -> Iterator[str]:
    """Serve the registry at another address, with a password."""
    required = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"

    class Guard(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Docker tries TLS first, and plain HTTP if the response is HTTP.
        default_request_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != required:
                self.answer(401, {"WWW-Authenticate": 'Basic realm="registry"'}, b"{}")
                return
            names = ("Authorization", "Host", "Connection")
            headers = [(name, value) for name, value in self.headers.items() if name not in names]
            url = f"http://{image_fixtures.registry.host}{self.path}"
            found = httpx.request(self.command, url, headers=headers, content=body)
            given = dict(found.headers)
            if "location" in given:
                given["location"] = given["location"].replace(image_fixtures.registry.host, self.headers["Host"])
            self.answer(found.status_code, given, found.content)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = forward  # noqa: N815 (names of http.server)

        def answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "content-encoding"):
                    self.send_header(name, value)
            length = headers.get("content-length", "0") if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Guard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def command_lines() -> str:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended
            found.append(" ".join(process.cmdline()))
    return "\n".join(found)


def test_a_password_is_used_but_never_on_a_command_line(docker_builds, engine):
    config = Path(engine.environment["DOCKER_CONFIG"], "config.json")
    before, seen = config.read_text(), []
    with password_protected(docker_builds.image_fixtures, "AWS", "s3cret-word") as host:
        registry = Registry(host, lambda: ("AWS", "s3cret-word"))
        order = docker_builds.order(SMALL, "linux/amd64")
        to = Destination(registry, "password_protected", recipe_hash(order.recipe))
        builder = BuildxBuilder(options=engine.options, cache=docker_builds.cache)
        image = builder.build(order, to, lambda kind, facts: seen.append(command_lines()))
        assert registry.manifest("password_protected", image.digest) is not None
    assert "buildx" in "".join(seen)
    assert "s3cret-word" not in "".join(seen)
    assert config.read_text() == before


def test_a_wrong_password_is_reported_as_denied(docker_builds):
    answers = iter([("AWS", "right")])
    with password_protected(docker_builds.image_fixtures, "AWS", "right") as host:
        # Valid for our client, and expired when docker uses it.
        registry = Registry(host, lambda: next(answers, ("AWS", "expired")))
        with pytest.raises(RegistryDenied, match="denied docker access"):
            docker_builds.build(docker_builds.order(SMALL, "linux/amd64"), "password_protected", registry)


def test_ecr_accepts_and_lists_the_image(docker_builds):
    with LocalAWS() as aws:
        ecr = aws.client("ecr")
        ecr.create_repository(repositoryName="starburst/worker")
        given = ecr.get_authorization_token()["authorizationData"][0]
        user, _, password = base64.b64decode(given["authorizationToken"]).decode().partition(":")
        registry = Registry(given["proxyEndpoint"].partition("//")[2], lambda: (user, password))
        built = docker_builds.build(docker_builds.order(SMALL), "starburst/worker", registry)
        found = ecr.describe_images(repositoryName="starburst/worker")["imageDetails"]
    tagged = {image["imageDigest"]: image["imageTags"] for image in found if "imageTags" in image}
    assert tagged == {built.image.digest: [built.image.tag]}
    assert len(found) == 3  # the index and its two platform images


# -- an index with a password and a source distribution -------------------------------------------


SOURCE = {
    "pyproject.toml": """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "onlysource"
version = "1.0"
""",
    "backend.py": """
import platform, zipfile

def build_wheel(folder, settings=None, metadata=None):
    info = "onlysource-1.0.dist-info"
    with zipfile.ZipFile(f"{folder}/onlysource-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("onlysource.py", f"machine = {platform.machine()!r}")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: onlysource\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return "onlysource-1.0-py3-none-any.whl"
""",
}


@contextmanager
def index(user: str, password: str) -> Iterator[tuple[str, str]]:
    """Serve a source distribution; yield the index's URL and the file's hash."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in SOURCE.items():
            member = tarfile.TarInfo(f"onlysource-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    data = packed.getvalue()
    required = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"

    class Index(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Authorization") != required:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="index"')
                self.end_headers()
                return
            page = b'<a href="onlysource-1.0.tar.gz">onlysource-1.0.tar.gz</a>'
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/gzip")
            self.end_headers()
            self.wfile.write(page if self.path.endswith("/") else data)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}/simple"
        yield f"http://{user}:{password}@{address}", hashlib.sha256(data).hexdigest()
        server.shutdown()


def test_a_source_distribution_is_built_in_the_image_without_the_indexs_password(docker_builds, monkeypatch, tmp_path):
    order = docker_builds.order(SMALL, "linux/arm64")
    with index("me", "s3cret-index") as (address, digest):
        context.uv_for("linux/arm64", docker_builds.cache)  # from the usual index
        monkeypatch.setenv("UV_DEFAULT_INDEX", address)
        monkeypatch.delenv("UV_INDEX", raising=False)
        lock = Lock("linux/arm64", f"onlysource==1.0 --hash=sha256:{digest}\n", (("onlysource", "1.0"),))
        built = docker_builds.build(replace(order, locks={"linux/arm64": lock}), "source")
    config = unpack(built.registry, "source", built.image.digest, tmp_path)
    assert run(tmp_path, config, ["python", "-c", "import onlysource; print(onlysource.machine)"]) == (0, "aarch64\n")
    assert "s3cret-index" not in json.dumps(config)
    files = [path for path in (tmp_path / "rootfs").rglob("*") if path.is_file() and not path.is_symlink()]
    assert not [path for path in files if b"s3cret-index" in path.read_bytes()]


# -- the builder itself, created and repaired with the real command line ---------------------------


@pytest.fixture
def own_builder(engine, tmp_path) -> Docker:
    """A docker without a context of our builder's name."""
    (tmp_path / "cli-plugins").symlink_to(Path(engine.environment["DOCKER_CONFIG"], "cli-plugins"))
    environment = {**engine.environment, "DOCKER_CONFIG": str(tmp_path), "DOCKER_HOST": f"unix://{engine.socket}"}
    return Docker(environment)


def said_of(docker: Docker) -> str:
    return docker.run("buildx", "inspect", "--builder", BUILDER).stdout


def test_a_builder_is_created_and_one_that_does_not_start_is_an_error(own_builder, tmp_path):
    # BuildKit's image cannot be pulled here, so the builder does not start.
    with pytest.raises(
        ImageError, match=r"created the builder starburst-builder, but it does not start:.*moby/buildkit"
    ):
        own_builder.builder(tmp_path / "lock")
    assert re.search(r"Driver:\s+docker-container", said_of(own_builder))


def test_a_builder_of_a_removed_engine_is_recreated_on_the_current_one(own_builder, engine, tmp_path):
    create = ("buildx", "create", "--name", BUILDER, "--driver", "docker-container")
    own_builder.run("context", "create", "gone", "--docker", f"host=unix://{engine.socket}")
    made = own_builder.run(*create, "gone")
    assert made.returncode == 0, made.stdout
    own_builder.run("context", "rm", "--force", "gone")
    again = own_builder.run(*create)
    assert "existing instance for" in again.stdout  # what `create` reports for an existing builder
    before = said_of(own_builder)
    with pytest.raises(ImageError, match="does not start"):
        own_builder.builder(tmp_path / "lock")
    assert re.search(r"Endpoint:\s+gone", before)
    assert not re.search(r"Endpoint:\s+gone", said_of(own_builder))


def test_the_base_is_pinned(built):
    base: BaseImage = built.order.base
    assert config_of(built, "linux/amd64")["config"]["Labels"]["org.opencontainers.image.base.digest"] == base.digest
