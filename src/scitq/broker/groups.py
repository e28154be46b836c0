"""Finding workflows and steps by id or name, and doing something to all their tasks, a piece at a time."""

from __future__ import annotations

from typing import TypeVar

import apsw

from scitq.broker.context import Ctx
from scitq.broker.handlers import task_act
from scitq.broker.store import logs, steps, tasks, workflows
from scitq.broker.store.steps import Step, Workflow
from scitq.errors import ConflictError, NotFoundError, UsageError
from scitq.protocol.messages.task import TaskAct
from scitq.protocol.messages.workflow import StepShow
from scitq.protocol.tokens import Identity
from scitq.util.units import counted

MOST_AT_ONCE = 500
"""Tasks changed by one request: some hundredths of a second, in which nothing else is answered."""
T = TypeVar("T")


def found(value: T | None, what: str, number: int) -> T:
    """The value; NotFoundError when there is none."""
    if value is None:
        raise NotFoundError(f"there is no {what} {number}")
    return value


def find(db: apsw.Connection, who: Identity, number: int | None, name: str | None) -> Workflow:
    """The workflow by its id, or by its name: the caller's own of that name, else the only one."""
    if number is not None:
        return found(workflows.get(db, number), "workflow", number)
    if not name:
        raise UsageError("name the workflow by its id or its name")
    same = workflows.named(db, name)
    own = [workflow for workflow in same if workflow.owner_id == who.user_id]
    chosen = own or same
    if not chosen:
        raise NotFoundError(f"there is no workflow named {name!r}")
    if len(chosen) > 1:
        raise ConflictError(f"several workflows are named {name!r}: {', '.join(str(each.id) for each in chosen[:10])}; name one by its id")
    return chosen[0]


def find_step(db: apsw.Connection, who: Identity, message: StepShow) -> Step:
    """The step by its id, or by its name within a workflow."""
    if message.id is not None:
        return found(steps.get(db, message.id), "step", message.id)
    if not message.name:
        raise UsageError("name the step by its id, or by its name and its workflow")
    workflow = find(db, who, message.workflow_id, message.workflow_name)
    step = next((each for each in workflows.steps_of(db, workflow.id) if each.name == message.name), None)
    if step is None:
        raise NotFoundError(f"workflow {workflow.id} has no step named {message.name!r}")
    return step


def act_on(ctx: Ctx, action: str, letters: str, reason: str, *, workflow_id: int) -> tuple[int, int]:
    """Do one of task.act's actions to tasks of a workflow that stand in one of the statuses: how many, and
    how many are left at least.

    Running tasks are only asked for it and change later, so these are taken with the last piece.
    """
    ids = workflows.ids_of(ctx.tx, letters, MOST_AT_ONCE + 1, is_running=False, workflow_id=workflow_id)
    remaining = len(ids) - len(ids[:MOST_AT_ONCE])
    ids = ids[:MOST_AT_ONCE]
    if not remaining:
        ids += workflows.ids_of(ctx.tx, letters, task_act.MOST_IDS - MOST_AT_ONCE, is_running=True, workflow_id=workflow_id)
    task_act.act(ctx, TaskAct(ids=ids, action=action, reason=reason))
    return len(ids), remaining


def must_be_over(ctx: Ctx, workflow: Workflow, step: Step | None = None) -> None:
    """ConflictError while any task of the workflow, or of the step, can still go on."""
    by_letter = tasks.counts(ctx.tx, step_id=step.id) if step else workflows.counts(ctx.tx, workflow.id)
    going = sum(by_letter.get(letter, 0) for letter in (workflows.ALIVE if step is None else workflows.ALIVE + "W"))
    if going:
        what = f"step {step.name} ({step.id})" if step else f"workflow {workflow.name} ({workflow.id})"
        raise ConflictError(f"{what} has {counted(going, 'task')} not ended yet; first: scitq workflow cancel --id {workflow.id}")


def remove(ctx: Ctx, *, step_id: int | None = None, workflow_id: int | None = None) -> tuple[int, int]:
    """Delete tasks of a group, hidden ones included, newest first: how many, and how many are left at least."""
    ids = workflows.attempts_of(ctx.tx, MOST_AT_ONCE + 1, step_id=step_id, workflow_id=workflow_id)
    removed = ids[:MOST_AT_ONCE]
    for task_id in removed:
        attempts = [attempt for attempt, _ in logs.attempts(ctx.tx, task_id)]
        tasks.delete(ctx.tx, task_id)
        if attempts:
            ctx.after(lambda task_id=task_id, attempts=attempts: ctx.broker.logs.delete(task_id, attempts))  # type: ignore[misc] # the loop's values
    return len(removed), len(ids) - len(removed)
