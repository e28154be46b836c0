"""Slow operations on providers, kept until they have succeeded."""

from __future__ import annotations

from typing import NamedTuple

import apsw


class Job(NamedTuple):
    """One operation: create or delete a machine. Status: queued, running, done, failed, dropped."""

    id: int
    kind: str
    provider: str
    machine: str
    worker_id: int | None
    status: str
    tries: int
    created_ms: int
    next_ms: int
    ended_ms: int | None
    error: str


_COLUMNS = ", ".join(Job._fields)


def insert(tx: apsw.Connection, kind: str, provider: str, machine: str, worker_id: int | None, now_ms: int) -> int:
    """A job to be done soon; its id."""
    tx.execute(
        "INSERT INTO job (kind, provider, machine, worker_id, created_ms, next_ms) VALUES (?, ?, ?, ?, ?, ?)",
        (kind, provider, machine, worker_id, now_ms, now_ms),
    )
    return tx.last_insert_rowid()


def get(tx: apsw.Connection, job_id: int) -> Job | None:
    """The job, or None."""
    row = tx.execute(f"SELECT {_COLUMNS} FROM job WHERE id = ?", (job_id,)).fetchone()
    return Job(*row) if row else None


def due(tx: apsw.Connection, now_ms: int, most: int) -> list[Job]:
    """Jobs to start now, oldest first; of one machine only the first, and none while another of it runs."""
    found = tx.execute(
        f"SELECT {_COLUMNS} FROM job WHERE status = 'queued' AND next_ms <= :now AND NOT EXISTS ("
        " SELECT 1 FROM job AS other WHERE other.machine = job.machine AND other.id <> job.id"
        " AND (other.status = 'running' OR (other.status = 'queued' AND other.id < job.id)))"
        " ORDER BY next_ms, id LIMIT :most",
        {"now": now_ms, "most": most},
    )
    return [Job(*row) for row in found]


def count_running(tx: apsw.Connection) -> int:
    """How many are with threads."""
    return int(tx.execute("SELECT count(*) FROM job WHERE status = 'running'").get)


def open_of(tx: apsw.Connection, machine: str) -> list[Job]:
    """What is still to be done about the machine, or being done."""
    found = tx.execute(f"SELECT {_COLUMNS} FROM job WHERE machine = ? AND status IN ('queued', 'running') ORDER BY id", (machine,))
    return [Job(*row) for row in found]


def start(tx: apsw.Connection, job_id: int, patience_ms: int) -> None:
    """A job goes to a thread; when nothing was heard of it by `patience_ms`, it may be started again."""
    tx.execute("UPDATE job SET status = 'running', tries = tries + 1, next_ms = ? WHERE id = ?", (patience_ms, job_id))


def end(tx: apsw.Connection, job_id: int, status: str, now_ms: int, error: str = "") -> None:
    """A job is done, has failed for good, or is dropped."""
    tx.execute("UPDATE job SET status = ?, ended_ms = ?, error = ? WHERE id = ?", (status, now_ms, error, job_id))


def put_off(tx: apsw.Connection, job_id: int, next_ms: int, error: str) -> None:
    """A job failed and is tried again later."""
    tx.execute("UPDATE job SET status = 'queued', next_ms = ?, error = ? WHERE id = ?", (next_ms, error, job_id))


def drop_queued(tx: apsw.Connection, machine: str, kind: str, now_ms: int) -> None:
    """What has not started of this kind is no longer wanted."""
    tx.execute(
        "UPDATE job SET status = 'dropped', ended_ms = ? WHERE machine = ? AND kind = ? AND status = 'queued'", (now_ms, machine, kind)
    )


def start_over(tx: apsw.Connection, before_ms: int | None = None) -> None:
    """What a former server was at (or a thread that is long lost, when a time is given) is to be done again."""
    tx.execute(
        "UPDATE job SET status = 'queued', next_ms = 0 WHERE status = 'running' AND (:before IS NULL OR next_ms < :before)",
        {"before": before_ms},
    )


def listed(tx: apsw.Connection, *, limit: int, status: str, worker_id: int | None) -> list[Job]:
    """Newest first."""
    found = tx.execute(
        f"SELECT {_COLUMNS} FROM job WHERE (:status = '' OR status = :status) AND (:worker IS NULL OR worker_id = :worker)"
        " ORDER BY id DESC LIMIT :limit",
        {"status": status, "worker": worker_id, "limit": limit or -1},
    )
    return [Job(*row) for row in found]


def tidy(tx: apsw.Connection, before_ms: int) -> None:
    """Forget what ended long ago."""
    tx.execute("DELETE FROM job WHERE status IN ('done', 'dropped') AND ended_ms < ?", (before_ms,))
