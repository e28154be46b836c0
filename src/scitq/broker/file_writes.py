"""Files that users store through the server: pieces come as messages, and go on to the storage while the next ones come."""

from __future__ import annotations

import secrets
import threading
import zlib
from collections.abc import Callable
from typing import Final

from scitq.errors import ConflictError, NotFoundError, ScitqError, StorageError, UnavailableError
from scitq.storage.base import Cancel, Storage
from scitq.util import clock

_SILENCE_S: Final = 120.0
_PATIENCE_S: Final = 40.0
_MOST_WAITING: Final = 16 << 20
_MOST_WRITES: Final = 64
_KEPT_ENDS: Final = 1000


class _Write:
    """One file under way: a stream for the storage, fed by `add`."""

    def __init__(self, storage: Storage, key: str, size: int) -> None:
        self._uri, self._size = storage.uri(key), size
        self._changed = threading.Condition()
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._crc = 0
        self._is_whole = False
        self._cancel = Cancel()
        self.received = 0
        self.error: ScitqError | None = None
        self.is_ended = False
        self._thread = threading.Thread(target=self._store, args=(storage, key), name="file-write", daemon=True)
        self._thread.start()

    def _store(self, storage: Storage, key: str) -> None:
        error: ScitqError | None = None
        try:
            storage.put_stream(self, key, size=self._size, cancel=self._cancel)
        except ScitqError as found:
            error = found
        except Exception as found:  # noqa: BLE001 - the user who waits must be told
            error = StorageError(f"{self._uri}: {found}")
        with self._changed:
            self.error, self.is_ended = error, True
            self._pieces.clear()
            self._changed.notify_all()

    def read(self, size: int, /) -> bytes:
        """For the storage: waits for the next piece. A stream that was not ended well raises, so that nothing is stored."""
        deadline = clock.monotonic_s() + _SILENCE_S
        with self._changed:
            while not self._pieces:
                if self._is_whole:
                    return b""
                self._cancel.check()
                left = deadline - clock.monotonic_s()
                if left <= 0:
                    raise StorageError(f"{self._uri}: nothing came for {_SILENCE_S:.0f} s, so it was dropped")
                self._changed.wait(left)
            piece = self._pieces.pop(0)
            if len(piece) > size:
                self._pieces.insert(0, piece[size:])
                piece = piece[:size]
            self._waiting -= len(piece)
            self._changed.notify_all()
            return piece

    def add(self, offset: int, data: bytes) -> None:
        """Take the piece at `offset`, once there is room; one that came already is let be."""
        with self._changed:
            self._wait_for(lambda: self.is_ended or self._waiting < _MOST_WAITING)
            if self.error is not None:
                raise self.error
            if offset + len(data) <= self.received:
                return
            if offset != self.received:
                raise ConflictError(f"{self._uri}: a piece at {offset} came where {self.received} was due; start the file anew")
            self._pieces.append(data)
            self._waiting += len(data)
            self.received += len(data)
            self._crc = zlib.crc32(data, self._crc)
            self._changed.notify_all()

    def end(self, crc32: int | None) -> None:
        """All came; wait until it is stored. None, or a sum that is not the file's, drops it."""
        with self._changed:
            is_right = crc32 == self._crc and self.received == self._size
            if is_right:
                self._is_whole = True
                self._changed.notify_all()
        if not is_right:
            self.drop()
            if crc32 is not None:
                raise StorageError(f"{self._uri}: what came is not what was sent (size or CRC-32 differ); nothing was stored, try again")
            return
        with self._changed:
            self._wait_for(lambda: self.is_ended)
            if self.error is not None:
                raise self.error

    def drop(self) -> None:
        """Give it up and wait until nothing of it is left."""
        self._cancel.cancel()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(_PATIENCE_S)

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        if not self._changed.wait_for(condition, _PATIENCE_S):
            raise UnavailableError(f"{self._uri}: the storage is slow; ask again")


class Writes:
    """All writes under way, by an id that nobody can guess."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writes: dict[str, _Write] = {}

    def begin(self, storage: Storage, key: str, size: int) -> str:
        """Begin to store `size` bytes as `key`; returns the id."""
        with self._lock:
            active = [write for write in self._writes.values() if not write.is_ended]
            if len(active) >= _MOST_WRITES:
                raise UnavailableError(f"{_MOST_WRITES} files are being stored through the server already; try again later")
            for write_id in list(self._writes)[: max(len(self._writes) - _KEPT_ENDS, 0)]:
                if self._writes[write_id].is_ended:
                    del self._writes[write_id]
            write_id = secrets.token_urlsafe(18)
            self._writes[write_id] = _Write(storage, key, size)
            return write_id

    def add(self, write_id: str, offset: int, data: bytes) -> None:
        """See FileWriteChunk."""
        self._find(write_id).add(offset, data)

    def end(self, write_id: str, crc32: int | None) -> None:
        """See FileEndWrite; repeatable."""
        self._find(write_id).end(crc32)

    def close(self) -> None:
        """Drop all that are under way."""
        for write in list(self._writes.values()):
            if not write.is_ended:
                write.drop()

    def _find(self, write_id: str) -> _Write:
        with self._lock:
            write = self._writes.get(write_id)
        if write is None:
            raise NotFoundError("the server does not know this write (it was restarted); start the file anew")
        return write
