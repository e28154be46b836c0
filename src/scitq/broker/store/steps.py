"""Workflows and steps."""

from __future__ import annotations

from typing import NamedTuple

import apsw


class Step(NamedTuple):
    """A work group of tasks and workers."""

    id: int
    workflow_id: int
    name: str
    retries: int
    is_paused: bool


class Workflow(NamedTuple):
    """A set of steps. Status: open (its tasks are I until it is finalized), ready, suspended, canceled."""

    id: int
    name: str
    owner_id: int
    status: str
    maximum_workers: int | None


def get(tx: apsw.Connection, step_id: int) -> Step | None:
    """The step, or None."""
    row = tx.execute("SELECT id, workflow_id, name, retries, is_paused FROM step WHERE id = ?", (step_id,)).fetchone()
    return Step(row[0], row[1], row[2], row[3], bool(row[4])) if row else None


def workflow(tx: apsw.Connection, workflow_id: int) -> Workflow:
    """The workflow of a step, which exists."""
    found = tx.execute("SELECT id, name, owner_id, status, maximum_workers FROM workflow WHERE id = ?", (workflow_id,))
    return next(Workflow(*row) for row in found)


def named(tx: apsw.Connection, name: str) -> list[int]:
    """The steps of that name in workflows that are not canceled, newest first."""
    found = tx.execute(
        "SELECT s.id FROM step s JOIN workflow w ON w.id = s.workflow_id WHERE s.name = ? AND w.status <> 'canceled' ORDER BY s.id DESC",
        (name,),
    )
    return [row[0] for row in found]
