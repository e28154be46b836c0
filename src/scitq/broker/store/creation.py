"""Inserting tasks: one by one or a hundred thousand, keys decided by a unique index in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import apsw
import msgspec

from scitq.broker.store.tasks import spec_body
from scitq.model.task import NewTask, TaskSpec


class Origin(NamedTuple):
    """Where new tasks come from: their owner, the array they belong to, the time."""

    owner_id: int
    array_id: int | None
    now_ms: int


def by_key(tx: apsw.Connection, owner_id: int, key: str) -> tuple[int, bytes] | None:
    """The task that the owner gave this key, as (id, digest); after a retry the newest attempt."""
    row = tx.execute("SELECT task_id, digest FROM task_key WHERE owner_id = ? AND key = ?", (owner_id, key)).fetchone()
    return (row[0], row[1]) if row else None


def other_content(tx: apsw.Connection, owner_id: int, digests: dict[str, bytes]) -> dict[str, int]:
    """Those of the keys that the owner gave to a task of another digest, with that task."""
    found: dict[str, int] = {}
    for key, content in digests.items():
        known = by_key(tx, owner_id, key)
        if known is not None and known[1] != content:
            found[key] = known[0]
    return found


def array_of(tx: apsw.Connection, task_id: int) -> int | None:
    """The array that a task belongs to."""
    row = tx.execute("SELECT array_id FROM task WHERE id = ?", (task_id,)).fetchone()
    return row[0] if row else None


def insert_key(tx: apsw.Connection, owner_id: int, key: str, task_id: int, content: bytes) -> None:
    """Bind a key to a task."""
    tx.execute("INSERT INTO task_key (owner_id, key, task_id, digest) VALUES (?, ?, ?, ?)", (owner_id, key, task_id, content))


def insert_specs(tx: apsw.Connection, specs: Sequence[TaskSpec]) -> list[int]:
    """Store immutable parts; their ids, in order."""
    tx.executemany(
        "INSERT INTO task_spec (container, command, body) VALUES (?, ?, ?)",
        [(spec.container, spec.command, spec_body(spec)) for spec in specs],
    )
    last = tx.last_insert_rowid()
    return list(range(last - len(specs) + 1, last + 1))


def insert_array(tx: apsw.Connection, owner_id: int, most_running: int | None, max_fails: int | None) -> int:
    """A new array; its id."""
    tx.execute("INSERT INTO array_job (owner_id, most_running, max_fails) VALUES (?, ?, ?)", (owner_id, most_running, max_fails))
    return tx.last_insert_rowid()


def array(tx: apsw.Connection, array_id: int) -> tuple[int, int | None, int | None] | None:
    """(owner, most running, most failures) of an array."""
    return tx.execute("SELECT owner_id, most_running, max_fails FROM array_job WHERE id = ?", (array_id,)).fetchone()


def insert_tasks(tx: apsw.Connection, rows: Sequence[tuple[NewTask, int, str, int | None]], origin: Origin) -> list[int]:
    """Store new tasks; each row is (task, spec id, status letter, workflow id). Their ids, in order.

    Ids follow one another, since one connection writes and AUTOINCREMENT never goes back.
    """
    now = origin.now_ms
    tx.executemany(
        "INSERT INTO task (spec_id, owner_id, name, status, attempt, priority, created_ms, changed_ms, step_id, workflow_id, retries_left,"
        " array_id, array_index, item, labels, resumes_to, cancels_with_dependency) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                spec_id, origin.owner_id, task.name, letter, int(letter == "P"), task.priority, now, now, task.step_id, workflow_id, task.retries,
                origin.array_id, task.array_index, task.item, msgspec.json.encode(task.labels).decode() if task.labels else None,
                "P" if letter == "Z" else None, int(task.cancel_when_dependency_fails),
            )
            for task, spec_id, letter, workflow_id in rows
        ],
    )  # fmt: skip
    last = tx.last_insert_rowid()
    ids = list(range(last - len(rows) + 1, last + 1))
    labels = [(name, value, task_id) for task_id, row in zip(ids, rows, strict=True) for name, value in row[0].labels.items()]
    if labels:
        tx.executemany("INSERT INTO task_label (name, value, task_id) VALUES (?, ?, ?)", labels)
    return ids


def repeat(tx: apsw.Connection, task_id: int, now_ms: int, *, retries_left: int, losses: int, status: str) -> int:
    """A new task of the same content and place, hidden behind nothing; the caller hides the old one. Its id."""
    tx.execute(
        "INSERT INTO task (spec_id, owner_id, name, status, attempt, priority, created_ms, changed_ms, step_id, workflow_id, retries_left, losses,"
        " predecessor_id, array_id, array_index, item, labels, cancels_with_dependency)"
        " SELECT spec_id, owner_id, name, :status, :attempt, priority, :now, :now, step_id, workflow_id, :retries, :losses,"
        " id, array_id, array_index, item, labels, cancels_with_dependency FROM task WHERE id = :id",
        {"status": status, "attempt": int(status == "P"), "now": now_ms, "retries": retries_left, "losses": losses, "id": task_id},
    )
    new_id = tx.last_insert_rowid()
    tx.execute("INSERT INTO task_label (name, value, task_id) SELECT name, value, ? FROM task_label WHERE task_id = ?", (new_id, task_id))
    tx.execute("UPDATE task_key SET task_id = ? WHERE task_id = ?", (new_id, task_id))
    return new_id
