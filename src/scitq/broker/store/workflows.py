"""Workflows and steps: making, listing, counting, measuring, removing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import msgspec

from scitq.broker.store.steps import Step, Workflow
from scitq.broker.store.tasks import read_spec
from scitq.protocol.messages.workflow import Spread, StepRow, StepStats, TaskContent, WorkflowRow

_WORKFLOW = "w.id, w.name, w.owner_id, w.status, w.maximum_workers"
ALIVE = "PACDORUVZI"
"""Statuses of tasks that can go on by themselves, or once somebody lets them."""


def insert(tx: apsw.Connection, name: str, owner_id: int, maximum_workers: int | None, template: str, now_ms: int) -> int:
    """A new, open workflow; its id."""
    tx.execute(
        "INSERT INTO workflow (name, owner_id, maximum_workers, template, created_ms) VALUES (?, ?, ?, ?, ?)",
        (name, owner_id, maximum_workers, template, now_ms),
    )
    return tx.last_insert_rowid()


def get(db: apsw.Connection, workflow_id: int) -> Workflow | None:
    """The workflow, or None."""
    row = db.execute(f"SELECT {_WORKFLOW} FROM workflow w WHERE w.id = ?", (workflow_id,)).fetchone()
    return Workflow(*row) if row else None


def named(db: apsw.Connection, name: str) -> list[Workflow]:
    """All workflows of that name, newest first."""
    query = f"SELECT {_WORKFLOW} FROM workflow w WHERE w.name = ? ORDER BY w.id DESC"
    return [Workflow(*row) for row in db.execute(query, (name,))]


def set_status(tx: apsw.Connection, workflow_id: int, status: str) -> None:
    """open, ready, suspended or canceled."""
    tx.execute("UPDATE workflow SET status = ? WHERE id = ?", (status, workflow_id))


def update(tx: apsw.Connection, workflow_id: int, name: str | None, maximum_workers: int | None) -> None:
    """A new name, a new limit; 0 is no limit, None leaves it."""
    tx.execute("UPDATE workflow SET name = coalesce(?, name) WHERE id = ?", (name, workflow_id))
    if maximum_workers is not None:
        tx.execute("UPDATE workflow SET maximum_workers = ? WHERE id = ?", (maximum_workers or None, workflow_id))


def template(db: apsw.Connection, workflow_id: int) -> str:
    """The text of the file that the workflow was made from."""
    found = db.execute("SELECT template FROM workflow WHERE id = ?", (workflow_id,)).fetchone()
    return str(found[0]) if found else ""


def delete(tx: apsw.Connection, workflow_id: int) -> None:
    """Remove a workflow that has no steps any more."""
    tx.execute("DELETE FROM workflow WHERE id = ?", (workflow_id,))


def insert_step(tx: apsw.Connection, workflow_id: int, name: str, retries: int, now_ms: int) -> int:
    """A new step; its id. Raises apsw.ConstraintError when the workflow has one of that name."""
    tx.execute("INSERT INTO step (workflow_id, name, retries, created_ms) VALUES (?, ?, ?, ?)", (workflow_id, name, retries, now_ms))
    return tx.last_insert_rowid()


def steps_of(db: apsw.Connection, workflow_id: int | None) -> list[Step]:
    """The steps of a workflow, or of all, by id."""
    query = "SELECT id, workflow_id, name, retries, is_paused FROM step WHERE :id IS NULL OR workflow_id = :id ORDER BY id"
    return [Step(row[0], row[1], row[2], row[3], bool(row[4])) for row in db.execute(query, {"id": workflow_id})]


def set_paused(tx: apsw.Connection, step_id: int, is_paused: bool) -> None:
    """Whether tasks of the step are held back."""
    tx.execute("UPDATE step SET is_paused = ? WHERE id = ?", (int(is_paused), step_id))


def set_retries(tx: apsw.Connection, step_id: int, retries: int) -> None:
    """How often later tasks of the step are tried again."""
    tx.execute("UPDATE step SET retries = ? WHERE id = ?", (retries, step_id))


def delete_step(tx: apsw.Connection, step_id: int) -> None:
    """Remove a step without tasks."""
    tx.execute("DELETE FROM step WHERE id = ?", (step_id,))


def workers_of(db: apsw.Connection, step_id: int) -> list[int]:
    """Workers of the step that are not deleted."""
    return [row[0] for row in db.execute("SELECT id FROM worker WHERE step_id = ? AND status <> 'deleted'", (step_id,))]


_IS_RUNNING = "(status = 'R' OR (status = 'Z' AND worker_id IS NOT NULL))"


def ids_of(
    db: apsw.Connection, letters: str, limit: int, *, is_running: bool, step_id: int | None = None, workflow_id: int | None = None
) -> list[int]:
    """Up to `limit` tasks of a step or workflow, not hidden, in one of the statuses, by id.

    is_running: only those whose command has started and not ended, frozen ones included; else only the others.
    """
    where = ("step_id" if step_id is not None else "workflow_id") + " = :id AND successor_id IS NULL AND instr(:letters, status) > 0"
    query = f"SELECT id FROM task WHERE {where} AND {_IS_RUNNING} = :running ORDER BY id LIMIT :limit"
    values = {"id": step_id if step_id is not None else workflow_id, "letters": letters, "limit": limit, "running": int(is_running)}
    return [row[0] for row in db.execute(query, values)]


def inactive(db: apsw.Connection, workflow_id: int, limit: int) -> list[int]:
    """Up to `limit` tasks of a workflow that are not finalized, by id; found by their status, so that each piece takes the same time."""
    query = (
        "SELECT id FROM task WHERE status = 'I' AND status NOT IN ('S') AND +workflow_id = ? AND successor_id IS NULL ORDER BY id LIMIT ?"
    )
    return [row[0] for row in db.execute(query, (workflow_id, limit))]


def contents(db: apsw.Connection, ids: Sequence[int]) -> dict[int, TaskContent]:
    """What those of the tasks that there are hold and wait for, by id."""
    asked = msgspec.json.encode(ids).decode()
    waits: dict[tuple[int, str], list[int]] = {}
    query = "SELECT task_id, kind, on_id FROM task_dependency WHERE task_id IN (SELECT value FROM json_each(?)) ORDER BY task_id, on_id"
    for task_id, kind, on_id in db.execute(query, (asked,)):
        waits.setdefault((task_id, kind), []).append(on_id)
    query = (
        "SELECT t.id, t.status, t.worker_id, s.container, s.command, s.body FROM task t JOIN task_spec s ON s.id = t.spec_id"
        " WHERE t.id IN (SELECT value FROM json_each(?))"
    )
    return {
        task_id: TaskContent(
            id=task_id, status=status, worker_id=worker_id, spec=read_spec(*spec),
            depends_on=waits.get((task_id, "success"), []), after_any=waits.get((task_id, "end"), []),
        )
        for task_id, status, worker_id, *spec in db.execute(query, (asked,))
    }  # fmt: skip


def attempts_of(db: apsw.Connection, limit: int, *, step_id: int | None = None, workflow_id: int | None = None) -> list[int]:
    """Up to `limit` tasks, hidden ones included, the newest first."""
    where = "step_id = :id" if step_id is not None else "workflow_id = :id"
    query = f"SELECT id FROM task WHERE {where} ORDER BY id DESC LIMIT :limit"
    return [row[0] for row in db.execute(query, {"id": step_id if step_id is not None else workflow_id, "limit": limit})]


def is_waited_outside(db: apsw.Connection, workflow_id: int) -> bool:
    """Whether a waiting task of the workflow waits for one outside of it that has not ended."""
    found = db.execute(
        "SELECT 1 FROM task t JOIN task_dependency d ON d.task_id = t.id AND d.is_met = 0 JOIN task o ON o.id = d.on_id"
        " WHERE t.workflow_id = ? AND t.status = 'W' AND t.successor_id IS NULL AND o.workflow_id IS NOT t.workflow_id"
        " AND o.status NOT IN ('S', 'F', 'X') LIMIT 1",
        (workflow_id,),
    )
    return found.fetchone() is not None


def counts(db: apsw.Connection, workflow_id: int) -> dict[str, int]:
    """Tasks that are not hidden, by letter."""
    query = "SELECT status, count(*) FROM task WHERE workflow_id = ? AND successor_id IS NULL GROUP BY status"
    return dict(db.execute(query, (workflow_id,)))


def is_over(db: apsw.Connection, workflow: Workflow, found: dict[str, int]) -> bool:
    """Whether nothing of the workflow can go on: all ended, or the rest waits for what failed."""
    if workflow.status == "open" or any(found.get(letter) for letter in ALIVE):
        return False
    return not (found.get("W") and is_waited_outside(db, workflow.id))


def status(db: apsw.Connection, workflow: Workflow, found: dict[str, int]) -> str:
    """The status as it is shown (see WorkflowRow)."""
    if workflow.status != "ready":
        return workflow.status
    if not found:
        return "empty"
    if not is_over(db, workflow, found):
        return "running"
    return "succeeded" if set(found) == {"S"} else "failed"


def row(db: apsw.Connection, workflow: Workflow) -> WorkflowRow:
    """A workflow as lists show it."""
    values = db.execute(
        "SELECT w.created_ms, u.name, (SELECT count(*) FROM step s WHERE s.workflow_id = w.id)"
        " FROM workflow w LEFT JOIN user u ON u.id = w.owner_id WHERE w.id = ?",
        (workflow.id,),
    ).fetchone() or (0, None, 0)
    found = counts(db, workflow.id)
    return WorkflowRow(
        id=workflow.id,
        name=workflow.name,
        status=status(db, workflow, found),
        user=values[1] or "(deleted)",
        maximum_workers=workflow.maximum_workers,
        created_ms=values[0],
        steps=values[2],
        counts=found,
    )


def listed(db: apsw.Connection, *, limit: int, offset: int, name: str | None, user: str | None) -> list[WorkflowRow]:
    """One page, newest first; `name` is contained, `%` in it a wildcard."""
    pattern = None if name is None else "%" + name.replace("\\", "\\\\").replace("_", "\\_") + "%"
    query = (
        f"SELECT {_WORKFLOW} FROM workflow w LEFT JOIN user u ON u.id = w.owner_id"
        " WHERE (:name IS NULL OR w.name LIKE :name ESCAPE '\\') AND (:user IS NULL OR u.name = :user)"
        " ORDER BY w.id DESC LIMIT :limit OFFSET :offset"
    )
    values = {"name": pattern, "user": user, "limit": limit or -1, "offset": offset}
    return [row(db, workflow) for workflow in [Workflow(*found) for found in db.execute(query, values)]]


def step_row(db: apsw.Connection, step: Step) -> StepRow:
    """A step as lists show it."""
    values = db.execute(
        "SELECT s.created_ms, w.name FROM step s JOIN workflow w ON w.id = s.workflow_id WHERE s.id = ?", (step.id,)
    ).fetchone() or (0, "")
    return StepRow(
        id=step.id,
        name=step.name,
        workflow_id=step.workflow_id,
        workflow=values[1],
        retries=step.retries,
        is_paused=step.is_paused,
        created_ms=values[0],
        counts=dict(db.execute("SELECT status, count(*) FROM task WHERE step_id = ? AND successor_id IS NULL GROUP BY status", (step.id,))),
        workers=len(workers_of(db, step.id)),
    )


_WALL = "(ended_ms - started_ms) / 1000.0"
_MEASURES = (
    ("succeeded_s", _WALL, "status = 'S' AND started_ms IS NOT NULL"),
    ("failed_s", _WALL, "status = 'F' AND started_ms IS NOT NULL"),
    ("cpu_s", "json_extract(use, '$.cpu_s')", "1"),
    ("memory_bytes", "json_extract(use, '$.peak_memory_bytes')", "1"),
)


def stats(db: apsw.Connection, steps: Sequence[Step], step_id: int, name: str, workflow_id: int) -> StepStats:
    """Figures over all tasks of the steps together; hidden attempts count as retried only."""
    marks = ", ".join(str(int(step.id)) for step in steps) or "NULL"
    base = f"FROM task WHERE step_id IN ({marks}) AND successor_id IS NULL"
    found: dict[str, Any] = {}
    for measure, value, condition in _MEASURES:
        query = f"SELECT count(v), min(v), avg(v), max(v) FROM (SELECT {value} AS v {base} AND {condition})"
        count, least, mean, most = db.execute(query).fetchone() or (0, None, None, None)
        found[measure] = Spread(count=count, least=least or 0.0, mean=mean or 0.0, most=most or 0.0)
    query = (
        f"SELECT sum(json_extract(use, '$.cpu_s')), sum(CASE WHEN json_extract(use, '$.cpu_s') IS NOT NULL THEN {_WALL} END),"
        f" sum(json_extract(use, '$.downloaded_bytes')), sum(json_extract(use, '$.uploaded_bytes')), min(started_ms), max(ended_ms) {base}"
    )
    cpu, wall, downloaded, uploaded, first, last = db.execute(query).fetchone() or (None,) * 6
    hidden = db.execute(f"SELECT count(*) FROM task WHERE step_id IN ({marks}) AND successor_id IS NOT NULL").get
    return StepStats(
        id=step_id,
        name=name,
        workflow_id=workflow_id,
        counts=dict(db.execute(f"SELECT status, count(*) {base} GROUP BY status")),
        retried=hidden or 0,
        cpu_percent=round(100 * cpu / wall, 1) if cpu is not None and wall else None,
        downloaded_bytes=downloaded or 0,
        uploaded_bytes=uploaded or 0,
        first_started_ms=first,
        last_ended_ms=last,
        **found,
    )
