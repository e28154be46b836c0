"""Uploads to S3: one call for a small file, parts in parallel for a large one, every one with its sum for the service to check."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from isal import isal_zlib

from scitq.errors import ScitqError, StorageError, TransientStorageError
from scitq.storage.base import Cancel, Entry, Progress, Readable
from scitq.storage.ranged import MOST_PIECES, PIECE, PIECES_AT_ONCE, piece_size
from scitq.storage.s3_calls import S3Calls
from scitq.storage.s3_pieces import (
    CRC_HEADER,
    BytesPiece,
    FilePiece,
    Piece,
    crc_text,
    is_encrypted,
    is_plain_md5,
    read_fully,
)
from scitq.storage.transfer import local_errors, open_regular, run_parallel, stream_slot, with_retries

_STREAM_PART = 8 << 20


class Upload:
    """One object on its way to the service."""

    def __init__(self, calls: S3Calls, key: str, progress: Progress, cancel: Cancel) -> None:
        self._calls, self._key, self._progress, self._cancel = calls, key, progress, cancel
        self._uri = calls.uri(key)
        require_object_key(self._uri, key)

    def file(self, source: Path) -> Entry:
        """Store the file `source`."""
        with local_errors(source, self._uri), open_regular(source) as file:
            before = os.fstat(file.fileno())
            size, name = before.st_size, f"{self._uri}: {source}"
            if size <= PIECE:
                entry = self._put(FilePiece(file.fileno(), 0, size, self._progress, name))
            else:
                step = piece_size(size)
                starts = range(0, size, step)
                entry = self._put_parts(
                    [FilePiece(file.fileno(), start, min(step, size - start), self._progress, name) for start in starts]
                )
            after = os.fstat(file.fileno())
            if (after.st_size, after.st_mtime_ns) != (size, before.st_mtime_ns):
                raise StorageError(f"{name} changed while it was being uploaded")
            return entry

    def stream(self, stream: Readable, size: int | None) -> Entry:
        """Store all of `stream`, one part of it in memory at a time."""
        step = max(_STREAM_PART, -(-(size or 0) // (MOST_PIECES - 1)))
        data = read_fully(stream, step)
        if len(data) < step or size == step:
            rest = b"" if len(data) < step else stream.read(1)
            self._require_size(len(data) + len(rest), size)
            return self._put(BytesPiece(data, self._progress))
        upload_id, knows_crc = self._start()
        parts: list[tuple[str, int, int]] = []
        try:
            while data:
                if len(parts) == MOST_PIECES:
                    raise StorageError(f"{self._uri}: a stream of unknown length may have at most {MOST_PIECES * step} bytes")
                etag, crc = self._put_part(upload_id, len(parts) + 1, BytesPiece(data, self._progress), knows_crc, self._cancel)
                parts.append((etag, crc, len(data)))
                data = read_fully(stream, step)
            self._require_size(sum(part[2] for part in parts), size)
            return self._complete(upload_id, parts, knows_crc)
        except BaseException:
            abort_multipart(self._calls, self._key, upload_id)
            raise

    def _require_size(self, found: int, expected: int | None) -> None:
        if expected is not None and found != expected:
            raise StorageError(f"{self._uri}: {found} bytes came instead of {expected}")

    def _put(self, piece: Piece) -> Entry:
        headers = {"x-amz-checksum-crc32": crc_text(piece.crc(self._cancel)), **self._calls.config.upload_headers}

        def attempt() -> Entry:
            piece.restart()
            if not self._calls.knows_crc:
                headers["content-md5"] = piece.md5(self._cancel)
            found = self._send({}, headers, piece, self._cancel)
            self._calls.knows_crc = "x-amz-checksum-crc32" in found
            etag = found.get("etag", "").strip('"')
            if not self._calls.knows_crc and "content-md5" not in headers and is_plain_md5(etag) and not is_encrypted(found):
                actual = base64.b64decode(piece.md5(self._cancel)).hex()
                if actual != etag:
                    raise TransientStorageError(f"{self._uri}: stored with the MD5 sum {etag} instead of {actual}")
            return Entry(self._key, piece.size, None, etag or None)

        return with_retries(attempt, cancel=self._cancel)

    def _send(self, query: dict[str, str], headers: dict[str, str], piece: Piece, cancel: Cancel) -> dict[str, str]:
        with (
            stream_slot(cancel),
            self._calls.call("PUT", self._key, query, headers, piece.body(), length=piece.size, cancel=cancel) as reply,
        ):
            reply.read()
            return reply.headers

    def _start(self, noted: dict[str, str] | None = None) -> tuple[str, bool]:
        return with_retries(lambda: self._calls.start_multipart(self._key, noted, cancel=self._cancel), cancel=self._cancel)

    def _start_noting(self, pieces: Sequence[Piece]) -> tuple[str, bool, str]:
        """Begin, and note the sum of the whole beside the object where the service keeps none: id, whether it checks sums, the sum noted."""
        if self._calls.keeps_whole_crc:
            upload_id, knows_crc = self._start()
            if knows_crc:
                return upload_id, True, ""
            self._calls.keeps_whole_crc = False
            abort_multipart(self._calls, self._key, upload_id)
        # The sum has to be known first. What is read for it stays in memory for the sending, or else it would be read from the disk twice.
        is_cheap = sum(piece.size for piece in pieces) <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
        noted = crc_text(self._crc_of(pieces)) if is_cheap else ""
        return *self._start({CRC_HEADER: noted} if noted else None), noted

    def _crc_of(self, pieces: Sequence[Piece]) -> int:
        sums = [0] * len(pieces)

        def job(number: int, piece: Piece) -> Callable[[Cancel], None]:
            def add(ours: Cancel) -> None:
                sums[number] = piece.crc(ours)

            return add

        run_parallel([job(*each) for each in enumerate(pieces)], workers=PIECES_AT_ONCE, cancel=self._cancel)
        whole = 0
        for value, piece in zip(sums, pieces, strict=True):
            whole = isal_zlib.crc32_combine(whole, value, piece.size)
        return whole

    def _put_parts(self, pieces: Sequence[Piece]) -> Entry:
        upload_id, knows_crc, noted = self._start_noting(pieces)
        done: dict[int, tuple[str, int, int]] = {}

        def job(number: int, piece: Piece) -> Callable[[Cancel], None]:
            def put(ours: Cancel) -> None:
                done[number] = (*self._put_part(upload_id, number, piece, knows_crc, ours), piece.size)

            return put

        try:
            jobs = [job(number, piece) for number, piece in enumerate(pieces, 1)]
            run_parallel(jobs, workers=PIECES_AT_ONCE, cancel=self._cancel)
            return self._complete(upload_id, [done[number] for number in sorted(done)], knows_crc, noted)
        except BaseException:
            abort_multipart(self._calls, self._key, upload_id)
            raise

    def _put_part(self, upload_id: str, number: int, piece: Piece, knows_crc: bool, cancel: Cancel) -> tuple[str, int]:
        crc = piece.crc(cancel)
        headers = {"x-amz-checksum-crc32": crc_text(crc)} if knows_crc else {"content-md5": piece.md5(cancel)}
        query = {"partNumber": str(number), "uploadId": upload_id}

        def attempt() -> str:
            piece.restart()
            return self._send(query, headers, piece, cancel).get("etag", "")

        return with_retries(attempt, cancel=cancel), crc

    def _complete(self, upload_id: str, parts: Sequence[tuple[str, int, int]], knows_crc: bool, noted: str = "") -> Entry:
        whole = 0
        for _, crc, size in parts:
            whole = isal_zlib.crc32_combine(whole, crc, size)
        if noted and noted != crc_text(whole):
            raise StorageError(f"{self._uri}: the file changed while it was being uploaded")
        listed = [(etag, crc_text(crc) if knows_crc else "") for etag, crc, _ in parts]
        etag = with_retries(
            lambda: self._calls.complete_multipart(self._key, upload_id, listed, crc_text(whole) if knows_crc else "", cancel=self._cancel),
            cancel=self._cancel,
        )
        found, _ = with_retries(lambda: self._calls.head(self._key, cancel=self._cancel), cancel=self._cancel)
        total = sum(size for _, _, size in parts)
        if found.size != total or (etag and found.etag and etag != found.etag):
            raise StorageError(f"{self._uri}: {found.size} bytes are stored instead of {total}, or somebody else stored it meanwhile")
        return found


def require_object_key(uri: str, key: str) -> None:
    """Raise StorageError unless `key` can name an object: a bucket, a name, UTF-8, 1,024 bytes at most."""
    name = key.partition("/")[2]
    if not name or key.endswith("/"):
        raise StorageError(f"{uri!r} names a folder or a bucket; a file needs a name in a bucket")
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        raise StorageError(f"{uri!r}: the name is not valid UTF-8, which S3 requires") from None
    if length > 1024:
        raise StorageError(f"{uri[:80]!r}…: the name has {length} bytes; S3 allows 1024")


def abort_multipart(calls: S3Calls, key: str, upload_id: str) -> None:
    """Forget an upload in parts, as far as the service can be reached; also when cancelled."""
    cancel = Cancel()

    def attempt() -> None:
        with calls.call("DELETE", key, {"uploadId": upload_id}, cancel=cancel) as reply:
            reply.read()

    with suppress(ScitqError):
        with_retries(attempt, cancel=cancel, tries=3)
