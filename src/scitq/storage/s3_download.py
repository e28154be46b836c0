"""Downloads from S3: one call for a small file, ranges in parallel for a large one, every one proved by its sum."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scitq.errors import StorageError
from scitq.storage.base import Cancel, Entry, Progress
from scitq.storage.part_sums import is_composite, is_proved_wrong
from scitq.storage.ranged import PIECE, Range, RangeReader, combined_crc, fetch, fetch_in_pieces
from scitq.storage.s3_calls import S3Calls, S3Error
from scitq.storage.s3_pieces import crc_text, is_encrypted, is_plain_md5, md5_of, whole_crc
from scitq.storage.transfer import whole_file, with_retries
from scitq.storage.wire import Reply


class Download:
    """One object on its way to one file."""

    def __init__(self, calls: S3Calls, key: str, progress: Progress, cancel: Cancel) -> None:
        self._calls, self._key, self._progress, self._cancel = calls, key, progress, cancel
        self._uri = calls.uri(key)
        self._etag: str | None = None
        self._size = 0

    def run(self, target: Path, entry: Entry | None) -> Entry:
        """Put the object at `target`; `entry` is what a listing said of it."""
        checksum = ""
        if entry is None or entry.size > PIECE:
            found, headers = self._head()
            if entry is not None and entry.version != found.version:
                raise StorageError(f"{self._uri} changed since it was listed; try again")
            entry, checksum = found, whole_crc(headers)
        self._etag, self._size = entry.etag, entry.size
        with whole_file(target, self._uri) as temporary:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                if entry.size > PIECE:
                    self._in_pieces(descriptor, checksum)
                else:
                    self._in_one(descriptor)
            finally:
                os.close(descriptor)
        return entry

    def _head(self) -> tuple[Entry, dict[str, str]]:
        return with_retries(lambda: self._calls.head(self._key, cancel=self._cancel), cancel=self._cancel)

    def _in_one(self, descriptor: int) -> None:
        part = Range(0, self._size)
        md5 = hashlib.md5(usedforsecurity=False) if is_plain_md5(self._etag) else None
        fetch(self._open, part, descriptor, self._progress, self._cancel, md5.update if md5 else None)
        if part.announced:
            self._require_crc(part.crc, part.announced)
        elif md5 is not None and not part.is_encrypted:
            self._require_md5(md5.hexdigest())
        elif not part.is_encrypted:
            self._require_parts(descriptor)

    def _in_pieces(self, descriptor: int, checksum: str) -> None:
        os.posix_fallocate(descriptor, 0, self._size)
        parts = fetch_in_pieces(self._open, self._size, descriptor, self._progress, self._cancel)
        if checksum:
            self._require_crc(combined_crc(parts), checksum)
        elif is_plain_md5(self._etag) and not parts[0].is_encrypted:
            self._require_md5(md5_of(descriptor, self._cancel))
        elif not parts[0].is_encrypted:
            self._require_parts(descriptor)

    def _require_parts(self, descriptor: int) -> None:
        etag = self._etag or ""
        if is_composite(etag) and is_proved_wrong(descriptor, self._size, etag, self._part_size, self._cancel):
            raise StorageError(f"{self._uri}: the parts' MD5 sums are not those of the stored {etag}; the content was damaged")

    def _part_size(self, number: int) -> int | None:
        """The size of one part of the stored object, from a service that knows as many parts as the ETag says."""
        etag = self._etag or ""
        headers = {"if-match": f'"{etag}"', **self._calls.config.read_headers}

        def ask() -> int | None:
            query = {"partNumber": str(number)}
            with self._calls.call("HEAD", self._key, query, headers, cancel=self._cancel) as reply:
                return reply.length if reply.headers.get("x-amz-mp-parts-count") == etag.partition("-")[2] else None

        try:
            return with_retries(ask, cancel=self._cancel)
        except S3Error:
            return None

    @contextmanager
    def _open(self, part: Range, cancel: Cancel) -> Iterator[Reply]:
        headers = {"x-amz-checksum-mode": "ENABLED", **self._calls.config.read_headers}
        if part.done or part.size != self._size:
            headers["range"] = part.header
        if self._etag:
            headers["if-match"] = f'"{self._etag}"'
        with self._calls.call("GET", self._key, headers=headers, cancel=cancel) as reply:
            if reply.length != part.size - part.done:
                raise StorageError(f"{self._uri} changed since it was listed, or the service can't send ranges; try again")
            part.is_encrypted = is_encrypted(reply.headers)
            if reply.status == 200:
                part.announced = whole_crc(reply.headers)
            yield reply

    def reader(self, offset: int) -> RangeReader:
        """The object as a stream from byte `offset` on."""
        entry, _ = self._head()
        self._etag, self._size = entry.etag, entry.size
        return RangeReader(self._open, entry.size, offset, self._cancel)

    def _require_crc(self, found: int, announced: str) -> None:
        if crc_text(found) != announced:
            raise StorageError(f"{self._uri}: the content does not have its stored CRC-32 checksum; it was damaged on its way or there")

    def _require_md5(self, found: str) -> None:
        if found != self._etag:
            raise StorageError(f"{self._uri}: the content has the MD5 sum {found}, but {self._etag} is stored; it was damaged")
