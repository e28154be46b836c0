"""How much of each attempt's log is stored, and the small ones themselves; large ones lie in files (broker/logstore.py)."""

from __future__ import annotations

from typing import NamedTuple

import apsw


class LogState(NamedTuple):
    """Bytes stored, and the bytes themselves while they are few; `small` None: they lie in the file."""

    size: int
    small: bytes | None


def get(tx: apsw.Connection, task_id: int, attempt: int) -> LogState | None:
    """The log of an attempt, or None when nothing was ever stored."""
    row = tx.execute("SELECT size, small FROM task_log WHERE task_id = ? AND attempt = ?", (task_id, attempt)).fetchone()
    return LogState(row[0], row[1]) if row else None


def put(tx: apsw.Connection, task_id: int, attempt: int, state: LogState) -> None:
    """Store the state of an attempt's log."""
    tx.execute(
        "INSERT INTO task_log (task_id, attempt, size, small) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET size = excluded.size, small = excluded.small",
        (task_id, attempt, state.size, state.small),
    )


def attempts(tx: apsw.Connection, task_id: int) -> list[tuple[int, int]]:
    """(attempt, bytes) of every attempt of a task that has a log, oldest first."""
    return list(tx.execute("SELECT attempt, size FROM task_log WHERE task_id = ? ORDER BY attempt", (task_id,)))
