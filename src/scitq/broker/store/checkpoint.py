"""Folding the WAL into the database in a thread of its own, so that no commit waits for it."""

from __future__ import annotations

import threading

import apsw

from scitq.broker.store.connection import Store

PAGES = 4000
"""Pages that the WAL grows by from one checkpoint to the next; one after each commit would write pages that soon change again."""
MOST_PAGES = 64_000
"""Pages from which the WAL is also cut back, which waits for readers (at most the busy time-out)."""


class Checkpointer:
    """Watches the writer's commits. On a network file system SQLite's own checkpoints are kept instead."""

    def __init__(self, store: Store) -> None:
        """Start the thread."""
        self._store = store
        self._wanted = threading.Event()
        self._pages = 0
        self._folded = 0
        self._is_ending = False
        self._thread: threading.Thread | None = None
        if not store.is_exclusive:
            store.writer.wal_autocheckpoint(0)
            store.writer.set_wal_hook(self._after_commit)
            self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
            self._thread.start()

    def _after_commit(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._pages = pages
        if pages < self._folded:  # the WAL was begun anew
            self._folded = 0
        if pages - self._folded >= PAGES:
            self._wanted.set()
        return apsw.SQLITE_OK

    def _run(self) -> None:
        connection = apsw.Connection(str(self._store.path))
        connection.set_busy_timeout(200)
        connection.execute("PRAGMA synchronous = FULL")
        while True:
            self._wanted.wait()
            if self._is_ending:
                connection.close()
                return
            self._wanted.clear()
            pages = self._pages
            mode = apsw.SQLITE_CHECKPOINT_RESTART if pages >= MOST_PAGES else apsw.SQLITE_CHECKPOINT_PASSIVE
            try:
                connection.wal_checkpoint(mode=mode)
                self._folded = pages
            except apsw.Error:
                # Busy readers, or a full disk, which the writer will say itself; the next commit wakes us again.
                continue

    def stop(self) -> None:
        """End the thread."""
        self._is_ending = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
