"""Moving files between this machine and a storage whose secrets only the server has: by signed URLs, else through the server."""

from __future__ import annotations

import os
import socket
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import urlsplit
from urllib.request import getproxies

from scitq.client.api import Api
from scitq.errors import CancelledError, ScitqError, StorageError, TransientStorageError
from scitq.protocol.messages import file as m
from scitq.protocol.registry import Done, Reply, Request
from scitq.storage.base import Cancel, Progress
from scitq.storage.part_sums import is_composite, is_proved_wrong
from scitq.storage.ranged import PIECE, PIECES_AT_ONCE, Range, fetch, fetch_in_pieces, piece_size
from scitq.storage.s3_pieces import FilePiece, is_encrypted, is_plain_md5, md5_of
from scitq.storage.transfer import open_regular, run_parallel, stream_slot, whole_file, with_retries
from scitq.storage.wire import Origin, Wire
from scitq.storage.wire import Reply as WebReply
from scitq.util import clock

FILES_AT_ONCE: Final = 8
_ONE_PUT: Final = 64 << 20
_RELAY_CHUNK: Final = 4 << 20
_SIGNED_AT_ONCE: Final = 200
_EXPIRES_S: Final = 3600
_RENEWED_AFTER_S: Final = 1800.0
R = TypeVar("R", bound=Reply)


class Server:
    """The server's calls about files, from any thread."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._lock = threading.Lock()

    def call(self, message: Request, reply: type[R]) -> R:
        """One call; the connection is one thread's at a time."""
        with self._lock:
            return self._api.call(message, reply)


@dataclass(slots=True)
class _Urls:
    """Signed URLs by URI, signed anew before they expire, many at a time."""

    server: Server
    method: str
    uris: Sequence[str]
    _known: dict[str, tuple[str, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def find(self, uri: str) -> str | None:
        """The URL; None when the storage can't sign, or can't be reached from here."""
        with self._lock:
            known = self._known.get(uri)
            if known is not None and clock.monotonic_s() - known[1] < _RENEWED_AFTER_S:
                return known[0]
            start = self.uris.index(uri) if len(self.uris) < _SIGNED_AT_ONCE else self._position(uri)
            wanted = list(self.uris[start : start + _SIGNED_AT_ONCE])
            urls = self.server.call(m.FileSign(uris=wanted, method=self.method, expires_s=_EXPIRES_S), m.FileSigned).urls
            now = clock.monotonic_s()
            self._known.update({one: (url, now) for one, url in zip(wanted, urls, strict=False)})
            return urls[0] if urls else None

    def part_url(self, uri: str, number: int) -> str | None:
        """For HEAD of one part of the object."""
        urls = self.server.call(m.FileSign(uris=[uri], method="HEAD", part=number), m.FileSigned).urls
        return urls[0] if urls else None

    def _position(self, uri: str) -> int:
        positions = {one: number for number, one in enumerate(self.uris)}
        return positions[uri]


class _SignedDownload:
    """One object on its way to one file, by its signed URL."""

    def __init__(self, wire: Wire, urls: _Urls, row: m.FileRow, progress: Progress, cancel: Cancel) -> None:
        self._wire, self._urls, self._row, self._progress, self._cancel = wire, urls, row, progress, cancel
        self._is_encrypted = False

    def run(self, target: Path) -> None:
        """Put it at `target`, whole or not at all; proved by its MD5 where the storage has that."""
        size = self._row.size
        with whole_file(target, self._row.uri) as temporary, temporary.open("x+b") as file:
            if size > PIECE:
                os.posix_fallocate(file.fileno(), 0, size)
                fetch_in_pieces(self._open, size, file.fileno(), self._progress, self._cancel)
            else:
                fetch(self._open, Range(0, size), file.fileno(), self._progress, self._cancel)
            if not self._is_encrypted and self._is_damaged(file.fileno()):
                raise StorageError(f"{self._row.uri}: the content does not have its stored MD5 sum; it was damaged on its way or there")

    def _is_damaged(self, descriptor: int) -> bool:
        etag = self._row.etag
        if is_composite(etag):
            return is_proved_wrong(descriptor, self._row.size, etag, self._part_size, self._cancel)
        return is_plain_md5(etag) and md5_of(descriptor, self._cancel) != etag

    def _part_size(self, number: int) -> int | None:
        """The size of one part of the stored object, from a service that knows as many parts as the ETag says."""
        url = self._urls.part_url(self._row.uri, number)
        if url is None:
            return None
        with exchange(self._wire, "HEAD", url, {"if-match": f'"{self._row.etag}"'}, self._cancel) as reply:
            is_told = reply.status in {200, 206} and reply.headers.get("x-amz-mp-parts-count") == self._row.etag.partition("-")[2]
            return reply.length if is_told else None

    @contextmanager
    def _open(self, part: Range, cancel: Cancel) -> Iterator[WebReply]:
        url = self._urls.find(self._row.uri)
        if url is None:
            raise StorageError(f"{self._row.uri}: its storage no longer signs")
        headers = {"range": part.header} if part.done or part.size != self._row.size else {}
        if self._row.etag:
            headers["if-match"] = f'"{self._row.etag}"'
        with exchange(self._wire, "GET", url, headers, cancel) as reply:
            _require(reply, self._row.uri)
            if reply.length != part.size - part.done:
                raise StorageError(f"{self._row.uri} changed since it was listed, or the storage can't send ranges; try again")
            self._is_encrypted = self._is_encrypted or is_encrypted(reply.headers)
            yield reply


@contextmanager
def exchange(wire: Wire, method: str, url: str, headers: Mapping[str, str], cancel: Cancel, body: object = None) -> Iterator[WebReply]:
    """One request to a whole URL."""
    origin = Origin.of(url)
    target = url.split("://", 1)[1].partition("/")[2]
    # The body is bytes or a stream of them; the exchange takes both.
    with wire.exchange(origin, method, f"/{target}", {"host": origin.authority, **headers}, body, cancel=cancel) as reply:  # type: ignore[arg-type]
        yield reply


def _require(reply: WebReply, uri: str) -> None:
    if reply.status in {200, 201, 204, 206}:
        return
    said = reply.read(1 << 16).decode(errors="replace")[:300]
    if reply.status == 412:
        raise StorageError(f"{uri} changed while it was being read; try again")
    if reply.status >= 500 or reply.status in {408, 429}:
        raise TransientStorageError(f"{uri}: the storage answers {reply.status}: {said}")
    raise StorageError(f"{uri}: the storage refuses with {reply.status}: {said}")


def is_reachable(url: str) -> bool:
    """Whether this machine can connect to the storage that signed; through a proxy it is taken for granted."""
    if getproxies():
        return True
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)), timeout=5):
            return True
    except OSError:
        return False


class Transfers:
    """Downloads and uploads of one command."""

    def __init__(self, server: Server, progress: Progress, cancel: Cancel) -> None:
        self._server, self._progress, self._cancel = server, progress, cancel
        self._wire = Wire()

    def close(self) -> None:
        """Let go of connections."""
        self._wire.close()

    def download(self, pairs: Sequence[tuple[m.FileRow, Path]]) -> None:
        """Bring files, each whole or not at all; the first failure stops the others and is raised."""
        urls = _Urls(self._server, "GET", [row.uri for row, _target in pairs])
        first = urls.find(pairs[0][0].uri) if pairs else None
        is_signed = first is not None and is_reachable(first)

        def job(row: m.FileRow, target: Path) -> Callable[[Cancel], None]:
            def bring(cancel: Cancel) -> None:
                if is_signed and row.size >= 0:
                    _SignedDownload(self._wire, urls, row, self._progress, cancel).run(target)
                else:
                    self._read_through_server(row, target, cancel)

            return bring

        run_parallel([job(row, target) for row, target in pairs], workers=FILES_AT_ONCE, cancel=self._cancel)

    def upload(self, pairs: Sequence[tuple[Path, str]]) -> None:
        """Store files, each whole or not at all; the first failure stops the others and is raised."""
        urls = _Urls(self._server, "PUT", [uri for _source, uri in pairs])
        first = urls.find(pairs[0][1]) if pairs else None
        is_signed = first is not None and is_reachable(first)

        def job(source: Path, uri: str) -> Callable[[Cancel], None]:
            def send(cancel: Cancel) -> None:
                with _opened(source) as (descriptor, size):
                    if not is_signed:
                        self._write_through_server(source, descriptor, size, uri, cancel)
                    elif size <= _ONE_PUT:
                        self._put(FilePiece(descriptor, 0, size, self._progress, str(source)), uri, lambda: urls.find(uri), cancel)
                    else:
                        self._put_parts(descriptor, size, uri, cancel)

            return send

        run_parallel([job(source, uri) for source, uri in pairs], workers=FILES_AT_ONCE, cancel=self._cancel)

    def _read_through_server(self, row: m.FileRow, target: Path, cancel: Cancel) -> None:
        with whole_file(target, row.uri) as temporary, temporary.open("xb") as file:
            offset = 0
            while True:
                cancel.check()
                message = m.FileRead(uri=row.uri, offset=offset, most_bytes=_RELAY_CHUNK, etag=row.etag)
                data = self._server.call(message, m.FileChunk).data
                file.write(data)
                offset += len(data)
                self._progress(len(data))
                if len(data) < _RELAY_CHUNK:
                    break
            if row.size not in {-1, offset}:
                raise StorageError(f"{row.uri}: {offset} bytes came instead of {row.size}; try again")

    def _write_through_server(self, source: Path, descriptor: int, size: int, uri: str, cancel: Cancel) -> None:
        write_id = self._server.call(m.FileWrite(uri=uri, size=size), m.FileWriting).write_id
        offset, crc = 0, 0
        try:
            while offset < size:
                cancel.check()
                data = os.pread(descriptor, _RELAY_CHUNK, offset)
                if not data:
                    raise StorageError(f"{source} became shorter while it was being copied")
                self._server.call(m.FileWriteChunk(write_id=write_id, offset=offset, data=data), Done)
                crc = zlib.crc32(data, crc)
                offset += len(data)
                self._progress(len(data))
            self._server.call(m.FileEndWrite(write_id=write_id, crc32=crc), Done)
        except BaseException:
            with suppress(ScitqError):
                self._server.call(m.FileEndWrite(write_id=write_id), Done)
            raise

    def _put(self, piece: FilePiece, uri: str, find_url: Callable[[], str | None], cancel: Cancel) -> str:
        """Send one piece with its MD5, which the storage compares; returns its ETag."""
        sum64 = piece.md5(cancel)

        def attempt() -> str:
            piece.restart()
            url = find_url()
            if url is None:
                raise StorageError(f"{uri}: its storage no longer signs")
            headers = {"content-length": str(piece.size), "content-md5": sum64}
            with stream_slot(cancel), exchange(self._wire, "PUT", url, headers, cancel, piece.body()) as reply:
                _require(reply, uri)
                reply.read()
                return reply.headers.get("etag", "").strip('"')

        return with_retries(attempt, cancel=cancel)

    def _put_parts(self, descriptor: int, size: int, uri: str, cancel: Cancel) -> None:
        length = piece_size(size)
        count = -(-size // length)
        begun = self._server.call(m.FileStartParts(uri=uri, count=count, expires_s=7 * 86400), m.FileParts)
        etags = [""] * count
        if not begun.upload_id:
            raise StorageError(f"{uri}: the storage has no uploads in parts")

        def job(number: int) -> Callable[[Cancel], None]:
            piece = FilePiece(descriptor, number * length, min(length, size - number * length), self._progress, uri)

            def put(ours: Cancel) -> None:
                etags[number] = self._put(piece, uri, lambda: begun.urls[number], ours)

            return put

        try:
            run_parallel([job(number) for number in range(count)], workers=PIECES_AT_ONCE, cancel=cancel)
            self._server.call(m.FileEndParts(uri=uri, upload_id=begun.upload_id, etags=etags), Done)
        except BaseException:
            with suppress(ScitqError):
                self._server.call(m.FileEndParts(uri=uri, upload_id=begun.upload_id), Done)
            raise


@contextmanager
def _opened(source: Path) -> Iterator[tuple[int, int]]:
    """A file to send and its size; a change meanwhile is an error."""
    try:
        with open_regular(source) as file:
            before = os.fstat(file.fileno())
            yield file.fileno(), before.st_size
            after = os.fstat(file.fileno())
    except OSError as error:
        raise StorageError(f"{source}: {error.strerror or error}") from error
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise StorageError(f"{source} changed while it was being copied; copy it again")


def watch_copy(server: Server, source: str, target: str, show: Callable[[m.FileCopying], None], cancel: Cancel) -> m.FileCopying:
    """Have the server copy between storages; called off with `cancel`. Returns the last state, which has no error."""
    from scitq.errors import from_code

    state = server.call(m.FileCopy(source=source, target=target), m.FileCopying)
    while not state.is_ended:
        show(state)
        if cancel.is_cancelled:
            server.call(m.FileCopyStatus(copy_id=state.copy_id, at_most_s=10.0, is_cancelled=True), m.FileCopying)
            raise CancelledError("the copy was called off")
        state = server.call(m.FileCopyStatus(copy_id=state.copy_id, at_most_s=0.5), m.FileCopying)
    if state.error:
        raise from_code(state.error_code, state.error)
    show(state)
    return state
