"""Downloads from whatever answers HTTP range requests: S3, web servers, and rclone's own server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Final

from isal import isal_zlib

from scitq.errors import ScitqError
from scitq.storage.base import Cancel, Progress
from scitq.storage.transfer import buffer, run_parallel, stream_slot, with_retries, write_at
from scitq.storage.wire import Reply

PIECE: Final = 32 << 20
"""Files up to this size travel in one call; larger ones in pieces of at least this size."""
PIECES_AT_ONCE: Final = 6
MOST_PIECES: Final = 10_000


@dataclass(slots=True)
class Range:
    """A range of an object on its way here, and how far it has come.

    announced: the CRC-32 that the service told for the whole object, if this range is the whole.
    """

    start: int
    size: int
    done: int = 0
    crc: int = 0
    announced: str = ""
    is_encrypted: bool = False

    @property
    def header(self) -> str:
        """What to ask for: the rest of it."""
        return f"bytes={self.start + self.done}-{self.start + self.size - 1}"


Opener = Callable[[Range, Cancel], AbstractContextManager[Reply]]
"""Asks for the rest of a range, and has checked that the answer is just that."""


def piece_size(size: int) -> int:
    """How large the pieces of a file of `size` bytes are: whole MiB, and never more than 10,000 of them."""
    mebibytes = -(-size // (MOST_PIECES << 20))
    return max(PIECE, mebibytes << 20)


def fetch(
    opener: Opener, part: Range, descriptor: int, progress: Progress, cancel: Cancel, hashed: Callable[[memoryview], None] | None = None
) -> None:
    """Write one range to the open file at its place, with its CRC-32; after a cut go on where it ended."""

    def attempt() -> None:
        with stream_slot(cancel), opener(part, cancel) as reply:
            view = buffer()
            while count := reply.read_into(view):
                data = view[:count]
                write_at(descriptor, data, part.start + part.done)
                part.crc = isal_zlib.crc32(data, part.crc)
                if hashed is not None:
                    hashed(data)
                part.done += count
                progress(count)

    if part.size:
        with_retries(attempt, cancel=cancel, done=lambda: part.done)


def fetch_in_pieces(opener: Opener, size: int, descriptor: int, progress: Progress, cancel: Cancel) -> list[Range]:
    """Write the whole object to the open file, several ranges at a time."""
    step = piece_size(size)
    parts = [Range(start, min(step, size - start)) for start in range(0, size, step)]

    def job(part: Range) -> Callable[[Cancel], None]:
        return lambda ours: fetch(opener, part, descriptor, progress, ours)

    run_parallel([job(part) for part in parts], workers=PIECES_AT_ONCE, cancel=cancel)
    return parts


def combined_crc(parts: Sequence[Range]) -> int:
    """The CRC-32 of all `parts`, one after the other."""
    whole = 0
    for part in parts:
        whole = isal_zlib.crc32_combine(whole, part.crc, part.size)
    return whole


class RangeReader:
    """An object as a stream; a cut is mended by asking for the rest."""

    def __init__(self, opener: Opener, size: int, offset: int, cancel: Cancel) -> None:
        start = min(offset, size)
        self._part = Range(start, size - start)
        self._opener, self._cancel = opener, cancel
        self._manager: AbstractContextManager[Reply] | None = None
        self._reply: Reply | None = None

    def __enter__(self) -> RangeReader:
        return self

    def __exit__(self, *_error: object) -> None:
        self._drop()

    def _drop(self) -> None:
        manager, self._manager, self._reply = self._manager, None, None
        if manager is not None:
            with suppress(ScitqError):
                manager.__exit__(None, None, None)

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, empty at the end."""
        if self._part.done >= self._part.size or size <= 0:
            return b""
        return with_retries(lambda: self._attempt(size), cancel=self._cancel)

    def _attempt(self, size: int) -> bytes:
        try:
            if self._reply is None:
                manager = self._opener(self._part, self._cancel)
                self._reply = manager.__enter__()
                self._manager = manager
            view = memoryview(bytearray(min(size, 1 << 20)))
            count = self._reply.read_into(view)
        except BaseException:
            self._drop()
            raise
        self._part.done += count
        return bytes(view[:count])
