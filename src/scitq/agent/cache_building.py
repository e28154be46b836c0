"""A download of a resource under way, the tasks that wait for it, and what each of them is told of its progress."""

from __future__ import annotations

import threading
from typing import Protocol, Self

from scitq.agent.cache_entry import Entry
from scitq.errors import CancelledError, ScitqError, StorageError
from scitq.storage.base import Cancel


class Watch(Protocol):
    """Who is told how far a download has come."""

    def expect(self, count: int) -> None:
        """So many bytes more are to do."""

    def add(self, count: int) -> None:
        """So many bytes more are done (fewer when negative)."""

    def following(self) -> Self:
        """The same for downloads that another task began."""


class Building:
    """It is called off when nobody waits any more; `waiters` and what follows is guarded by the cache's lock."""

    def __init__(self) -> None:
        self.cancel = Cancel()
        self.waiters = 0
        self.entry: Entry | None = None
        self.error: BaseException | None = None
        self.is_abandoned = False
        self.is_ended = False
        self._lock = threading.Lock()
        self._watches: list[Watch] = []
        self._done = self._total = 0

    def tell(self, watch: Watch) -> None:
        """Tell `watch` what has come so far, and all that comes from now on."""
        with self._lock:
            self._watches.append(watch)
            done, total = self._done, self._total
        watch.expect(total)
        watch.add(done)

    def untell(self, watch: Watch) -> None:
        """Tell `watch` no more."""
        with self._lock:
            if watch in self._watches:
                self._watches.remove(watch)

    def expect(self, count: int) -> None:
        """See Watch."""
        with self._lock:
            self._total += count
            watches = list(self._watches)
        for watch in watches:
            watch.expect(count)

    def add(self, count: int) -> None:
        """See Watch."""
        with self._lock:
            self._done += count
            watches = list(self._watches)
        for watch in watches:
            watch.add(count)


def again(error: BaseException) -> BaseException:
    """A copy to raise in another thread: one exception raised in several would mix their tracebacks."""
    if isinstance(error, CancelledError):
        return StorageError("the download was called off; try again")
    if isinstance(error, ScitqError):
        return type(error)(*error.args)
    return error
