"""Recruiters, and the counts of tasks by step that they look at."""

from __future__ import annotations

from typing import Any, NamedTuple

import apsw

from scitq.broker.recruit_state import StepView

MOST_COUNTED = 20_000
"""Tasks of one step and status are counted up to here, so that a million of them does not slow the loop."""


class Recruiter(NamedTuple):
    """One recruiter as it is stored."""

    id: int
    step_id: int
    filter: str
    rank: int
    concurrency: int | None
    cpus_per_task: float | None
    mem_per_task_gib: float | None
    disk_per_task_gb: float | None
    concurrency_min: int
    concurrency_max: int | None
    prefetch: int
    prefetch_percent: int | None
    rounds: float
    max_workers: int | None
    timeout_s: float
    created_ms: int
    next_try_ms: int
    unmet_since_ms: int | None
    last_error: str


_COLUMNS = ", ".join(Recruiter._fields)
_SETTABLE = frozenset(Recruiter._fields) - {"id", "step_id", "created_ms"}


def insert(tx: apsw.Connection, step_id: int, values: dict[str, Any], now_ms: int) -> int:
    """A recruiter; its id."""
    tx.execute("INSERT INTO recruiter (step_id, created_ms) VALUES (?, ?)", (step_id, now_ms))
    recruiter_id = tx.last_insert_rowid()
    update(tx, recruiter_id, values)
    return recruiter_id


def update(tx: apsw.Connection, recruiter_id: int, values: dict[str, Any]) -> None:
    """Set some of its columns."""
    if set(values) - _SETTABLE:
        raise ValueError(f"no such columns: {set(values) - _SETTABLE}")
    if values:
        assignments = ", ".join(f"{name} = :{name}" for name in values)
        tx.execute(f"UPDATE recruiter SET {assignments} WHERE id = :id", {**values, "id": recruiter_id})


def get(tx: apsw.Connection, recruiter_id: int) -> Recruiter | None:
    """The recruiter, or None."""
    row = tx.execute(f"SELECT {_COLUMNS} FROM recruiter WHERE id = ?", (recruiter_id,)).fetchone()
    return Recruiter(*row) if row else None


def listed(tx: apsw.Connection, *, step_id: int | None = None, workflow_id: int | None = None) -> list[Recruiter]:
    """By step and rank."""
    found = tx.execute(
        f"SELECT {_COLUMNS} FROM recruiter WHERE (:step IS NULL OR step_id = :step)"
        " AND (:workflow IS NULL OR step_id IN (SELECT id FROM step WHERE workflow_id = :workflow)) ORDER BY step_id, rank, id",
        {"step": step_id, "workflow": workflow_id},
    )
    return [Recruiter(*row) for row in found]


def delete(tx: apsw.Connection, recruiter_id: int) -> None:
    """One less."""
    tx.execute("DELETE FROM recruiter WHERE id = ?", (recruiter_id,))


def exists_any(tx: apsw.Connection) -> bool:
    """Whether there is anything to plan."""
    return tx.execute("SELECT 1 FROM recruiter LIMIT 1").fetchone() is not None


def steps(tx: apsw.Connection) -> dict[int, StepView]:
    """The open tasks of every step of the workflows that have recruiters, each count at most MOST_COUNTED."""
    rows = tx.execute(
        "SELECT step.id, step.workflow_id, step.is_paused OR workflow.status IN ('suspended', 'canceled')"
        " FROM step JOIN workflow ON workflow.id = step.workflow_id WHERE step.workflow_id IN"
        " (SELECT step.workflow_id FROM recruiter JOIN step ON step.id = recruiter.step_id)"
    )
    found: list[tuple[int, int, bool]] = [(row[0], row[1], bool(row[2])) for row in rows]
    return {
        step_id: StepView(
            id=step_id,
            workflow_id=workflow_id,
            is_paused=is_paused,
            pending=_count(tx, step_id, "P"),
            held=_held(tx, step_id),
            blocked=sum(_count(tx, step_id, letter) for letter in "WIZ"),
        )
        for step_id, workflow_id, is_paused in found
    }


def _count(tx: apsw.Connection, step_id: int, status: str) -> int:
    found = tx.execute(
        "SELECT count(*) FROM (SELECT 1 FROM task WHERE step_id = ? AND status = ? AND status NOT IN ('S', 'F', 'X') LIMIT ?)",
        (step_id, status, MOST_COUNTED),
    )
    return int(found.get)


def _held(tx: apsw.Connection, step_id: int) -> int:
    """Tasks that workers hold which still serve this step."""
    found = tx.execute(
        "SELECT count(*) FROM task JOIN worker ON worker.id = task.worker_id WHERE task.step_id = :step"
        " AND task.status IN ('A', 'C', 'D', 'O', 'R', 'U', 'V') AND task.status NOT IN ('S', 'F', 'X') AND worker.step_id = :step",
        {"step": step_id},
    )
    return int(found.get)


def workflow_limits(tx: apsw.Connection) -> dict[int, int]:
    """The most workers of each workflow that has such a limit."""
    return {row[0]: row[1] for row in tx.execute("SELECT id, maximum_workers FROM workflow WHERE maximum_workers IS NOT NULL")}
