"""Malicious images and registries: nothing is written outside of the cache, and all reads are limited."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.images.registry import registry_without_pause
from dask_starburst.environment.build.base_image import BaseImage, resolve_base
from dask_starburst.environment.build.bytecode import Bytecode
from dask_starburst.environment.build.image_tree import read_image_files, write_files
from dask_starburst.environment.build.layers import Layers
from dask_starburst.environment.build.tar import CompressedWriter
from dask_starburst.environment.registry import documents
from dask_starburst.environment.registry.client import Registry
from dask_starburst.errors import ImageError, RegistryUnavailable

LIBRARY = "usr/local/lib/python3.11"
PLATFORM = "linux/arm64"
CONFIG: dict[str, Any] = {"architecture": "arm64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}}


def member(name: str, data: bytes = b"a = 1\n", kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A raw tar member with any name."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(data) if kind == tarfile.REGTYPE else 0
    body = data + bytes(-len(data) % 512) if kind == tarfile.REGTYPE else b""
    return info.tobuf(tarfile.PAX_FORMAT) + body


def layer(folder: Path, *members: bytes, name: str = "layer") -> tuple[Path, str]:
    path = folder / name
    path.write_bytes(b"".join(members) + bytes(1024))
    return path, documents.LAYER_TAR


def everything(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# -- names in layers ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hostile", "word"),
    [
        (member(f"{LIBRARY}/../../../../../../../../tmp/evil.py"), "outside"),
        (member("../evil.py"), "outside"),
        (member("/../evil.py"), "outside"),
        (member(f"{LIBRARY}/.."), "outside"),
        (member(f"{LIBRARY}/.wh..."), "outside"),
        (member("../.wh..wh..opq"), "outside"),
        (member(f"{LIBRARY}/a.py", kind=tarfile.LNKTYPE, link="../../../etc/shadow"), "outside"),
        (member(f"{LIBRARY}/a\n/home/me/b.py"), "control characters"),
        (member(f"{LIBRARY}/a\x1b[2J.py"), "control characters"),
        (member(f"{LIBRARY}/{'a' * 300}.py"), "longer than Linux allows"),
        (member(f"{'a/' * 3000}b.py"), "longer than Linux allows"),
        (member(f"{LIBRARY}/a.py", bytes(17 << 20)), "kept in memory"),
        (b"no archive at all" * 64, "cannot be read"),
    ],
)
def test_a_path_outside_of_the_image_is_rejected(tmp_path: Path, hostile: bytes, word: str):
    with pytest.raises(ImageError, match=word):
        read_image_files([layer(tmp_path, hostile)], lambda name: name.endswith(".py"), "registry.test/base")
    assert everything(tmp_path) == ["layer"]


def test_links_and_devices_are_not_followed(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept.py").write_text("mine")
    lower = layer(
        tmp_path,
        member(LIBRARY, kind=tarfile.SYMTYPE, link=str(outside)),
        member(f"{LIBRARY}/new.py"),
        member("usr/disk", kind=tarfile.BLKTYPE),
        member("/etc/passwd", b"root:x:0:0::/:/bin/sh\n"),
    )
    upper = layer(tmp_path, member(f"{LIBRARY}/.wh.kept.py"), member(f"{LIBRARY}/.wh..wh..opq"), name="upper")
    tree = read_image_files([lower, upper], lambda name: True)
    assert tree.names == {LIBRARY, "usr/disk", "etc/passwd"}
    (tmp_path / "work").mkdir()
    write_files(read_image_files([lower], lambda name: name.endswith("new.py")).contents, tmp_path / "work")
    assert everything(tmp_path / "work")[-1] == f"{LIBRARY}/new.py"
    assert everything(outside) == ["kept.py"]
    assert (outside / "kept.py").read_text() == "mine"


def test_a_path_that_is_both_file_and_folder_is_an_error(tmp_path: Path):
    with pytest.raises(ImageError, match="both as a file and as a folder"):
        write_files({"lib/a.py": b"", "lib/a.py/b.py": b""}, tmp_path)
    with pytest.raises(ImageError, match="outside"):
        write_files({"lib/../../a.py": b""}, tmp_path)


# -- sizes of layers ------------------------------------------------------------------------------


def packed_bomb(folder: Path, head: tarfile.TarInfo, filling: bytes, mebibytes: int) -> Path:
    """A layer that claims one member; zstd frames can be concatenated."""
    with (folder / "bomb").open("wb") as raw:
        for data, times in ((head.tobuf(tarfile.GNU_FORMAT), 1), (filling * (8 << 20), mebibytes // 8)):
            frame = io.BytesIO()
            packed = CompressedWriter(frame, "zstd")
            packed.write(data)
            packed.close()
            raw.write(frame.getvalue() * times)
    return folder / "bomb"


def test_a_decompression_bomb_is_stopped_at_the_limit(tmp_path: Path):
    head = tarfile.TarInfo("zeros")
    head.size = 1 << 40
    path = packed_bomb(tmp_path, head, b"\0", 1200)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ImageError, match="decompression bomb"):
        read_image_files([(path, documents.LAYER_ZSTD)], lambda name: False)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_oversized_header_is_not_read(tmp_path: Path, kind: bytes):
    head = tarfile.TarInfo("x")
    head.type, head.size = kind, 200 << 20
    path = packed_bomb(tmp_path, head, b"a", 200)
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="header of 209715200 bytes"):
            read_image_files([(path, documents.LAYER_ZSTD)], lambda name: True)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()


# -- registries -----------------------------------------------------------------------------------

#: Responses by path: headers and body, or its pieces.
Answers = dict[str, tuple[dict[str, str], bytes | Callable[[], Iterator[bytes]]]]


@contextmanager
def hostile(answers: Answers, status: int = 200) -> Iterator[tuple[str, list[str]]]:
    """A registry with the given responses; yields its host and the requested paths."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            asked.append(self.path)
            headers, body = answers.get(self.path, ({}, b"{}"))
            self.send_response(status if self.path in answers else 404)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for piece in [body] if isinstance(body, bytes) else body():
                    self.wfile.write(piece)
            except OSError:
                asked.append("left")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def manifest(config: Any, *layers: Any) -> bytes:
    document = {"schemaVersion": 2, "mediaType": documents.MANIFEST, "config": config, "layers": list(layers)}
    return json.dumps(document).encode()


def described(body: bytes, **other: Any) -> dict[str, Any]:
    return {"mediaType": documents.LAYER_TAR, "digest": documents.digest_of(body), "size": len(body), **other}


def serving(*blobs: bytes, tag: bytes) -> Answers:
    """The responses of a registry with one image of any content."""
    found: Answers = {f"/v2/a/blobs/{documents.digest_of(body)}": ({}, body) for body in blobs}
    by_name = ("latest", documents.digest_of(tag))
    return found | {f"/v2/a/manifests/{name}": ({}, tag) for name in by_name}


def plain(config: dict[str, Any]) -> bytes:
    return json.dumps(config).encode()


GOOD = plain(CONFIG)
TAR = member(f"{LIBRARY}/json/decoder.py") + bytes(1024)
ESCAPES = ["../../../evil", "sha256:../../evil", f"sha256:{'a' * 64}/../../evil", f"sha256:{'A' * 64}", "sha512:ab", 7]


@pytest.mark.parametrize("digest", ESCAPES)
@pytest.mark.parametrize("part", ["config", "layer", "index"])
def test_an_invalid_digest_is_rejected_before_use(tmp_path: Path, digest: Any, part: str):
    wrong = described(GOOD, digest=digest)
    document = {
        "config": manifest(wrong, described(TAR)),
        "layer": manifest(described(GOOD), wrong),
        "index": plain(
            {
                "mediaType": documents.INDEX,
                "manifests": [{**wrong, "platform": {"os": "linux", "architecture": "arm64"}}],
            }
        ),
    }[part]
    answers = serving(GOOD, TAR, tag=document)
    with hostile(answers) as (host, asked):
        base = resolve_base(f"{host}/a", tmp_path / "cache", registry_without_pause)
        with pytest.raises(ImageError, match="not a digest"):
            base.facts(PLATFORM, "3.11")
    assert not [path for path in asked if "evil" in path]
    assert not [path for path in everything(tmp_path) if "evil" in path]


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({**CONFIG, "rootfs": {"diff_ids": ["../evil"]}}, "not a digest"),
        ({**CONFIG, "rootfs": 7}, "not a JSON object"),
        ({**CONFIG, "config": {"Env": ["NO_EQUALS_SIGN"]}}, "environment variables"),
        ({**CONFIG, "config": {"Env": [7]}}, "environment variables"),
        ({**CONFIG, "config": {"Labels": {"a": 7}}}, "labels"),
        ([1], "not a JSON object"),
    ],
)
def test_an_invalid_configuration_is_an_error(tmp_path: Path, config: Any, word: str):
    body = plain(config)
    with hostile(serving(body, tag=manifest(described(body)))) as (host, _), pytest.raises(ImageError, match=word):
        resolve_base(f"{host}/a", tmp_path, registry_without_pause).part(PLATFORM)


@pytest.mark.parametrize("size", [-1, 1 << 60, "7", None, True, 1.5])
def test_an_invalid_blob_size_is_rejected(tmp_path: Path, size: Any):
    with (
        hostile(serving(GOOD, tag=manifest(described(GOOD), described(TAR, size=size)))) as (host, _),
        pytest.raises(ImageError, match="as the size of a blob"),
    ):
        resolve_base(f"{host}/a", tmp_path, registry_without_pause).part(PLATFORM)


def test_layers_above_the_total_limit_are_not_fetched(tmp_path: Path):
    large = described(TAR, size=40_000 << 20)
    with (
        hostile(serving(GOOD, tag=manifest(described(GOOD), large, large))) as (host, asked),
        pytest.raises(ImageError, match="bytes in total"),
    ):
        resolve_base(f"{host}/a", tmp_path, registry_without_pause).facts(PLATFORM, "3.11")
    assert documents.digest_of(TAR) not in " ".join(asked)


def test_a_configuration_with_a_too_large_declared_size_is_not_fetched(tmp_path: Path):
    with (
        hostile(serving(tag=manifest(described(GOOD, size=5 << 20)))) as (host, asked),
        pytest.raises(ImageError, match="configuration of 5242880 bytes"),
    ):
        resolve_base(f"{host}/a", tmp_path, registry_without_pause).part(PLATFORM)
    assert not [path for path in asked if "/blobs/" in path]


def endless() -> Iterator[bytes]:
    while True:
        yield bytes(1 << 16)


@pytest.mark.parametrize("headers", [{}, {"Content-Length": str(1 << 40)}, {"Content-Encoding": "gzip"}])
def test_an_endless_manifest_is_read_up_to_the_limit(headers: dict[str, str]):
    with (
        hostile({"/v2/a/manifests/latest": (headers, endless)}) as (host, _),
        pytest.raises(ImageError, match=f"more than the {4 << 20} bytes"),
    ):
        registry_without_pause(host).manifest("a", "latest")


def test_an_oversized_layer_is_read_up_to_its_declared_size_and_discarded(tmp_path: Path):
    digest = documents.digest_of(TAR)
    with (
        hostile({f"/v2/a/blobs/{digest}": ({}, endless)}) as (host, _),
        pytest.raises(ImageError, match=f"more than the {len(TAR)} bytes"),
    ):
        registry_without_pause(host).pull_blob("a", digest, tmp_path / "layer", len(TAR))
    assert everything(tmp_path) == []


def test_a_layer_with_a_wrong_size_is_discarded(tmp_path: Path):
    digest = documents.digest_of(TAR)
    with (
        hostile({f"/v2/a/blobs/{digest}": ({}, TAR)}) as (host, _),
        pytest.raises(ImageError, match="its manifest says"),
    ):
        registry_without_pause(host).pull_blob("a", digest, tmp_path / "layer", len(TAR) + 1)
    assert everything(tmp_path) == []


def test_a_compressed_response_is_not_decompressed_in_memory(tmp_path: Path):
    packed = gzip.compress(bytes(200 << 20), 1)
    with hostile({"/v2/a/manifests/latest": ({"Content-Encoding": "gzip"}, packed)}) as (host, _):
        tracemalloc.start()
        try:
            with pytest.raises((ImageError, RegistryUnavailable)):
                registry_without_pause(host).manifest("a", "latest")
            assert tracemalloc.get_traced_memory()[1] < 50 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("reference", ["../../b/manifests/x", "a/b", "", "a?b", "sha256:ab"])
def test_only_valid_tags_and_digests_become_part_of_a_url(reference: str):
    with hostile({}) as (host, asked):
        with pytest.raises(ImageError, match="not a digest"):
            Registry(host).manifest("a", reference)
        with pytest.raises(ValueError, match="name of a repository"):
            Registry(host).has_blob("../a", documents.digest_of(TAR))
    assert asked == []


def test_errors_contain_no_control_characters_from_a_registry():
    said = {"errors": [{"code": "DENIED", "message": "\x1b]0;title\x07\x1b[2Jall is well\r\n"}]}
    digest = documents.digest_of(TAR)
    with (
        hostile({f"/v2/a/blobs/{digest}": ({}, plain(said))}, status=400) as (host, _),
        pytest.raises(ImageError, match="all is well") as found,
    ):
        Registry(host).blob("a", digest)
    assert str(found.value).isprintable()


def test_a_modified_cache_file_is_fetched_again(tmp_path: Path):
    with hostile(serving(GOOD, TAR, tag=manifest(described(GOOD), described(TAR)))) as (host, asked):
        base = resolve_base(f"{host}/a", tmp_path, registry_without_pause)
        base.part(PLATFORM)
        kept = tmp_path / "bases" / "manifests" / f"{documents.file_name(base.digest)}.json"
        kept.write_bytes(kept.read_bytes().replace(b"sha256:", b"../../:"))
        before = len(asked)
        BaseImage(base.name, base.digest, base.registry, tmp_path / "bases").part(PLATFORM)
        assert len(asked) > before
        assert documents.digest_of(kept.read_bytes()) == base.digest


def test_the_standard_library_of_a_hostile_base_is_not_written_outside_its_folder(tmp_path: Path):
    tar = member("usr/local/bin/python3.11") + member(f"{LIBRARY}/../../../../../{tmp_path}/evil.py") + bytes(1024)
    with hostile(serving(GOOD, tar, tag=manifest(described(GOOD), described(tar)))) as (host, _):
        base = resolve_base(f"{host}/a", tmp_path / "cache", registry_without_pause)
        with pytest.raises(ImageError, match="outside"):
            base.standard_library(PLATFORM, "3.11", Layers(tmp_path / "layers"), Bytecode(tmp_path / "bytecode"))
    assert not [path for path in everything(tmp_path) if "evil" in path]
