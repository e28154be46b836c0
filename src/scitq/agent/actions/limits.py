"""What an archive may become: numbers, sizes and ratio, counted while it is extracted (docs/data.md, "Limits")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scitq.errors import DiskFullError, StorageError
from scitq.storage.base import Cancel
from scitq.util.units import format_bytes

_ASK_ROOM_EVERY: Final = 64 << 20
_RATIO_COUNTS_FROM: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one extraction; `most_ratio` counts once 1 GiB came out, for small files compress as they like."""

    most_files: int = 1_000_000
    most_bytes: int = 2 * 10**12
    most_ratio: int = 2000


def no_room_asked(_count: int) -> None:
    """The room callback of who bounds nothing."""


class Meter:
    """Counts what comes out of one source; raises StorageError at the bounds and CancelledError when called off.

    room: told before so many bytes more are written; raises DiskFullError when they would not fit.
    """

    def __init__(self, uri: str, limits: Limits, cancel: Cancel, room: Callable[[int], None] = no_room_asked) -> None:
        self.uri = self._source = uri
        self._limits, self._cancel, self._room = limits, cancel, room
        self.files = 0
        self.bytes = 0
        self._packed = 0
        self._asked = 0

    def begin(self, packed_bytes: int) -> None:
        """A further archive of this source, of `packed_bytes` on disk."""
        self._packed += packed_bytes

    def look_at(self, name: str) -> None:
        """Name this one of several files in messages; none when empty."""
        self.uri = f"{self._source}: {name}" if name else self._source

    def add_file(self) -> None:
        """One member more, of whatever type."""
        self.files += 1
        if self.files > self._limits.most_files:
            raise StorageError(
                f"{self.uri}: the archive holds more than {self._limits.most_files} files (worker.max_extract_files in scitq.yaml)"
            )
        if not self.files % 256:
            self._cancel.check()

    def add_bytes(self, count: int) -> None:
        """So many bytes are about to be written."""
        self.pass_bytes(count)
        if self.bytes > self._asked:
            self._ask(max(_ASK_ROOM_EVERY, count))
            self._asked = self.bytes + _ASK_ROOM_EVERY

    def pass_bytes(self, count: int) -> None:
        """So many bytes came out that nobody keeps."""
        self._cancel.check()
        self.bytes += count
        if self.bytes > self._limits.most_bytes:
            most = format_bytes(self._limits.most_bytes)
            raise StorageError(f"{self.uri}: it would expand to more than {most} (worker.max_extract_size in scitq.yaml)")
        if self.bytes > _RATIO_COUNTS_FROM and self.bytes > self._limits.most_ratio * max(self._packed, 1):
            raise StorageError(f"{self.uri}: it expands to more than {self._limits.most_ratio} times its size, as only an attack does")

    def _ask(self, count: int) -> None:
        try:
            self._room(count)
        except DiskFullError as error:
            raise DiskFullError(f"{self.uri}: {error.message}; {format_bytes(self.bytes)} of its content had come out so far") from error
