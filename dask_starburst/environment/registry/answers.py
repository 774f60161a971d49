"""Limit the size of registries' responses."""

from __future__ import annotations

from collections.abc import Iterator

import httpx

from dask_starburst.errors import ImageError


def limit(answer: httpx.Response, most: int) -> None:
    """Limit a response to `most` bytes, without decompression.

    Requests do not accept encodings: a few kB that decompress to many GB would be held in memory.
    """
    answer.headers.pop("Content-Encoding", None)
    stream = answer.stream
    if isinstance(stream, httpx.SyncByteStream):
        answer.stream = _Limited(stream, most, answer.request.url.host)


class _Limited(httpx.SyncByteStream):
    """A response body that raises when it exceeds its limit."""

    def __init__(self, stream: httpx.SyncByteStream, most: int, host: str) -> None:
        self._stream = stream
        self._most = most
        self._host = host

    def __iter__(self) -> Iterator[bytes]:
        had = 0
        for piece in self._stream:
            had += len(piece)
            if had > self._most:
                raise ImageError(f"{self._host} sent more than the {self._most} bytes allowed for this response.")
            yield piece

    def close(self) -> None:
        self._stream.close()
