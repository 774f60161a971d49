"""The files of an image, read out of its layers as a container engine would lay them one over the other."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from dask_starburst.environment import interruption
from dask_starburst.environment.archive import opened

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Tree:
    """What files there are, without the slash in front, and what is in those that were asked for."""

    names: set[str] = field(default_factory=set)
    contents: dict[str, bytes] = field(default_factory=dict)


def read_tree(layers: Iterable[tuple[Path, str]], wanted: Callable[[str], bool]) -> Tree:
    """Return the files that layers add up to.

    Parameters
    ----------
    layers : iterable of tuple of Path and str
        The files that the layers are in and their media types, from the lowest to the topmost.
    wanted : callable
        Whether the contents of a file matter, by its path.
    """
    tree = Tree()
    for path, media_type in layers:
        over, hidden = _read(path, media_type, wanted)
        _hide(tree, hidden)
        for name in over.names:
            tree.contents.pop(name, None)
        tree.names.update(over.names)
        tree.contents.update(over.contents)
    return tree


def _read(path: Path, media_type: str, wanted: Callable[[str], bool]) -> tuple[Tree, set[str]]:
    """Return what a layer adds and what it hides of those below: paths, and folders' paths with a slash behind."""
    tree, hidden = Tree(), set()
    with opened(path, media_type) as file, tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            interruption.check()
            name = member.name.removeprefix("./").strip("/")
            folder, _, last = name.rpartition("/")
            if last == _OPAQUE:
                hidden.add(f"{folder}/")
            elif last.startswith(_WHITEOUT):
                hidden.add(f"{folder}/{last.removeprefix(_WHITEOUT)}".lstrip("/"))
            elif not member.isdir():
                tree.names.add(name)
                if wanted(name):
                    tree.contents[name] = _content(archive, member, tree)
    return tree, hidden


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, tree: Tree) -> bytes:
    if member.islnk():  # a second name of a file that came before
        return tree.contents.get(member.linkname.removeprefix("./"), b"")
    file = archive.extractfile(member) if member.isreg() else None
    return file.read() if file else b""


def _hide(tree: Tree, hidden: set[str]) -> None:
    if not hidden:
        return
    folders = tuple(name if name.endswith("/") else f"{name}/" for name in hidden)
    for name in [name for name in tree.names if name in hidden or name.startswith(folders)]:
        tree.names.discard(name)
        tree.contents.pop(name, None)
