"""Many small objects from S3: a few threads, each of which makes one request after the other on several connections.

A thread for each request spends more on passing the interpreter's lock around than on the transfer (docs/storage.md, "Speed").
Whatever is not just the answer that was expected is left to the ordinary way, with its retries and its words.
"""

from __future__ import annotations

import hashlib
import os
import select
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from isal import isal_zlib

from scitq.errors import StorageError
from scitq.storage.base import Cancel, Entry, Progress
from scitq.storage.dial import SILENCE_TIMEOUT_S
from scitq.storage.part_sums import is_composite
from scitq.storage.s3_calls import S3Calls
from scitq.storage.s3_pieces import crc_text, is_encrypted, is_plain_md5, whole_crc
from scitq.storage.transfer import stream_slot, whole_file, write_all
from scitq.storage.wire import Connection, ConnectionBrokenError, Origin, parse_head, request_head
from scitq.util import clock

SMALL: Final = 256 << 10
"""Objects up to this size travel so."""
BATCH: Final = 128
"""So many at a time in one thread."""
BATCHES_AT_ONCE: Final = 4
_CONNECTIONS: Final = 8
_READ: Final = 64 << 10
_POLL_S: Final = 0.2

Pair = tuple[Entry, Path]


class SmallDownloads:
    """One batch, in this thread."""

    def __init__(self, calls: S3Calls, pairs: Sequence[Pair], progress: Progress, cancel: Cancel) -> None:
        self._calls, self._progress, self._cancel = calls, progress, cancel
        self._waiting = list(reversed(pairs))
        self._left: list[Pair] = []
        self._lines: dict[int, _Line] = {}
        self._can_connect = True

    def run(self) -> list[Pair]:
        """Download what can be, and return what is left to do."""
        with select.epoll() as poller, stream_slot(self._cancel):
            try:
                self._run(poller)
            finally:
                for line in self._lines.values():
                    line.connection.close()
        return self._left + self._waiting

    def _run(self, poller: select.epoll) -> None:
        while True:
            self._cancel.check()
            # One connection more in each turn, so that the others are served while it is made.
            if wants_more := bool(self._waiting) and self._can_connect and len(self._lines) < _CONNECTIONS:
                self._connect(poller)
            if not self._lines:
                return
            events = poller.poll(0 if wants_more else _POLL_S)
            for number, _ in events:
                self._serve(self._lines[number], poller)
            if not events:
                self._drop_silent()

    def _connect(self, poller: select.epoll) -> None:
        pair = self._waiting.pop()
        origin, target, headers = self._request(pair[0])
        try:
            connection = self._calls.wire.lend(origin, self._cancel)
        except StorageError:
            self._left.append(pair)
            self._can_connect = False
            return
        connection.socket.setblocking(False)
        line = _Line(connection, pair)
        self._lines[line.number] = line
        poller.register(line.number, select.EPOLLIN)
        self._send(line, target, headers)

    def _request(self, entry: Entry) -> tuple[Origin, str, dict[str, str]]:
        headers = {"x-amz-checksum-mode": "ENABLED", **self._calls.config.read_headers}
        if entry.etag:
            headers["if-match"] = f'"{entry.etag}"'
        return self._calls.request("GET", entry.key, {}, headers)

    def _send(self, line: _Line, target: str, headers: dict[str, str]) -> None:
        try:
            line.send(request_head(line.connection, "GET", target, headers))
        except OSError:
            self._give_up(line)

    def _serve(self, line: _Line, poller: select.epoll) -> None:
        try:
            if not line.receive():
                return
        except (OSError, StorageError):
            self._give_up(line)
            return
        if not self._keep(line):
            self._give_up(line)
        elif not self._waiting or not line.is_kept_open:
            del self._lines[line.number]
            if line.is_kept_open:
                poller.unregister(line.number)
                line.connection.socket.setblocking(True)
                self._calls.wire.give_back(line.connection)
            else:
                line.connection.close()
        else:
            line.pair = self._waiting.pop()
            origin, target, headers = self._request(line.pair[0])
            if origin == line.connection.origin:
                self._send(line, target, headers)
            else:
                self._give_up(line)

    def _keep(self, line: _Line) -> bool:
        """Write the file if it is what was stored; says whether it is."""
        entry, target = line.pair
        announced = whole_crc(line.headers)
        if announced:
            is_right = crc_text(isal_zlib.crc32(line.body)) == announced
        elif is_plain_md5(entry.etag) and not is_encrypted(line.headers):
            is_right = hashlib.md5(line.body, usedforsecurity=False).hexdigest() == entry.etag
        else:
            # What was stored in parts is proved by more questions.
            is_right = is_encrypted(line.headers) or not is_composite(entry.etag or "")
        if is_right:
            with whole_file(target, self._calls.uri(entry.key)) as temporary:
                descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
                try:
                    write_all(descriptor, line.body)
                finally:
                    os.close(descriptor)
            self._progress(entry.size)
        return is_right

    def _give_up(self, line: _Line) -> None:
        del self._lines[line.number]
        line.connection.close()
        self._left.append(line.pair)

    def _drop_silent(self) -> None:
        limit_s = clock.monotonic_s() - SILENCE_TIMEOUT_S
        for line in [line for line in self._lines.values() if line.heard_s < limit_s]:
            self._give_up(line)


class _Line:
    """A connection and the object that comes on it."""

    def __init__(self, connection: Connection, pair: Pair) -> None:
        self.connection, self.pair = connection, pair
        self.number = connection.socket.fileno()
        self.heard_s = 0.0
        self.headers: dict[str, str] = {}
        self._data = bytearray()
        self._start = 0

    @property
    def body(self) -> memoryview:
        return memoryview(self._data)[self._start :]

    @property
    def is_kept_open(self) -> bool:
        return self.headers.get("connection", "").lower() != "close"

    def send(self, request: bytes) -> None:
        """Ask for the object; OSError unless the whole request goes out at once, as it does on an idle connection."""
        self._data, self._start = bytearray(), 0
        self.heard_s = clock.monotonic_s()
        if self.connection.socket.send(request) != len(request):
            raise BlockingIOError

    def receive(self) -> bool:
        """Take what has come; True when the object is whole. OSError or StorageError for anything else than that object."""
        with suppress(BlockingIOError, ssl.SSLWantReadError):
            while data := self.connection.socket.recv(_READ):
                self._data += data
                self.heard_s = clock.monotonic_s()
                if self._is_whole():
                    return True
            raise ConnectionBrokenError("the answer was cut short")
        return False

    def _is_whole(self) -> bool:
        if not self._start:
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return False
            status, self.headers = parse_head(bytes(self._data[:end]), self.connection.origin)
            if status != 200 or self.headers.get("content-length") != str(self.pair[0].size):
                raise StorageError("not the object that was listed")
            self._start = end + 4
        missing = self._start + self.pair[0].size - len(self._data)
        if missing < 0:
            raise StorageError("more came than the object")
        return not missing
