"""Parse the output of ``docker buildx build --progress=plain``: progress and errors."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from dask_starburst.errors import ImageError, RegistryDenied, RegistryUnavailable

_STEP = re.compile(r"#(?P<id>\d+) \[(?:(?P<platform>[\w/]+) )?(?:[\w.-]+ )?(?P<number>\d+)/(?P<of>\d+)\] (?P<what>.+)")
_END = re.compile(r"#(?P<id>\d+) (?:DONE (?P<seconds>[\d.]+)s|(?P<kept>CACHED))")
_PUSHING = re.compile(r"#\d+ (exporting layers|pushing layers|pushing manifest)\b")
_OURS = {
    "assemble.py system": "system",
    "assemble.py packages": "packages",
    "assemble.py own": "own packages",
    "apt-get install": "Debian packages",
    "FROM ": "base",
}
_SECRET = re.compile(r"(\w+://)[^/@\s]+@")
_ERROR = re.compile(r"^(?:ERROR|error): (?:failed to (?:build|solve): )*(.+)")
_OWN_WORDS = re.compile(r"#\d+ [\d.]+ starburst: (.+)")
_KEPT_LINES = 200
_QUOTED_LINES = 20
_LONGEST = 80
#: runc's error in place of a step's output; lines of the step's own program have a different prefix.
_NO_EMULATION = re.compile(r"^(?:#\d+ (?:[\d.]+ )?)?exec /\S+: exec format error$", re.IGNORECASE)
_DENIED = ("401 Unauthorized", "403 Forbidden", "authorization failed", "no basic auth credentials", "denied:")
_AWAY = ("connection refused", "connection reset", "no such host", "timeout", "502 Bad", "503 Service")
_FULL = "no space left on device"


class BuildLog:
    """Parse docker's output line by line.

    Parameters
    ----------
    report : callable
        Receives ``"step"`` with `platform`, `name`, `number`, `of`, and `state`, which is ``"begun"``, ``"done"`` (with
        `seconds`) or ``"kept"`` (cached); and ``"pushing"`` with `text`.
    """

    def __init__(self, report: Callable[[str, Mapping[str, Any]], None]) -> None:
        self._report = report
        self._steps: dict[str, dict[str, Any]] = {}
        self._said: set[str] = set()
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def feed(self, line: str) -> None:
        """Parse a line."""
        line = _SECRET.sub(r"\1***@", line.rstrip())
        self._lines.append(line)
        if step := _STEP.match(line):
            if step["id"] not in self._steps:
                self._begin(step)
        elif end := _END.match(line):
            self._end(end)
        elif (pushing := _PUSHING.match(line)) and pushing[1] not in self._said:
            self._said.add(pushing[1])
            self._report("pushing", {"text": pushing[1]})

    def failure(self, destination: str, registry: str) -> ImageError:
        """Return the error of a failed build, with docker's last lines.

        Parameters
        ----------
        destination : str
            Destination of the image: ``"host/repository"``.
        registry : str
            The registry's host.
        """
        return explained(list(self._lines), destination, registry)

    def _begin(self, step: re.Match[str]) -> None:
        facts = {"platform": step["platform"] or "", "name": _name(step["what"])}
        facts |= {"number": int(step["number"]), "of": int(step["of"])}
        self._steps[step["id"]] = facts
        self._report("step", facts | {"state": "begun"})

    def _end(self, end: re.Match[str]) -> None:
        facts = self._steps.get(end["id"])
        if facts is None or end["id"] in self._said:  # a pull reports DONE several times
            return
        self._said.add(end["id"])
        done = {"state": "kept"} if end["kept"] else {"state": "done", "seconds": float(end["seconds"])}
        self._report("step", facts | done)


def _name(what: str) -> str:
    ours = next((name for words, name in _OURS.items() if words in what), None)
    return ours or (what if len(what) <= _LONGEST else f"{what[: _LONGEST - 1]}…")


def explained(lines: list[str], destination: str, registry: str) -> ImageError:
    """Return the error for docker's last lines.

    Parameters
    ----------
    lines : list of str
        Docker's last lines.
    destination, registry : str
        Destination of the image, and its host.
    """
    error = next((found[1] for line in reversed(lines) if (found := _ERROR.match(line))), "")
    said = "\n".join(lines[-_QUOTED_LINES:])
    own = next((found[1] for line in reversed(lines) if (found := _OWN_WORDS.match(line))), "")
    everything = "\n".join(lines)
    if any(_NO_EMULATION.match(line) for line in lines) or "exec format error" in error:
        return ImageError(f"{no_emulation('another architecture')} docker's last lines:\n{said}")
    if _FULL in everything:
        return ImageError(f"docker's disk is full; `docker buildx prune` frees space. Its last lines:\n{said}")
    # It is a push or pull failure only if the final error says so; a build step may have received a 401 itself.
    if registry in error or destination in error or "push" in error:
        if any(words in error for words in _DENIED):
            return RegistryDenied(
                f"{destination} denied docker access: {error}. Allow your AWS identity to push there."
            )
        if any(words in error for words in _AWAY):
            return RegistryUnavailable(f"docker cannot reach {registry}: {error}")
    why = own or error or "it gives no reason"
    return ImageError(f"docker could not build the image: {why}. Its last lines:\n{said}")


def no_emulation(platform: str) -> str:
    """Describe how to install emulation of another architecture."""
    return (
        f"docker here cannot run programs for {platform}, which the buildx builder requires. Install the emulator: apt"
        " install qemu-user-static binfmt-support, or: docker run --privileged --rm tonistiigi/binfmt --install all;"
        ' or use the builder that needs none: build={"builder": "direct"}.'
    )
