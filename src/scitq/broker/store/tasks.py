"""The part of a task that changes, and the one function that changes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apsw
import msgspec

from scitq.model import lifecycle
from scitq.model.lifecycle import FINAL, ON_WORKER, TaskEvent, TaskStatus
from scitq.model.task import TaskSpec, Use
from scitq.util.clock import UnixMs

_spec_encoder = msgspec.msgpack.Encoder()
_spec_decoder = msgspec.msgpack.Decoder(TaskSpec)
KEPT = "kept"
"""The wish of a failed task whose upload failed, whatever else had failed before: its worker keeps the files."""


class Task(NamedTuple):
    """What the broker needs to decide about a task."""

    id: int
    spec_id: int
    owner_id: int
    status: TaskStatus
    attempt: int
    priority: int
    worker_id: int | None
    step_id: int | None
    workflow_id: int | None
    retries_left: int
    losses: int
    successor_id: int | None
    array_id: int | None
    resumes_to: str | None
    cause: str
    exit_status: int | None
    started_ms: int | None
    cancels_with_dependency: int
    wish: str

    @property
    def is_on_worker(self) -> bool:
        """Held by a worker, frozen included."""
        return self.status in ON_WORKER or (self.status is TaskStatus.SUSPENDED and self.worker_id is not None)


_COLUMNS = (
    "id, spec_id, owner_id, status, attempt, priority, worker_id, step_id, workflow_id, retries_left, losses, successor_id, array_id,"
    " resumes_to, cause, exit_status, started_ms, cancels_with_dependency, wish"
)
_STATUS = {status.value: status for status in TaskStatus}


def _task(row: Sequence[object]) -> Task:
    values = list(row)
    values[3] = _STATUS[values[3]]  # type: ignore[index] # column 3 is the letter
    return Task(*values)  # type: ignore[arg-type] # the columns are those of the tuple


_GET = f"SELECT {_COLUMNS} FROM task WHERE id = ?"


def get(tx: apsw.Connection, task_id: int) -> Task | None:
    """The task, or None."""
    row = tx.execute(_GET, (task_id,)).fetchone()
    return _task(row) if row else None


def of_worker(tx: apsw.Connection, worker_id: int) -> list[Task]:
    """All tasks that the worker holds, by id."""
    query = f"SELECT {_COLUMNS} FROM task WHERE worker_id = ? AND status IN ('A', 'C', 'D', 'O', 'R', 'U', 'V', 'Z') ORDER BY id"
    return [_task(row) for row in tx.execute(query, (worker_id,))]


def with_status(tx: apsw.Connection, letters: str) -> Iterable[Task]:
    """All tasks in any of the statuses (not S, of which there may be millions), by status and id."""
    query = f"SELECT {_COLUMNS} FROM task WHERE status = ? AND status NOT IN ('S') ORDER BY id"  # the second is the condition of the index
    for letter in letters:
        yield from map(_task, tx.execute(query, (letter,)).fetchall())


def of_group(
    tx: apsw.Connection, letters: str, *, step_id: int | None = None, workflow_id: int | None = None, array_id: int | None = None
) -> list[Task]:
    """The latest attempts of a step, workflow or array that stand in one of the statuses, by id."""
    chosen = (("step_id", step_id), ("workflow_id", workflow_id), ("array_id", array_id))
    column, value = next((name, wanted) for name, wanted in chosen if wanted is not None)
    query = f"SELECT {_COLUMNS} FROM task WHERE {column} = ? AND successor_id IS NULL AND instr(?, status) > 0 ORDER BY id"
    return [_task(row) for row in tx.execute(query, (value, letters))]


def spec(tx: apsw.Connection, spec_id: int) -> TaskSpec:
    """The immutable part."""
    return next(read_spec(*row) for row in tx.execute("SELECT container, command, body FROM task_spec WHERE id = ?", (spec_id,)))


def read_spec(container: str, command: str, body: bytes) -> TaskSpec:
    """A spec from its columns; the body holds all fields but these two."""
    rest = _spec_decoder.decode(body)
    return msgspec.structs.replace(rest, container=container, command=command)


def spec_body(spec: TaskSpec) -> bytes:
    """The column for all fields but container and command; the same content gives the same bytes."""
    return _spec_encoder.encode(msgspec.structs.replace(spec, container="", command=""))


class AssignmentRow(NamedTuple):
    """What an offer says of a task."""

    id: int
    attempt: int
    name: str
    array_index: int | None
    item: str | None
    owner_id: int
    priority: int
    spec: TaskSpec


def for_offer(tx: apsw.Connection, task_id: int) -> AssignmentRow:
    """A task as it is offered to a worker."""
    found = tx.execute(
        "SELECT t.id, t.attempt, t.name, t.array_index, t.item, t.owner_id, t.priority, s.container, s.command, s.body"
        " FROM task t JOIN task_spec s ON s.id = t.spec_id WHERE t.id = ?",
        (task_id,),
    )
    return next(AssignmentRow._make((*row[:7], read_spec(*row[7:]))) for row in found)


def advance(
    tx: apsw.Connection,
    task: Task,
    events: Sequence[tuple[TaskEvent, int]],
    now_ms: UnixMs,
    *,
    worker_id: int | None = None,
    reason: str = "",
    cause: str = "",
    exit_status: int | None = None,
    use: Use | None = None,
) -> Task:
    """Apply events in order, each with the Unix ms at which it happened; the one place where a status changes.

    Writes the row once and one line of the journal. Every entry to P opens the next attempt and frees the task of its
    worker. Raises ConflictError, with nothing written, when the table of lifecycle.py has no such change.
    """
    status = task.status
    attempt, worker, resumes_to, started = task.attempt, task.worker_id, task.resumes_to, task.started_ms
    losses, wish = task.losses, task.wish
    path: list[str] = []
    ended = None
    for event, told_ms in events:
        # Reports travel at different speeds: by the broker's clock an end may seem to lie before a start told earlier.
        at_ms = max(told_ms, started or 0)
        before, status = status, lifecycle.after(status, event)
        path.append(f"{status.value}{max(0, now_ms - at_ms)}")
        if event is TaskEvent.ASSIGN:
            worker = worker_id
        elif event is TaskEvent.WORKER_LOST and before in lifecycle.STARTED:
            losses += 1
        if status is TaskStatus.PENDING:
            attempt += 1
            worker, started, wish = None, None, ""
        elif status is TaskStatus.RUNNING and before is TaskStatus.ON_HOLD:
            started = at_ms
        elif status in FINAL:
            ended = at_ms
        if status is TaskStatus.SUSPENDED:
            resumes_to = before.value
        if event in {TaskEvent.FREEZE, TaskEvent.RESUME_RUNNING} or status in FINAL:
            wish = KEPT if event is TaskEvent.UPLOAD_FAILED else ""
    if task.status in {TaskStatus.UPLOADING, TaskStatus.UPLOADING_FAILED}:
        cause = cause or task.cause
    tx.execute(
        "UPDATE task SET status = ?1, attempt = ?2, worker_id = ?3, resumes_to = ?4, started_ms = ?5, losses = ?6, changed_ms = ?7, ended_ms = ?8,"
        " reason = CASE WHEN ?9 = '' AND status IN ('U', 'V') THEN reason ELSE ?9 END, cause = ?10, wish = ?11,"
        " exit_status = coalesce(?12, exit_status), use = coalesce(?13, use) WHERE id = ?14",
        (
            status.value, attempt, worker, resumes_to, started, losses, now_ms, ended,
            reason, cause, wish, exit_status, msgspec.json.encode(use).decode() if use else None, task.id,
        ),
    )  # fmt: skip
    journal(
        tx,
        task.id,
        attempt if status is not TaskStatus.PENDING else task.attempt,
        worker_id or task.worker_id,
        " ".join(path),
        reason,
        now_ms,
    )
    return task._replace(
        status=status, attempt=attempt, worker_id=worker, resumes_to=resumes_to, started_ms=started, losses=losses, cause=cause, wish=wish,
        exit_status=task.exit_status if exit_status is None else exit_status,
    )  # fmt: skip


def journal(tx: apsw.Connection, task_id: int, attempt: int, worker_id: int | None, path: str, reason: str, now_ms: int) -> None:
    """One line of the journal: `path` holds `<letter><ms before now>` of each change, in order."""
    tx.execute(
        "INSERT INTO task_change (task_id, at_ms, attempt, worker_id, path, reason) VALUES (?, ?, ?, ?, ?, ?)",
        (task_id, now_ms, attempt, worker_id, path, reason),
    )


def set_wish(tx: apsw.Connection, task_id: int, wish: str) -> None:
    """What a person wants of a task that a worker has: kill, stop, freeze, thaw or upload; said again until it is done."""
    tx.execute("UPDATE task SET wish = ? WHERE id = ?", (wish, task_id))


def set_retries(tx: apsw.Connection, task_id: int, retries: int) -> None:
    """So many more tries by itself."""
    tx.execute("UPDATE task SET retries_left = ? WHERE id = ?", (retries, task_id))


def set_spec(tx: apsw.Connection, task_id: int, spec_id: int) -> None:
    """Give a task that was just made, and that nobody has seen, another immutable part."""
    tx.execute("UPDATE task SET spec_id = ? WHERE id = ?", (spec_id, task_id))


def set_successor(tx: apsw.Connection, task_id: int, successor_id: int) -> None:
    """Hide a task behind the one that repeats it."""
    tx.execute("UPDATE task SET successor_id = ? WHERE id = ?", (successor_id, task_id))


def note(tx: apsw.Connection, task_id: int, reason: str) -> None:
    """Why the task is where it is, without a change of status."""
    tx.execute("UPDATE task SET reason = ? WHERE id = ?", (reason, task_id))


def edit(
    tx: apsw.Connection, task_id: int, *, priority: int | None, name: str | None, labels: dict[str, str] | None, retries: int | None
) -> None:
    """Change what may change while no worker has the task."""
    tx.execute(
        "UPDATE task SET priority = coalesce(?, priority), name = coalesce(?, name), retries_left = coalesce(?, retries_left) WHERE id = ?",
        (priority, name, retries, task_id),
    )
    if labels is not None:
        tx.execute("DELETE FROM task_label WHERE task_id = ?", (task_id,))
        tx.execute("UPDATE task SET labels = ? WHERE id = ?", (msgspec.json.encode(labels).decode() if labels else None, task_id))
        tx.executemany("INSERT INTO task_label (name, value, task_id) VALUES (?, ?, ?)", [(n, v, task_id) for n, v in labels.items()])


def delete(tx: apsw.Connection, task_id: int) -> None:
    """Remove a task and all that belongs to it alone; its id is not used again."""
    for table, column in (("task_label", "task_id"), ("task_dependency", "task_id"), ("task_dependency", "on_id"), ("task_change", "task_id"),
                          ("task_log", "task_id"), ("task_key", "task_id"), ("task", "id")):  # fmt: skip
        tx.execute(f"DELETE FROM {table} WHERE {column} = ?", (task_id,))


def counts(tx: apsw.Connection, *, step_id: int | None = None, workflow_id: int | None = None) -> dict[str, int]:
    """Tasks that are not hidden, by letter."""
    where = "step_id = :step" if step_id is not None else "workflow_id = :workflow" if workflow_id is not None else "1"
    query = f"SELECT status, count(*) FROM task WHERE {where} AND successor_id IS NULL GROUP BY status"
    return dict(tx.execute(query, {"step": step_id, "workflow": workflow_id}))
