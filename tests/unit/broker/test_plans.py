"""No hot query reads a whole table (contract LST-12); the database is what it should be."""

from __future__ import annotations

import apsw
import pytest
from tests.lib.desk import Desk

from scitq.broker.store import task_reads, tasks, workers, workflows
from scitq.protocol.messages.task import TaskList


def plans(desk: Desk, action: object) -> list[str]:
    """The plans of all queries that `action` makes."""
    db = desk.store.writer
    seen: list[tuple[str, object]] = []
    found: list[str] = []

    def trace(cursor: apsw.Cursor, statement: str, bindings: object) -> bool:
        if statement.lstrip().upper().startswith(("SELECT", "WITH", "UPDATE", "DELETE")):
            seen.append((statement, bindings))
        return True

    db.exec_trace = trace
    try:
        action()  # type: ignore[operator]
    finally:
        db.exec_trace = None
    for statement, bindings in seen:
        found.extend(row[3] for row in db.execute(f"EXPLAIN QUERY PLAN {statement}", bindings))
    assert seen
    return found


def listed(**query: object) -> TaskList:
    return TaskList(**query)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "query",
    [listed(), listed(status="F"), listed(status="S"), listed(status="R", show_hidden=True), listed(step_id=3), listed(worker_id=3),
     listed(workflow_id=3), listed(labels={"a": "b"}), listed(array_id=2)],
    ids=str,
)  # fmt: skip
def test_lst_12_pages_are_found_by_an_index(desk: Desk, query: TaskList) -> None:
    steps = plans(desk, lambda: task_reads.listed(desk.store.writer, query))
    scans = [step for step in steps if step.startswith("SCAN")]
    # The newest first by id is a walk that stops at the limit; anything else must be a search.
    assert all(step.startswith("SCAN t") and "TEMP B-TREE" not in step for step in scans), steps
    assert not any("USE TEMP B-TREE FOR ORDER BY" in step for step in steps), steps
    if query.step_id or query.worker_id or query.workflow_id or query.array_id:
        assert not scans, steps


def test_a_rare_status_is_found_by_its_index(desk: Desk) -> None:
    db = desk.store.writer
    for action in (
        lambda: task_reads.listed(db, listed(status="F")),
        lambda: task_reads.listed(db, listed(status="R", show_hidden=True)),
        lambda: list(tasks.with_status(db, "P")),
        lambda: workflows.inactive(db, 1, 10),
    ):
        steps = plans(desk, action)
        assert any("task_by_status (status=?)" in step for step in steps), steps
        assert not any(step.startswith("SCAN") or "TEMP B-TREE" in step for step in steps), steps


def test_contents_of_many_tasks_are_found_by_key(desk: Desk) -> None:
    steps = plans(desk, lambda: workflows.contents(desk.store.writer, [1, 2, 3]))
    assert [step for step in steps if step.startswith("SCAN") and "json_each" not in step] == [], steps


def test_what_is_done_for_each_task_is_found_by_key(desk: Desk) -> None:
    (task_id,) = desk.create()
    db = desk.store.writer

    def all_of_it() -> None:
        tasks.get(db, task_id)
        tasks.of_worker(db, 1)
        tasks.for_offer(db, task_id)
        workers.by_uid(db, "x")
        workers.by_machine(db, "x")

    assert not any(step.startswith("SCAN") for step in plans(desk, all_of_it))


def test_commits_are_on_disk_before_they_are_answered(desk: Desk) -> None:
    db = desk.store.writer
    assert db.execute("PRAGMA journal_mode").get == "wal"
    assert db.execute("PRAGMA synchronous").get == 2
    assert db.execute("PRAGMA foreign_keys").get == 1
    loose = [
        row[0] for row in db.execute("SELECT name FROM pragma_table_list WHERE schema = 'main' AND strict = 0 AND name NOT LIKE 'sqlite_%'")
    ]
    assert loose == []
