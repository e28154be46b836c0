"""Copies between storages, made by the server: each in a thread of its own, watched by who asked, cancelled when nobody asks."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from typing import Final

from scitq.errors import CancelledError, NotFoundError, ScitqError, StorageError, UnavailableError, UsageError
from scitq.model.uri import Uri
from scitq.protocol.messages.file import FileCopying
from scitq.storage.base import Cancel, Storage
from scitq.storage.resolve import Source, resolve
from scitq.storage.transfer import run_parallel
from scitq.util import clock

_SILENCE_S: Final = 120.0
_FILES_AT_ONCE: Final = 8
_MOST_COPIES: Final = 32
_KEPT_ENDS: Final = 200
_MOST_WAIT_S: Final = 10.0


class _Copy:
    def __init__(self, source_storage: Storage, source: Uri, target_storage: Storage, target: Uri) -> None:
        self.copy_id = secrets.token_urlsafe(18)
        self._from, self._source, self._to, self._target = source_storage, source, target_storage, target
        self._changed = threading.Condition()
        self._asked_s = clock.monotonic_s()
        self._done_bytes = self._total_bytes = self._done_files = self._total_files = 0
        self._error: ScitqError | None = None
        self.cancel = Cancel()
        self.is_ended = False
        self._thread = threading.Thread(target=self._run, name="file-copy", daemon=True)
        self._thread.start()

    def status(self, at_most_s: float) -> FileCopying:
        """How far it is, after `at_most_s` or at its end."""
        with self._changed:
            self._asked_s = clock.monotonic_s()
            self._changed.wait_for(lambda: self.is_ended, min(max(at_most_s, 0.0), _MOST_WAIT_S))
            self._asked_s = clock.monotonic_s()
            return FileCopying(
                copy_id=self.copy_id,
                done_bytes=self._done_bytes,
                total_bytes=self._total_bytes,
                done_files=self._done_files,
                total_files=self._total_files,
                is_ended=self.is_ended,
                error=self._error.message if self._error else "",
                error_code=self._error.code if self._error else "",
            )

    def _run(self) -> None:
        error: ScitqError | None = None
        try:
            sources = resolve(self._from, self._source, cancel=self.cancel)
            is_single = len(sources) == 1 and sources[0].key == self._source.path
            self._total_files = len(sources)
            self._total_bytes = sum(max(source.size, 0) for source in sources)
            run_parallel([self._job(source, is_single) for source in sources], workers=_FILES_AT_ONCE, cancel=self.cancel)
        except CancelledError:
            error = CancelledError("the copy was called off")
        except ScitqError as found:
            error = found
        except Exception as found:  # noqa: BLE001 - the user who waits must be told
            error = StorageError(f"{self._source.location}: {found}")
        with self._changed:
            self._error, self.is_ended = error, True
            self._changed.notify_all()

    def _job(self, source: Source, is_single: bool) -> Callable[[Cancel], None]:
        key = target_key(self._target, source.path, is_single=is_single)
        if self._from is self._to and key == source.key:
            raise UsageError(f"{self._from.uri(key)} would be copied onto itself")

        def copy(cancel: Cancel) -> None:
            with self._from.open_read(source.key, cancel=cancel) as stream:
                self._to.put_stream(stream, key, size=source.size if source.size >= 0 else None, progress=self._add, cancel=cancel)
            with self._changed:
                self._done_files += 1

        return copy

    def _add(self, count: int) -> None:
        with self._changed:
            self._done_bytes += count
            is_watched = clock.monotonic_s() - self._asked_s < _SILENCE_S
        if not is_watched:
            self.cancel.cancel()


class Copies:
    """All copies under way, by an id that nobody can guess."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._copies: dict[str, _Copy] = {}

    def begin(self, source_storage: Storage, source: Uri, target_storage: Storage, target: Uri) -> FileCopying:
        """Begin; the answer has the id."""
        with self._lock:
            if sum(not copy.is_ended for copy in self._copies.values()) >= _MOST_COPIES:
                raise UnavailableError(f"the server makes {_MOST_COPIES} copies already; try again later")
            for copy_id in list(self._copies)[: max(len(self._copies) - _KEPT_ENDS, 0)]:
                if self._copies[copy_id].is_ended:
                    del self._copies[copy_id]
            copy = _Copy(source_storage, source, target_storage, target)
            self._copies[copy.copy_id] = copy
        return copy.status(0)

    def status(self, copy_id: str, at_most_s: float, *, is_cancelled: bool) -> FileCopying:
        """See FileCopyStatus."""
        with self._lock:
            copy = self._copies.get(copy_id)
        if copy is None:
            raise NotFoundError("the server does not know this copy (it was restarted); start it anew")
        if is_cancelled:
            copy.cancel.cancel()
        return copy.status(at_most_s)

    def close(self) -> None:
        """Call all off."""
        for copy in list(self._copies.values()):
            copy.cancel.cancel()


def target_key(target: Uri, path: str, *, is_single: bool) -> str:
    """The key for a source's `path`: the target itself for a single file, unless it is a folder or a bucket."""
    if is_single and not target.is_folder and target.key:
        return target.path
    return f"{target.path.rstrip('/')}/{path}"
