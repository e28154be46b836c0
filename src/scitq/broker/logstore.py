"""Logs of attempts: the first 64 KiB in the database, with the transaction; longer ones in a file each.

A file may be longer than the database says, after a crash: what is beyond is written over. Writers belong to the loop.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import apsw

from scitq.broker.store import logs
from scitq.broker.store.logs import LogState

SMALL_BYTES = 64 * 1024


class LogStore:
    """The folder of long logs, `<id // 1000>/<id>.<attempt>`."""

    def __init__(self, folder: Path) -> None:
        """Make the folder."""
        self.folder = folder
        folder.mkdir(mode=0o700, exist_ok=True)

    def path(self, task_id: int, attempt: int) -> Path:
        """Where a long log lies."""
        return self.folder / str(task_id // 1000) / f"{task_id}.{attempt}"

    def append(self, tx: apsw.Connection, task_id: int, attempt: int, offset: int, data: bytes) -> int:
        """Store what of `data` (at `offset` of the attempt's log) is new; returns the bytes stored in all.

        A piece that begins beyond what is stored is refused by returning the old size: the agent sends from there.
        """
        state = logs.get(tx, task_id, attempt) or LogState(0, b"")
        if offset > state.size:
            return state.size
        fresh = data[state.size - offset :]
        if not fresh:
            return state.size
        size = state.size + len(fresh)
        if state.small is not None and size <= SMALL_BYTES:
            logs.put(tx, task_id, attempt, LogState(size, state.small + fresh))
            return size
        path = self.path(task_id, attempt)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        start, piece = (0, state.small + fresh) if state.small is not None else (state.size, fresh)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(piece)
            while view:
                written = os.pwrite(descriptor, view, start)
                view, start = view[written:], start + written
        finally:
            os.close(descriptor)
        logs.put(tx, task_id, attempt, LogState(size, None))
        return size

    def read(self, db: apsw.Connection, task_id: int, attempt: int, offset: int, most: int) -> bytes:
        """At most `most` stored bytes from `offset`."""
        state = logs.get(db, task_id, attempt)
        if state is None or offset >= state.size:
            return b""
        most = min(most, state.size - offset)
        if state.small is not None:
            return state.small[offset : offset + most]
        descriptor = os.open(self.path(task_id, attempt), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(descriptor, most, offset)
        finally:
            os.close(descriptor)

    def delete(self, task_id: int, attempts: list[int]) -> None:
        """Remove the files of a task's long logs."""
        for attempt in attempts:
            self.path(task_id, attempt).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
