"""Files on web servers: `http://` and `https://`, redirects and query strings included, to be read only (contract IN-15)."""

# ruff: noqa: ARG002 - what the web can't do has the interface's arguments all the same

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from scitq.errors import SourceMissingError, StorageError, TransientStorageError
from scitq.storage.base import Cancel, Entry, Failure, Progress, Readable, ignore_progress
from scitq.storage.ranged import PIECE, Range, RangeReader, fetch, fetch_in_pieces
from scitq.storage.s3_calls import entry_of
from scitq.storage.transfer import OneByOne, buffer, stream_slot, whole_file, with_retries, write_at
from scitq.storage.wire import ConnectionBrokenError, Origin, Reply, Wire

MOST_REDIRECTS: Final = 10
_MANY_PIECES_FROM: Final = 4 * PIECE


class WebStorage(OneByOne):
    """The web, by one of the two schemes. Keys are `host/path?query`, as written."""

    def __init__(self, scheme: str) -> None:
        self.name = scheme
        self._wire = Wire()

    def uri(self, key: str) -> str:
        """See Storage; what may be a secret, the query, is left out."""
        return f"{self.name}://{key.partition('?')[0]}"

    def entries(self, prefix: str, *, recursive: bool = True, cancel: Cancel | None = None) -> Iterator[Entry]:
        """See Storage: the web can't be listed."""
        raise StorageError(f"{self.uri(prefix)}: web servers can't be listed; name each file")

    def stat(self, key: str) -> Entry | None:
        """See Storage. Servers that refuse HEAD are asked for the first byte."""
        try:
            return self._stat(key, Cancel())
        except SourceMissingError:
            return None

    def _stat(self, key: str, cancel: Cancel) -> Entry:
        def attempt() -> Entry:
            with self._get(key, {"range": "bytes=0-0"}, cancel) as reply:
                total = reply.headers.get("content-range", "").rpartition("/")[2]
                size = int(total) if total.isdigit() and reply.status == 206 else reply.length
                return entry_of(key, reply.headers, size)

        return with_retries(attempt, cancel=cancel)

    def download(
        self, key: str, target: Path, *, entry: Entry | None = None, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> Entry:
        """See Storage. In ranges when the server can, else in one go; a cut in the latter starts it anew."""
        token = cancel or Cancel()
        found = self._stat(key, token)
        if entry is not None and entry.version != found.version:
            raise StorageError(f"{self.uri(key)} changed since it was listed; try again")
        with whole_file(target, self.uri(key)) as temporary:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                if found.size < 0 or not self._has_ranges(key, token):
                    with_retries(lambda: self._in_one_go(found, descriptor, progress, token), cancel=token)
                elif found.size < _MANY_PIECES_FROM:
                    fetch(self._opener(found), Range(0, found.size), descriptor, progress, token)
                else:
                    os.posix_fallocate(descriptor, 0, found.size)
                    fetch_in_pieces(self._opener(found), found.size, descriptor, progress, token)
            finally:
                os.close(descriptor)
        return found

    def _has_ranges(self, key: str, cancel: Cancel) -> bool:
        with self._get(key, {"range": "bytes=0-0"}, cancel) as reply:
            return reply.status == 206

    def _in_one_go(self, entry: Entry, descriptor: int, progress: Progress, cancel: Cancel) -> None:
        done = 0
        os.ftruncate(descriptor, 0)
        try:
            with stream_slot(cancel), self._get(entry.key, {}, cancel) as reply:
                view = buffer()
                while count := reply.read_into(view):
                    write_at(descriptor, view[:count], done)
                    done += count
                    progress(count)
            if entry.size >= 0 and done != entry.size:
                raise TransientStorageError(f"{self.uri(entry.key)}: {done} bytes came instead of {entry.size}")
        except BaseException:
            progress(-done)
            raise

    def _opener(self, entry: Entry):  # type: ignore[no-untyped-def]  # noqa: ANN202 - an Opener; contextmanager hides its type
        @contextmanager
        def opener(part: Range, cancel: Cancel) -> Iterator[Reply]:
            headers = {"range": part.header}
            if entry.etag and '"' not in entry.etag:
                headers["if-range"] = f'"{entry.etag}"'
            with self._get(entry.key, headers, cancel) as reply:
                if reply.length != part.size - part.done:
                    raise StorageError(f"{self.uri(entry.key)} changed while it was being read; try again")
                yield reply

        return opener

    @contextmanager
    def _get(self, key: str, headers: dict[str, str], cancel: Cancel) -> Iterator[Reply]:
        """GET, following redirects; the status is 200 or 206."""
        url = f"{self.name}://{key}"
        for _ in range(MOST_REDIRECTS):
            parts = urlsplit(url)
            origin = Origin.of(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}")
            target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (f"?{quote(parts.query, safe=_QUERY)}" if parts.query else "")
            all_headers = {"host": origin.authority, "user-agent": "scitq", "accept": "*/*", "accept-encoding": "identity", **headers}
            try:
                with self._wire.exchange(origin, "GET", target, all_headers, cancel=cancel) as reply:
                    location = reply.headers.get("location", "")
                    if reply.status in {301, 302, 303, 307, 308} and location:
                        url = urljoin(url, location)
                        continue
                    self._require_success(key, reply, headers)
                    yield reply
                    return
            except ConnectionBrokenError as error:
                raise ConnectionBrokenError(f"{self.uri(key)}: {error}") from error
        raise StorageError(f"{self.uri(key)}: more than {MOST_REDIRECTS} redirects")

    def _require_success(self, key: str, reply: Reply, headers: dict[str, str]) -> None:
        status = reply.status
        if status in {200, 206}:
            return
        if status == 416 and headers.get("range") == "bytes=0-0":
            reply.headers["content-range"] = "bytes */0"
            reply.status = 206
            return
        if status in {404, 410}:
            raise SourceMissingError(f"{self.uri(key)}: the server has no such file (status {status})")
        if status >= 500 or status in {408, 425, 429}:
            raise TransientStorageError(f"{self.uri(key)}: the server failed (status {status})")
        raise StorageError(f"{self.uri(key)}: the server refused (status {status})")

    @contextmanager
    def open_read(self, key: str, *, offset: int = 0, cancel: Cancel | None = None) -> Iterator[Readable]:
        """See Storage. A server that can't send ranges is read from its start."""
        token = cancel or Cancel()
        entry = self._stat(key, token)
        if entry.size >= 0 and self._has_ranges(key, token):
            with RangeReader(self._opener(entry), entry.size, offset, token) as reader:
                yield reader
            return
        with self._get(key, {}, token) as reply:
            stream = _Plain(reply)
            while offset and (skipped := stream.read(min(offset, 1 << 20))):
                offset -= len(skipped)
            yield stream

    def upload(self, source: Path, key: str, *, progress: Progress = ignore_progress, cancel: Cancel | None = None) -> Entry:
        """See Storage: not possible."""
        raise self._read_only(key)

    def upload_many(
        self, pairs: Sequence[tuple[Path, str]], *, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> list[Failure]:
        """See Storage: not possible."""
        return [Failure(key, self._read_only(key)) for _, key in pairs]

    def put_stream(
        self, stream: Readable, key: str, *, size: int | None = None, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> Entry:
        """See Storage: not possible."""
        raise self._read_only(key)

    def delete(self, keys: Iterable[str]) -> None:
        """See Storage: not possible."""
        for key in keys:
            raise self._read_only(key)

    def _read_only(self, key: str) -> StorageError:
        return StorageError(f"{self.uri(key)}: web addresses can be read only")

    def sign(self, key: str, method: str = "GET", *, expires_s: int = 3600) -> str | None:
        """See Storage: to read, the address itself is enough."""
        return f"{self.name}://{key}" if method == "GET" else None

    def check(self, path: str = "") -> None:
        """See Storage: whether the file is there."""
        if path:
            self._stat(path, Cancel())

    def close(self) -> None:
        """See Storage."""
        self._wire.close()


_QUERY: Final = "/?%:@!$&'()*+,;=~-._"


class _Plain:
    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def read(self, size: int, /) -> bytes:
        view = memoryview(bytearray(min(size, 1 << 20)))
        return bytes(view[: self._reply.read_into(view)]) if size else b""
