"""Which task waits for which."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from scitq.broker.store.connection import insert_rows


def insert(tx: apsw.Connection, rows: Sequence[tuple[int, int, str, bool]]) -> None:
    """(task, on, kind, whether it is met): the task waits for the success or the end (kind) of `on`.

    The stronger kind wins when both are asked.
    """
    insert_rows(
        tx, "task_dependency", {}, ("task_id", "on_id", "kind", "is_met"), rows,
        "ON CONFLICT DO UPDATE SET kind = max(kind, excluded.kind), is_met = min(is_met, excluded.is_met)",
    )  # fmt: skip


def waiting_on(tx: apsw.Connection, on_id: int) -> list[tuple[int, str]]:
    """(task, kind) of all that wait, or waited, for `on_id`."""
    return list(tx.execute("SELECT task_id, kind FROM task_dependency WHERE on_id = ? ORDER BY task_id", (on_id,)))


def of_task(tx: apsw.Connection, task_id: int) -> list[tuple[int, str, bool]]:
    """(on, kind, met) of all that the task waits for."""
    found = tx.execute("SELECT on_id, kind, is_met FROM task_dependency WHERE task_id = ? ORDER BY on_id", (task_id,))
    return [(row[0], row[1], bool(row[2])) for row in found]


def set_met(tx: apsw.Connection, task_id: int, on_id: int, is_met: bool) -> None:
    """One of them is met, or not any more."""
    tx.execute("UPDATE task_dependency SET is_met = ? WHERE task_id = ? AND on_id = ?", (int(is_met), task_id, on_id))


def has_unmet(tx: apsw.Connection, task_id: int) -> bool:
    """Whether the task still waits for any."""
    return tx.execute("SELECT 1 FROM task_dependency WHERE task_id = ? AND is_met = 0 LIMIT 1", (task_id,)).fetchone() is not None


def move(tx: apsw.Connection, old_id: int, new_id: int) -> list[int]:
    """Those that waited for `old_id` wait for `new_id` from now on; their ids. An end that was seen stays seen."""
    found = [row[0] for row in tx.execute("SELECT task_id FROM task_dependency WHERE on_id = ?", (old_id,))]
    tx.execute("UPDATE OR IGNORE task_dependency SET on_id = ?, is_met = (kind = 'end' AND is_met) WHERE on_id = ?", (new_id, old_id))
    return found


def drop(tx: apsw.Connection, task_id: int) -> None:
    """The task waits for nothing any more."""
    tx.execute("DELETE FROM task_dependency WHERE task_id = ?", (task_id,))


def copy(tx: apsw.Connection, old_id: int, new_id: int) -> None:
    """What `old_id` waited for, `new_id` waits for too."""
    tx.execute(
        "INSERT INTO task_dependency (task_id, on_id, kind, is_met) SELECT ?, on_id, kind, is_met FROM task_dependency WHERE task_id = ?",
        (new_id, old_id),
    )
