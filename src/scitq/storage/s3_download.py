"""Downloads from S3: one call for a small file, ranges in parallel for a large one, every one proved by its sum."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from isal import isal_zlib

from scitq.errors import ScitqError, StorageError
from scitq.storage.base import Cancel, Entry, Progress
from scitq.storage.s3_calls import S3Calls
from scitq.storage.s3_pieces import PIECE, PIECES_AT_ONCE, Range, crc_text, is_encrypted, is_plain_md5, md5_of, piece_size, whole_crc
from scitq.storage.transfer import buffer, run_parallel, stream_slot, whole_file, with_retries, write_at
from scitq.storage.wire import Reply


class Download:
    """One object on its way to one file."""

    def __init__(self, calls: S3Calls, key: str, progress: Progress, cancel: Cancel) -> None:
        self._calls, self._key, self._progress, self._cancel = calls, key, progress, cancel
        self._uri = calls.uri(key)

    def run(self, target: Path, entry: Entry | None) -> Entry:
        """Put the object at `target`; `entry` is what a listing said of it."""
        checksum = ""
        if entry is None or entry.size > PIECE:
            found, headers = with_retries(lambda: self._calls.head(self._key, cancel=self._cancel), cancel=self._cancel)
            if entry is not None and entry.version != found.version:
                raise StorageError(f"{self._uri} changed since it was listed; try again")
            entry, checksum = found, whole_crc(headers)
        with whole_file(target, self._uri) as temporary:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                if entry.size > PIECE:
                    self._in_ranges(entry, descriptor, checksum)
                elif entry.size:
                    self._in_one(entry, descriptor)
            finally:
                os.close(descriptor)
        return entry

    def _in_one(self, entry: Entry, descriptor: int) -> None:
        part = Range(0, entry.size)
        md5 = hashlib.md5(usedforsecurity=False) if is_plain_md5(entry.etag) else None
        self._fetch(entry, part, descriptor, self._cancel, md5.update if md5 else None)
        if part.announced:
            self._require_crc(part.crc, part.announced)
        elif md5 is not None and not part.is_encrypted:
            self._require_md5(entry, md5.hexdigest())

    def _in_ranges(self, entry: Entry, descriptor: int, checksum: str) -> None:
        os.posix_fallocate(descriptor, 0, entry.size)
        size = piece_size(entry.size)
        parts = [Range(start, min(size, entry.size - start)) for start in range(0, entry.size, size)]

        def job(part: Range) -> Callable[[Cancel], None]:
            return lambda ours: self._fetch(entry, part, descriptor, ours, None)

        run_parallel([job(part) for part in parts], workers=PIECES_AT_ONCE, cancel=self._cancel)
        if checksum:
            whole = 0
            for part in parts:
                whole = isal_zlib.crc32_combine(whole, part.crc, part.size)
            self._require_crc(whole, checksum)
        elif is_plain_md5(entry.etag) and not parts[0].is_encrypted:
            self._require_md5(entry, md5_of(descriptor, self._cancel))

    def _fetch(self, entry: Entry, part: Range, descriptor: int, cancel: Cancel, hashed: Callable[[memoryview], None] | None) -> None:
        """Write one range to the file; after a cut go on where it ended."""

        def attempt() -> None:
            headers = {"x-amz-checksum-mode": "ENABLED", **self._calls.config.read_headers}
            if part.done or part.size != entry.size:
                headers["range"] = f"bytes={part.start + part.done}-{part.start + part.size - 1}"
            if entry.etag:
                headers["if-match"] = f'"{entry.etag}"'
            with stream_slot(cancel), self._calls.call("GET", self._key, headers=headers, cancel=cancel) as reply:
                self._accept(part, reply)
                view = buffer()
                while count := reply.read_into(view):
                    data = view[:count]
                    write_at(descriptor, data, part.start + part.done)
                    part.crc = isal_zlib.crc32(data, part.crc)
                    if hashed is not None:
                        hashed(data)
                    part.done += count
                    self._progress(count)

        with_retries(attempt, cancel=cancel, done=lambda: part.done)

    def _accept(self, part: Range, reply: Reply) -> None:
        if reply.length != part.size - part.done:
            raise StorageError(f"{self._uri} changed since it was listed, or the service can't send ranges; try again")
        part.is_encrypted = is_encrypted(reply.headers)
        if reply.status == 200:
            part.announced = whole_crc(reply.headers)

    def _require_crc(self, found: int, announced: str) -> None:
        if crc_text(found) != announced:
            raise StorageError(f"{self._uri}: the content does not have its stored CRC-32 checksum; it was damaged on its way or there")

    def _require_md5(self, entry: Entry, found: str) -> None:
        if found != entry.etag:
            raise StorageError(f"{self._uri}: the content has the MD5 sum {found}, but {entry.etag} is stored; it was damaged")


class ObjectReader:
    """An object as a stream; a cut is mended by asking for the rest."""

    def __init__(self, calls: S3Calls, entry: Entry, offset: int, cancel: Cancel) -> None:
        self._calls, self._entry, self._cancel = calls, entry, cancel
        self._position = min(offset, entry.size)
        self._reply: Reply | None = None
        self._leave: Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], bool | None] | None = None

    def __enter__(self) -> ObjectReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._drop()

    def _drop(self) -> None:
        leave, self._leave, self._reply = self._leave, None, None
        if leave is not None:
            try:
                leave(None, None, None)
            except ScitqError:
                return

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, empty at the end."""
        if self._position >= self._entry.size or size <= 0:
            return b""

        def attempt() -> bytes:
            if self._reply is None:
                headers = {"range": f"bytes={self._position}-", **self._calls.config.read_headers}
                if self._entry.etag:
                    headers["if-match"] = f'"{self._entry.etag}"'
                manager = self._calls.call("GET", self._entry.key, headers=headers, cancel=self._cancel)
                self._reply = manager.__enter__()
                self._leave = manager.__exit__
            view = memoryview(bytearray(min(size, 1 << 20)))
            try:
                count = self._reply.read_into(view)
            except BaseException:
                self._drop()
                raise
            self._position += count
            return bytes(view[:count])

        return with_retries(attempt, cancel=self._cancel)
