"""Listings and details of tasks, for reading threads."""

from __future__ import annotations

from typing import Any

import apsw
import msgspec

from scitq.broker.store import dependencies, tasks
from scitq.model.task import Use
from scitq.protocol.messages.task import TaskChange, TaskDetails, TaskList, TaskRow

_COLUMNS = (
    "t.id, t.status, t.name, u.name, s.command, s.container, t.created_ms, t.changed_ms, t.started_ms, t.ended_ms, t.worker_id, t.step_id,"
    " t.workflow_id, t.exit_status, t.reason, t.attempt, t.priority, t.predecessor_id, t.successor_id, t.array_id, t.array_index, t.labels"
)
_FIELDS = [name for name in TaskRow.__struct_fields__ if name != "labels"]
_JOIN = "FROM task t JOIN task_spec s ON s.id = t.spec_id LEFT JOIN user u ON u.id = t.owner_id"

_GROUPS = ("worker_id", "step_id", "workflow_id", "array_id")
_MOST_RANGES = 100
"""More of them are looked up first: SQLite takes no expression that is a thousand deep."""


def _row(values: Any) -> TaskRow:  # noqa: ANN401 - a row of APSW
    labels = msgspec.json.decode(values[-1], type=dict[str, str]) if values[-1] else {}
    plain = dict(zip(_FIELDS, values[:-1], strict=True))
    plain["user"] = plain["user"] or "(deleted)"
    return TaskRow(labels=labels, **plain)


def like_contains(text: str) -> str:
    """A LIKE pattern (ESCAPE '\\') for "contains": `%` stays a wildcard, `_` and `\\` are literal (contract LST-8)."""
    escaped = text.replace("\\", "\\\\").replace("_", "\\_")
    return f"%{escaped}%"


def _conditions(db: apsw.Connection, query: TaskList) -> tuple[list[str], dict[str, Any]]:
    where: list[str] = []
    values: dict[str, Any] = {}
    if not query.show_hidden:
        where.append("t.successor_id IS NULL")
    if query.status:
        where.append("t.status IN (" + ", ".join(f"'{letter}'" for letter in query.status) + ")")
        if (
            len(query.status) == 1
            and query.status != "S"
            and not (query.labels or query.ids or any(getattr(query, name) for name in _GROUPS))
        ):
            where.append("t.status NOT IN ('S')")  # the condition of the index by status, without which a rare one is looked for among all
    for name in _GROUPS:
        if getattr(query, name) is not None:
            where.append(f"t.{name} = :{name}")
            values[name] = getattr(query, name)
    if query.has_no_step:
        where.append("t.step_id IS NULL")
    if query.worker_id is not None:
        where.append("t.status NOT IN ('P', 'W', 'I')")
    if query.command is not None:
        where.append("s.command LIKE :command ESCAPE '\\'")
        values["command"] = like_contains(query.command)
    if query.name is not None:
        where.append("t.name LIKE :name ESCAPE '\\'")
        values["name"] = like_contains(query.name)
    if query.user is not None:
        where.append("t.owner_id = (SELECT id FROM user WHERE name = :user)")
        values["user"] = query.user
    if query.since_ms is not None:
        where.append("t.created_ms >= :since")
        values["since"] = query.since_ms
    for number, (name, value) in enumerate(query.labels.items()):
        where.append(f"t.id IN (SELECT task_id FROM task_label WHERE name = :ln{number} AND value = :lv{number})")
        values |= {f"ln{number}": name, f"lv{number}": value}
    if query.ids is not None and len(query.ids) > _MOST_RANGES:
        where.append("t.id IN (SELECT value FROM json_each(:ids))")
        values["ids"] = msgspec.json.encode(find(db, query.ids)).decode()
    elif query.ids is not None:
        parts = []
        for number, (first, last, stride) in enumerate(query.ids):
            parts.append(f"(t.id BETWEEN :f{number} AND :l{number} AND (t.id - :f{number}) % :s{number} = 0)")
            values |= {f"f{number}": first, f"l{number}": last, f"s{number}": stride}
        where.append("(" + " OR ".join(parts) + ")" if parts else "0")
    return where, values


def listed(db: apsw.Connection, query: TaskList) -> list[TaskRow]:
    """One page, newest first unless asked otherwise. Letters in `status` must be checked before."""
    where, values = _conditions(db, query)
    order = "ASC" if query.is_oldest_first else "DESC"
    if query.command is not None and not (query.labels or query.step_id or query.worker_id or query.workflow_id or query.ids):
        # A rare command: the narrow spec table is searched first, by one scan, then its tasks by index.
        where = [clause for clause in where if not clause.startswith("s.command")]
        where.append("t.spec_id IN (SELECT id FROM task_spec WHERE command LIKE :command ESCAPE '\\')")
    text = f"SELECT {_COLUMNS} {_JOIN} WHERE {' AND '.join(where) or '1'} ORDER BY t.id {order} LIMIT :limit OFFSET :offset"
    values |= {"limit": query.limit or -1, "offset": query.offset}
    return [_row(row) for row in db.execute(text, values)]


def total(db: apsw.Connection, query: TaskList) -> int:
    """How many tasks pass the filters."""
    where, values = _conditions(db, query)
    return int(db.execute(f"SELECT count(*) {_JOIN} WHERE {' AND '.join(where) or '1'}", values).get)


def row(db: apsw.Connection, task_id: int) -> TaskRow | None:
    """One task as lists show it."""
    found = db.execute(f"SELECT {_COLUMNS} {_JOIN} WHERE t.id = ?", (task_id,)).fetchone()
    return _row(found) if found else None


def changes(db: apsw.Connection, task_id: int) -> list[TaskChange]:
    """The journal of a task, oldest first."""
    found: list[TaskChange] = []
    for at_ms, attempt, worker_id, path, reason in db.execute(
        "SELECT at_ms, attempt, worker_id, path, reason FROM task_change WHERE task_id = ? ORDER BY id", (task_id,)
    ):
        steps = path.split()
        for number, step in enumerate(steps):
            told = reason if number == len(steps) - 1 else ""
            found.append(TaskChange(at_ms=at_ms - int(step[1:] or 0), status=step[0], attempt=attempt, worker_id=worker_id, reason=told))
    return found


def _state_ms(history: list[TaskChange], created_ms: int, first: str, now_ms: int, is_final: bool) -> dict[str, int]:
    spent: dict[str, int] = {}
    since, status = created_ms, first
    for change in history:
        spent[status] = spent.get(status, 0) + max(0, change.at_ms - since)
        since, status = change.at_ms, change.status
    if not is_final:
        spent[status] = spent.get(status, 0) + max(0, now_ms - since)
    return spent


def chain(db: apsw.Connection, task_id: int) -> list[int]:
    """A task, those it repeats and those that repeat it, oldest first."""
    before = db.execute(
        "WITH RECURSIVE up (id) AS (VALUES (?) UNION SELECT t.predecessor_id FROM task t JOIN up ON t.id = up.id"
        " WHERE t.predecessor_id IS NOT NULL) SELECT id FROM up",
        (task_id,),
    )
    after = db.execute(
        "WITH RECURSIVE down (id) AS (VALUES (?) UNION SELECT t.successor_id FROM task t JOIN down ON t.id = down.id"
        " WHERE t.successor_id IS NOT NULL) SELECT id FROM down",
        (task_id,),
    )
    return sorted({int(row[0]) for row in [*before, *after]})


def details(db: apsw.Connection, task_id: int, now_ms: int, progress: dict[str, int]) -> TaskDetails | None:
    """All that is known of a task; None when there is none. `progress`: of a transfer under way."""
    shown, task = row(db, task_id), tasks.get(db, task_id)
    if shown is None or task is None:
        return None
    history = changes(db, task_id)
    item, use, size = db.execute(
        "SELECT t.item, t.use, (SELECT size FROM task_log l WHERE l.task_id = t.id AND l.attempt = t.attempt) FROM task t WHERE t.id = ?",
        (task_id,),
    ).fetchone() or (None, None, None)
    key = db.execute("SELECT key FROM task_key WHERE task_id = ?", (task_id,)).fetchone()
    waits = dependencies.of_task(db, task_id)
    first = "P" if shown.attempt and (not history or history[0].status in "AZX") else "W"
    return TaskDetails(
        row=shown,
        spec=tasks.spec(db, task.spec_id),
        key=key[0] if key else None,
        item=item,
        retries_left=task.retries_left,
        depends_on=[on for on, kind, _ in waits if kind == "success"],
        after_any=[on for on, kind, _ in waits if kind == "end"],
        waited_by=[waiter for waiter, _ in dependencies.waiting_on(db, task_id)],
        changes=[TaskChange(at_ms=shown.created_ms, status=first, attempt=0), *history],
        state_ms=_state_ms(history, shown.created_ms, first, now_ms, shown.status in "SFX"),
        use=msgspec.json.decode(use, type=Use) if use else None,
        progress=progress,
        chain=chain(db, task_id),
        log_bytes=size or 0,
    )


def find(db: apsw.Connection, ranges: list[tuple[int, int, int]]) -> list[int]:
    """Ids that exist within the ranges, ascending, each once."""
    found: set[int] = set()
    for first, last, stride in ranges:
        query = "SELECT id FROM task WHERE id BETWEEN ? AND ? AND (id - ?) % ? = 0"
        found.update(row[0] for row in db.execute(query, (first, last, first, stride)))
    return sorted(found)


def last_of(db: apsw.Connection, owner_id: int) -> int | None:
    """The newest task of a user, retries' attempts included."""
    row = db.execute("SELECT max(id) FROM task WHERE owner_id = ?", (owner_id,)).fetchone()
    return row[0] if row else None


def standing(db: apsw.Connection, ranges: list[tuple[int, int, int]]) -> tuple[dict[str, int], list[int], list[int], dict[int, int]]:
    """Where the tasks of the ranges stand, a retried one by its newest attempt.

    Returns counts by letter, ids (newest attempts) that failed or were canceled, ids that succeeded, and asked-for id → newest attempt.
    Ids in the last three are capped at 1,000.
    """
    counts: dict[str, int] = {}
    bad: list[int] = []
    good: list[int] = []
    moved: dict[int, int] = {}
    for first, last, stride in ranges:
        values = (first, last, first, stride)
        where = "id BETWEEN ? AND ? AND (id - ?) % ? = 0"
        for letter, count in db.execute(
            f"SELECT status, count(*) FROM task WHERE {where} AND successor_id IS NULL GROUP BY status", values
        ):
            counts[letter] = counts.get(letter, 0) + count
        for letter, ids in (("F", bad), ("X", bad), ("S", good)):
            query = f"SELECT id FROM task WHERE {where} AND successor_id IS NULL AND status = ? LIMIT 1000"
            ids.extend(row[0] for row in db.execute(query, (*values, letter)))
        hidden_ones: list[int] = [row[0] for row in db.execute(f"SELECT id FROM task WHERE {where} AND successor_id IS NOT NULL", values)]
        for hidden in hidden_ones:
            newest = chain(db, hidden)[-1]
            if newest in moved.values() or (first <= newest <= last and (newest - first) % stride == 0):
                continue
            moved[hidden] = newest
            letter = str(db.execute("SELECT status FROM task WHERE id = ?", (newest,)).get)
            counts[letter] = counts.get(letter, 0) + 1
            if letter in "FX":
                bad.append(newest)
            elif letter == "S":
                good.append(newest)
    return counts, bad[:1000], good[:1000], moved
