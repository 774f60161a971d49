"""Layers are reproducible and cached."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dask_starburst.environment.build.tar import Entry, open_layer, write_tar
from dask_starburst.environment.build.layers import Layer, Layers
from dask_starburst.environment.build.image_tree import read_image_files
from dask_starburst.errors import BadArgument

FILES = {"usr/share/a.txt": "a", "usr/b/c.py": "print()\n", "usr/b.py": ""}
LONG = f"opt/{'x' * 90}/{'é' * 60}.py"


def entries(folder: Path, names: list[str]) -> Iterator[Entry]:
    """Real files, in the given order."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FILES[name])
        yield Entry(name, path)


def members(layer: Layer) -> list[tarfile.TarInfo]:
    with open_layer(layer.path, layer.media_type) as file, tarfile.open(fileobj=file, mode="r|") as archive:
        return list(archive)


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_equal_files_in_two_folders_make_equal_layers(tmp_path, compression):
    names = list(FILES)
    one, _ = Layers(tmp_path / "one", compression).get("k", lambda work: entries(work, names))
    os.utime(tmp_path)
    two, _ = Layers(tmp_path / "two", compression).get("k", lambda work: entries(work, names[::-1]))
    assert (one.digest, one.diff_id, one.size) == (two.digest, two.diff_id, two.size)
    assert one.path.read_bytes() == two.path.read_bytes()


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
def test_the_digests_match_the_bytes(tmp_path, compression):
    layer, _ = Layers(tmp_path, compression).get("k", lambda work: entries(work, list(FILES)))
    data = layer.path.read_bytes()
    assert layer.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert layer.size == len(data)
    with open_layer(layer.path, layer.media_type) as file:
        assert layer.diff_id == f"sha256:{hashlib.sha256(file.read()).hexdigest()}"


def test_a_layer_contains_nothing_specific_to_this_computer(tmp_path):
    layer, _ = Layers(tmp_path).get("k", lambda work: entries(work, list(FILES)))
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members(layer)} == {(0, 0, 0, "", "")}


def test_every_folder_precedes_its_contents(tmp_path):
    layer, _ = Layers(tmp_path).get("k", lambda work: entries(work, list(FILES)))
    assert [m.name for m in members(layer)] == [
        "usr", "usr/b", "usr/b/c.py", "usr/b.py", "usr/share", "usr/share/a.txt",
    ]  # fmt: skip


def test_modes_owners_links_and_long_names_are_preserved(tmp_path):
    given = [
        Entry("home/dask", owner=1000),
        Entry("bin/run", b"#!/bin/sh\n", executable=True),
        Entry("bin/python", link="/usr/bin/python3.11"),
        Entry(LONG, b"x"),
    ]
    layer, _ = Layers(tmp_path).get("k", lambda work: given)
    found = {m.name: m for m in members(layer)}
    assert (found["home/dask"].uid, found["home/dask"].gid, found["home/dask"].isdir()) == (1000, 1000, True)
    assert (found["bin/run"].mode, found[LONG].mode) == (0o755, 0o644)
    assert found["bin/python"].linkname == "/usr/bin/python3.11"


def test_a_layer_with_a_known_key_is_not_rebuilt(tmp_path):
    first, kept = Layers(tmp_path).get("k", lambda work: [Entry("a", b"1")])
    assert not kept

    def never(work: Path) -> list[Entry]:
        raise AssertionError("it was there")

    assert Layers(tmp_path).get("k", never) == (first, True)


def test_another_compression_is_another_layer(tmp_path):
    zstd, _ = Layers(tmp_path, "zstd").get("k", lambda work: [Entry("a", b"1")])
    gzip, kept = Layers(tmp_path, "gzip").get("k", lambda work: [Entry("a", b"1")])
    assert not kept
    assert zstd.diff_id == gzip.diff_id
    assert zstd.digest != gzip.digest


def test_a_damaged_layer_is_rebuilt(tmp_path):
    layer, _ = Layers(tmp_path).get("k", lambda work: [Entry("a", b"1" * 1000)])
    layer.path.write_bytes(b"half")
    again, kept = Layers(tmp_path).get("k", lambda work: [Entry("a", b"1" * 1000)])
    assert not kept
    assert again == layer
    assert again.path.stat().st_size == layer.size


def test_layers_unused_for_a_month_are_deleted(tmp_path):
    layers = Layers(tmp_path)
    layer, _ = layers.get("k", lambda work: [Entry("a", b"1")])
    layers.prune(layer.path.stat().st_mtime + 29 * 86_400)
    assert layer.path.exists()
    layers.prune(layer.path.stat().st_mtime + 31 * 86_400)
    assert not layer.path.exists()


def test_the_error_for_an_unknown_compression_lists_the_known_ones(tmp_path):
    with pytest.raises(BadArgument, match="compression='lzma' is not one of 'zstd', 'gzip'"):
        Layers(tmp_path, "lzma")


FULL = """
import os, resource, signal, sys
from pathlib import Path
from dask_starburst.environment.build.tar import Entry
from dask_starburst.environment.build.layers import Layers
from dask_starburst.errors import ImageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
folder = Path(sys.argv[1])
try:
    Layers(folder).get("k", lambda work: [Entry("a", os.urandom(1_000_000))])
except ImageError as error:
    print(error)
print([p.name for p in folder.rglob("*") if p.is_file()])
"""


def test_a_full_disk_is_an_error_and_leaves_no_incomplete_file(tmp_path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    said, left = done.stdout.splitlines()
    assert f"no space left for the layers of the image in {tmp_path}" in said
    assert "XDG_CACHE_HOME" in said
    assert left == "[]"


def layer_of(folder: Path, name: str, *files: tuple[str, bytes]) -> tuple[Path, str]:
    data = bytearray()
    write_tar([Entry(path, content) for path, content in files], data.extend)
    (folder / name).write_bytes(data)
    return folder / name, "application/vnd.oci.image.layer.v1.tar"


def test_whiteouts_of_an_upper_layer_hide_only_their_targets(tmp_path):
    tree = read_image_files(
        [
            layer_of(tmp_path, "1", ("a/x.py", b"1"), ("a/y.py", b"1"), ("b/z.py", b"1"), ("b/c/d.py", b"1")),
            layer_of(tmp_path, "2", ("a/.wh.x.py", b""), ("b/.wh..wh..opq", b""), ("b/new.py", b"2")),
            layer_of(tmp_path, "3", ("a/y.py", b"3")),
        ],
        lambda name: name.endswith(".py"),
    )
    assert tree.names == {"a/y.py", "b/new.py"}
    assert tree.contents == {"a/y.py": b"3", "b/new.py": b"2"}
