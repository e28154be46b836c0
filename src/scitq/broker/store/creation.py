"""Inserting tasks: one by one or a hundred thousand, keys decided by a unique index in the same transaction."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import apsw
import msgspec

from scitq.broker.store.connection import insert_rows
from scitq.broker.store.tasks import spec_body
from scitq.model.task import NewTask, TaskSpec

SpecRow = tuple[str, str, bytes]
"""The immutable part of a task as it is stored: container, command, and all else."""
_KEYS_AT_ONCE = 500
_json = msgspec.json.Encoder().encode


class Origin(NamedTuple):
    """Where new tasks come from: their owner, the array they belong to, the time."""

    owner_id: int
    array_id: int | None
    now_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """Where a new task starts; the tasks of a request mostly share one."""

    letter: str
    step_id: int | None
    workflow_id: int | None
    priority: int
    retries: int
    cancels_with_dependency: bool
    waits: Sequence[tuple[int, str, bool]] = ()
    """(task, kind, whether it is met) of all that it waits for."""
    waits_new: Sequence[tuple[int, str]] = ()
    """(position in the request, kind)."""


def by_keys(tx: apsw.Connection, owner_id: int, keys: Sequence[str]) -> dict[str, tuple[int, bytes]]:
    """The tasks that the owner gave these keys, as (id, digest) by key; after a retry the newest attempt."""
    found: dict[str, tuple[int, bytes]] = {}
    for first in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[first : first + _KEYS_AT_ONCE]
        query = f"SELECT key, task_id, digest FROM task_key WHERE owner_id = ? AND key IN ({', '.join('?' * len(some))})"
        found.update((key, (task_id, content)) for key, task_id, content in tx.execute(query, (owner_id, *some)))
    return found


def by_key(tx: apsw.Connection, owner_id: int, key: str) -> int | None:
    """The task that the owner gave this key."""
    found = by_keys(tx, owner_id, [key]).get(key)
    return found[0] if found else None


def other_content(tx: apsw.Connection, owner_id: int, digests: dict[str, bytes]) -> dict[str, int]:
    """Those of the keys that the owner gave to a task of another digest, with that task."""
    known = by_keys(tx, owner_id, list(digests))
    return {key: task_id for key, (task_id, content) in known.items() if content != digests[key]}


def array_of(tx: apsw.Connection, task_id: int) -> int | None:
    """The array that a task belongs to."""
    row = tx.execute("SELECT array_id FROM task WHERE id = ?", (task_id,)).fetchone()
    return row[0] if row else None


def insert_keys(tx: apsw.Connection, owner_id: int, rows: Sequence[tuple[str, int, bytes]]) -> None:
    """Bind keys to tasks: (key, task, digest)."""
    insert_rows(tx, "task_key", {"owner_id": owner_id}, ("key", "task_id", "digest"), rows)


def spec_row(spec: TaskSpec) -> SpecRow:
    """A spec as it is stored."""
    return spec.container, spec.command, spec_body(spec)


def insert_specs(tx: apsw.Connection, specs: Sequence[SpecRow]) -> range:
    """Store immutable parts; their ids, in order."""
    last = insert_rows(tx, "task_spec", {}, ("container", "command", "body"), specs)
    return range(last - len(specs) + 1, last + 1)


def insert_array(tx: apsw.Connection, owner_id: int, most_running: int | None, max_fails: int | None) -> int:
    """A new array; its id."""
    tx.execute("INSERT INTO array_job (owner_id, most_running, max_fails) VALUES (?, ?, ?)", (owner_id, most_running, max_fails))
    return tx.last_insert_rowid()


def array(tx: apsw.Connection, array_id: int) -> tuple[int, int | None, int | None] | None:
    """(owner, most running, most failures) of an array."""
    return tx.execute("SELECT owner_id, most_running, max_fails FROM array_job WHERE id = ?", (array_id,)).fetchone()


def insert_tasks(
    tx: apsw.Connection, runs: Sequence[tuple[Standing, list[NewTask], list[int]]], spec_ids: Mapping[int, int], origin: Origin
) -> range:
    """Store new tasks, in runs that share a standing; `spec_ids` by position in the request. Their ids, in order.

    Ids follow one another, since one connection writes and AUTOINCREMENT never goes back.
    """
    last = 0
    for standing, tasks, _ in runs:
        shared = {
            "owner_id": origin.owner_id, "status": standing.letter, "attempt": int(standing.letter == "P"), "priority": standing.priority,
            "created_ms": origin.now_ms, "changed_ms": origin.now_ms, "step_id": standing.step_id, "workflow_id": standing.workflow_id,
            "retries_left": standing.retries, "array_id": origin.array_id, "resumes_to": "P" if standing.letter == "Z" else None,
            "cancels_with_dependency": int(standing.cancels_with_dependency),
        }  # fmt: skip
        rows = [
            (spec_ids[task.spec], task.name, task.array_index, task.item, _json(task.labels).decode() if task.labels else None)
            for task in tasks
        ]
        last = insert_rows(tx, "task", shared, ("spec_id", "name", "array_index", "item", "labels"), rows)
    ids = range(last - sum(len(tasks) for _, tasks, _ in runs) + 1, last + 1)
    every = itertools.chain.from_iterable(tasks for _, tasks, _ in runs)
    labels = [
        (name, value, task_id) for task_id, task in zip(ids, every, strict=True) if task.labels for name, value in task.labels.items()
    ]
    if labels:
        insert_rows(tx, "task_label", {}, ("name", "value", "task_id"), labels)
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
