"""Reading a task's log: records of a stream's number, a length and the bytes (docs/protocol.md, "Logs")."""

from __future__ import annotations

import struct
from collections.abc import Iterator

STDOUT, STDERR, NOTE = 1, 2, 3
_HEADER = struct.Struct(">BI")


class Frames:
    """Cuts pieces of a log, however they were divided, into (stream, bytes); a long record comes in several parts."""

    def __init__(self) -> None:
        self._head = b""
        self._stream = 0
        self._left = 0

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """What `data` adds."""
        view = memoryview(data)
        while view:
            if self._left == 0:
                missing = _HEADER.size - len(self._head)
                self._head += view[:missing]
                view = view[missing:]
                if len(self._head) < _HEADER.size:
                    return
                self._stream, self._left = _HEADER.unpack(self._head)
                self._head = b""
                continue
            piece = view[: self._left]
            view = view[len(piece) :]
            self._left -= len(piece)
            yield self._stream, bytes(piece)
