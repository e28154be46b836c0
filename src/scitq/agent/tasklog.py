"""The framed log of one attempt: records of `>BI` (stream, length) and payload, in memory while small, then in a file.

Streams: 1 stdout, 2 stderr, 3 notes of scitq. Offsets count framed bytes (docs/protocol.md, "Logs").
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

HEADER = struct.Struct(">BI")
STDOUT, STDERR, NOTE = 1, 2, 3
MOST_RECORD = 1 << 20


def frame(stream: int, data: bytes) -> bytes:
    """One record."""
    return HEADER.pack(stream, len(data)) + data


def note(text: str) -> bytes:
    """A note of scitq as a record, with its newline."""
    return frame(NOTE, text.encode("utf-8", "replace") + b"\n")


class LogWriter:
    """Appends records; the file at `path` is made at the first `spill`. After `cap` payload bytes the rest is dropped, with a note.

    An existing file is gone on with: `seen` says how many payload bytes of each stream it holds, and what was only
    half written at its end is cut off.
    """

    def __init__(self, path: Path, cap: int, *, resume: bool = False) -> None:
        self._path = path
        self._cap = cap
        self._descriptor = -1
        self._kept: list[bytes] = []
        self.kept_bytes = 0
        self.size = 0
        self.payload_bytes = 0
        self.is_capped = False
        self.seen = {STDOUT: 0, STDERR: 0, NOTE: 0}
        if resume and path.exists():
            self._resume()

    @property
    def is_on_disk(self) -> bool:
        """Whether a file was begun."""
        return self._descriptor >= 0

    def write(self, stream: int, data: bytes) -> None:
        """Append `data`, or what the cap leaves of it."""
        if stream != NOTE:
            if self.is_capped:
                return
            room = self._cap - self.payload_bytes
            self.payload_bytes += min(room, len(data))
            if len(data) > room:
                self.is_capped = True
                if room > 0:
                    self._append(stream, data[:room])
                self._append(NOTE, f"scitq: output beyond {self._cap} bytes is dropped (max_task_log in scitq.yaml)\n".encode())
                return
        for start in range(0, len(data), MOST_RECORD):
            self._append(stream, data[start : start + MOST_RECORD])

    def spill(self) -> None:
        """Put what is in memory into the file; raises OSError when the disk is full (nothing is lost then)."""
        if not self._kept:
            return
        if self._descriptor < 0:
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        data = memoryview(b"".join(self._kept))
        start = self.size - self.kept_bytes
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            os.ftruncate(self._descriptor, start)
            raise
        self._kept.clear()
        self.kept_bytes = 0

    def take(self) -> bytes:
        """All records, when no file was begun."""
        return b"".join(self._kept)

    def close(self) -> None:
        """Close the file; nothing is written any more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, stream: int, data: bytes) -> None:
        record = HEADER.pack(stream, len(data)) + data
        self._kept.append(record)
        self.kept_bytes += len(record)
        self.size += len(record)
        self.seen[stream] += len(data)

    def _resume(self) -> None:
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        total = os.fstat(self._descriptor).st_size
        while self.size + HEADER.size <= total:
            stream, length = HEADER.unpack(os.pread(self._descriptor, HEADER.size, self.size))
            if self.size + HEADER.size + length > total or stream not in self.seen:
                break
            self.size += HEADER.size + length
            self.seen[stream] += length
        os.ftruncate(self._descriptor, self.size)
        self.payload_bytes = self.seen[STDOUT] + self.seen[STDERR]
        self.is_capped = self.payload_bytes >= self._cap
