"""What every storage can do, and the small types that storages and their users share (docs/storage.md)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from scitq.errors import CancelledError, ScitqError

Progress = Callable[[int], None]
"""Told how many bytes more were done, from any thread; a negative number when a piece has to be done again."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a storage, or, in a listing of one level, a folder (`key` ends with a slash).

    key: the whole path as in a URI, bucket included.
    size: bytes; -1 when the storage does not tell.
    modified_ms: last change, Unix milliseconds; None when unknown.
    etag: the storage's own mark of the content (an ETag, a checksum); None when there is none.
    """

    key: str
    size: int
    modified_ms: int | None = None
    etag: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether this stands for a folder and not for an object."""
        return self.key.endswith("/")

    @property
    def version(self) -> str:
        """A text that changes when the content does, as far as the storage shows it."""
        return f"{self.size}-{self.etag}" if self.etag else f"{self.size}-{self.modified_ms}"


@dataclass(frozen=True, slots=True)
class Failure:
    """One file of many that could not be transferred."""

    key: str
    error: ScitqError


class Cancel:
    """Tells a transfer to stop; set from another thread, seen at once."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._next = 0

    def cancel(self) -> None:
        """Stop whatever works under this token, now and later; repeatable."""
        with self._lock:
            self._event.set()
            callbacks = list(self._callbacks.values())
        for callback in callbacks:
            callback()

    @property
    def is_cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._event.is_set()

    @contextmanager
    def child(self) -> Iterator[Cancel]:
        """A token of its own that is cancelled along with this one."""
        child = Cancel()
        with self.on_cancel(child.cancel):
            yield child

    def check(self) -> None:
        """Raise CancelledError once cancelled."""
        if self._event.is_set():
            raise CancelledError("the transfer was cancelled")

    def wait(self, seconds: float) -> None:
        """Wait, for back-off; raises CancelledError as soon as cancelled."""
        self._event.wait(seconds)
        self.check()

    @contextmanager
    def on_cancel(self, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback` (quick, thread-safe) when cancelled during the block; raises CancelledError if it is already."""
        with self._lock:
            self.check()
            self._next += 1
            number = self._next
            self._callbacks[number] = callback
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.pop(number, None)


def ignore_progress(_count: int) -> None:
    """The progress callback of who does not care."""


class Readable(Protocol):
    """What streams give: bytes until an empty answer."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, empty at the end."""


class Storage(Protocol):
    """A place for objects. Thread-safe. Keys are whole paths as in URIs, bucket included.

    Everything raises StorageError (TransientStorageError when retries were in vain, SourceMissingError, DiskFullError,
    CancelledError), whose message names the URI.
    """

    name: str

    def uri(self, key: str) -> str:
        """The URI of `key`, for messages."""

    def entries(self, prefix: str, *, recursive: bool = True, cancel: Cancel | None = None) -> Iterator[Entry]:
        """Objects whose key starts with the text `prefix`, in no promised order; nothing when there is none.

        Not recursive: only those without a further slash after `prefix`, and one folder entry for each deeper level.
        Markers of folders (objects whose key ends with a slash) are left out.
        """

    def stat(self, key: str) -> Entry | None:
        """The object `key`; None when there is no such object (a folder is none)."""

    def download(
        self, key: str, target: Path, *, entry: Entry | None = None, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> Entry:
        """Put the object at `target` (folders made, an old file replaced) whole or not at all; returns what was downloaded.

        entry: what a listing said; a source that has another content by now is an error.
        """

    def download_many(
        self, pairs: Sequence[tuple[Entry, Path]], *, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> None:
        """Download all, in parallel; the first failure stops the others and is raised."""

    def upload(self, source: Path, key: str, *, progress: Progress = ignore_progress, cancel: Cancel | None = None) -> Entry:
        """Store the file `source` as `key`, whole or not at all."""

    def upload_many(
        self, pairs: Sequence[tuple[Path, str]], *, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> list[Failure]:
        """Upload all, in parallel; one that fails does not keep the others from going on, and is in the answer."""

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; what is absent is fine."""

    def open_read(self, key: str, *, offset: int = 0, cancel: Cancel | None = None) -> AbstractContextManager[Readable]:
        """The object's content as a stream from byte `offset` on."""

    def put_stream(
        self, stream: Readable, key: str, *, size: int | None = None, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> Entry:
        """Store all of `stream` as `key`, in bounded memory; with `size`, a stream of another length is an error."""

    def sign(self, key: str, method: str = "GET", *, expires_s: int = 3600) -> str | None:
        """A URL that lets its holder GET or PUT this one object without keys; None when this storage can't."""

    def check(self, path: str = "") -> None:
        """Raise unless the storage (and the bucket of `path`, if given) answers and accepts our credentials."""

    def close(self) -> None:
        """Let go of connections and children."""


@runtime_checkable
class MultipartStorage(Protocol):
    """A storage to which others can upload in parts, each by its signed URL."""

    def start_multipart(self, key: str) -> str:
        """Begin; returns the upload's id."""

    def sign_part(self, key: str, upload_id: str, number: int, *, expires_s: int = 3600) -> str:
        """The URL for PUT of part `number` (1 to 10,000; 5 MiB at least, but for the last)."""

    def sign_part_head(self, key: str, number: int, *, expires_s: int = 3600) -> str:
        """The URL for HEAD of part `number` of an object that was stored in parts."""

    def complete_multipart(self, key: str, upload_id: str, etags: Sequence[str]) -> Entry:
        """Make the object of the parts, whose ETag headers are `etags` in order."""

    def abort_multipart(self, key: str, upload_id: str) -> None:
        """Forget the parts; repeatable."""
