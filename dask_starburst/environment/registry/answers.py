"""The answers of registries, of which no more is read than they may hold."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from dask_starburst.errors import ImageError


def limit(answer: httpx.Response, most: int) -> None:
    """Let no more than `most` bytes of an answer be read, and those as they were sent.

    Nothing is asked for packed: a few kB that unpack to many GB would be held in memory.
    """
    answer.headers.pop("Content-Encoding", None)
    stream = answer.stream
    if isinstance(stream, httpx.SyncByteStream):
        answer.stream = _Limited(stream, most, answer.request.url.host)


class _Limited(httpx.SyncByteStream):
    """An answer's body, which ends with an error where it is longer than it may be."""

    def __init__(self, stream: httpx.SyncByteStream, most: int, host: str) -> None:
        self._stream = stream
        self._most = most
        self._host = host

    def __iter__(self) -> Iterator[bytes]:
        had = 0
        for piece in self._stream:
            had += len(piece)
            if had > self._most:
                raise ImageError(f"{self._host} sends more than the {self._most} bytes that it may send here.")
            yield piece

    def close(self) -> None:
        self._stream.close()
