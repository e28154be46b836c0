"""What follows from a change of a task: queues, retries, those that wait for it, its array."""

from __future__ import annotations

from scitq.broker.context import Ctx
from scitq.broker.ready import NO_STEP
from scitq.broker.store import creation, dependencies, steps, tasks
from scitq.broker.store.tasks import Task
from scitq.errors import ConflictError
from scitq.model import needs
from scitq.model.lifecycle import FINAL, TaskEvent, TaskStatus
from scitq.model.needs import Needs
from scitq.util.units import counted

MOST_LOSSES = 3
"""A task that was running on so many lost workers is not retried by itself any more (contract, section 0, item 8)."""


def advance(ctx: Ctx, task: Task, event: TaskEvent, *, reason: str = "", cause: str = "") -> Task:
    """Apply one event that the broker itself decided, with all that follows from it."""
    changed = tasks.advance(ctx.tx, task, [(event, ctx.now_ms)], ctx.now_ms, reason=reason, cause=cause)
    settle(ctx, task, changed)
    return changed


def enqueue(ctx: Ctx, task: Task, asked: Needs | None = None) -> None:
    """A task is pending: put it before the scheduler once this request has succeeded."""
    if asked is None:
        asked = needs.of_spec(tasks.spec(ctx.tx, task.spec_id))
    group, priority, task_id, array_id = task.step_id or NO_STEP, task.priority, task.id, task.array_id
    ctx.after(lambda: ctx.broker.ready.add([task_id], group, asked._replace(array_id=ctx.broker.limited(array_id)), priority))


def settle(ctx: Ctx, before: Task, task: Task, *, is_eviction: bool = False) -> None:
    """Do all that follows from a change of status. The caller wrote the change itself."""
    ctx.notify(f"task:{task.id}")
    worker_id, task_id = before.worker_id, task.id
    if before.status is TaskStatus.PENDING and task.status is not TaskStatus.ASSIGNED:
        ctx.after(lambda: ctx.broker.ready.remove(task_id))
    if before.is_on_worker and not task.is_on_worker:
        ctx.after(lambda: ctx.broker.release(worker_id, task_id))
    if task.status is TaskStatus.PENDING:
        enqueue(ctx, task)
    elif task.status in FINAL and before.status is not task.status:
        _end(ctx, task, is_eviction=is_eviction)


def _end(ctx: Ctx, task: Task, *, is_eviction: bool) -> None:
    ctx.notify("ended")
    if task.status is TaskStatus.FAILED and _wants_retry(ctx, task, is_eviction=is_eviction):
        left = task.retries_left if is_eviction else task.retries_left - 1
        retry(ctx, task, retries=left, losses=0 if is_eviction else task.losses)
        return
    for waiter_id, kind in dependencies.waiting_on(ctx.tx, task.id):
        _tell(ctx, task, waiter_id, kind)
    if task.status is TaskStatus.FAILED and task.array_id is not None:
        _limit_failures(ctx, task.array_id)


def _workflow_status(ctx: Ctx, task: Task) -> str:
    return "" if task.workflow_id is None else steps.workflow(ctx.tx, task.workflow_id).status


def _wants_retry(ctx: Ctx, task: Task, *, is_eviction: bool) -> bool:
    if _workflow_status(ctx, task) == "canceled":
        return False
    if is_eviction:
        return True
    if task.retries_left <= 0 or task.cause == "killed" or (task.cause == "lost" and task.losses >= MOST_LOSSES):
        return False
    wanted = tasks.spec(ctx.tx, task.spec_id).retry_on
    return not wanted or task.cause in wanted or (task.cause == "exit" and f"exit:{task.exit_status}" in wanted)


def forget_upload(ctx: Ctx, task: Task) -> None:
    """Tell the worker that the files of an upload that failed are needed no more."""
    if task.worker_id and task.wish == tasks.KEPT:
        ctx.push_order(task.worker_id, ctx.broker.order("forget", task.id, task.attempt))


def retry(ctx: Ctx, task: Task, *, retries: int, losses: int = 0) -> int:
    """Hide a task that has ended and make a new one of the same content; what waited on the old waits on the new. Its id.

    Like a new task, it is inactive in an open workflow and suspended in a suspended one; ConflictError in a canceled one.
    """
    tx = ctx.tx
    unmet = any(not is_met for _, _, is_met in dependencies.of_task(tx, task.id))
    match _workflow_status(ctx, task):
        case "canceled":
            raise ConflictError(f"task {task.id} is not retried: its workflow {task.workflow_id} is canceled")
        case "open":
            status = TaskStatus.INACTIVE
        case "suspended" if not unmet:
            status = TaskStatus.SUSPENDED
        case _:
            status = TaskStatus.WAITING if unmet else TaskStatus.PENDING
    new_id = creation.repeat(tx, task.id, ctx.now_ms, retries_left=retries, losses=losses, status=status.value)
    dependencies.copy(tx, task.id, new_id)
    tasks.set_successor(tx, task.id, new_id)
    forget_upload(ctx, task)
    for waiter_id in dependencies.move(tx, task.id, new_id):
        waiter = tasks.get(tx, waiter_id)
        if waiter and waiter.status is TaskStatus.PENDING and dependencies.has_unmet(tx, waiter_id):
            advance(ctx, waiter, TaskEvent.DEPENDENCY_UNDONE)
        elif waiter and waiter.status is TaskStatus.WAITING:
            tasks.note(tx, waiter_id, "")
    made = tasks.get(tx, new_id)
    if made and status is TaskStatus.PENDING:
        enqueue(ctx, made)
    for told in (task.id, new_id):
        ctx.notify(f"task:{told}")
    return new_id


def _tell(ctx: Ctx, ended: Task, waiter_id: int, kind: str) -> None:
    waiter = tasks.get(ctx.tx, waiter_id)
    if waiter is None or waiter.status not in {TaskStatus.WAITING, TaskStatus.INACTIVE, TaskStatus.SUSPENDED}:
        return
    if kind == "end" or ended.status is TaskStatus.SUCCEEDED:
        dependencies.set_met(ctx.tx, waiter_id, ended.id, True)
        if waiter.status is TaskStatus.WAITING and not dependencies.has_unmet(ctx.tx, waiter_id):
            stop_waiting(ctx, waiter)
        return
    what = "was canceled" if ended.status is TaskStatus.CANCELED else "failed"
    if waiter.cancels_with_dependency:
        advance(ctx, waiter, TaskEvent.CANCEL, reason=f"task {ended.id}, which it waited for, {what}")
    else:
        tasks.note(ctx.tx, waiter_id, f"waits for task {ended.id}, which {what}")


def stop_waiting(ctx: Ctx, task: Task) -> None:
    """All that a waiting task waited for is there: it is pending now, or held back with its workflow."""
    ready = advance(ctx, task, TaskEvent.DEPENDENCIES_MET)
    if _workflow_status(ctx, ready) == "suspended":
        advance(ctx, ready, TaskEvent.SUSPEND, reason=f"suspended with workflow {ready.workflow_id}")


def _limit_failures(ctx: Ctx, array_id: int) -> None:
    found = creation.array(ctx.tx, array_id)
    if not found or found[2] is None or len(tasks.of_group(ctx.tx, "F", array_id=array_id)) < found[2]:
        return
    for task in tasks.of_group(ctx.tx, "WPIZACDO", array_id=array_id):
        if not (task.status is TaskStatus.SUSPENDED and task.worker_id is not None):
            cancel(ctx, task, f"{counted(found[2], 'task')} of its array failed")


def cancel(ctx: Ctx, task: Task, reason: str) -> Task:
    """Cancel a task whose command has not started; a worker that has it already is told."""
    changed = advance(ctx, task, TaskEvent.CANCEL, reason=reason)
    if task.is_on_worker and task.worker_id:
        ctx.push_order(task.worker_id, ctx.broker.order("cancel", task.id, task.attempt, reason))
    return changed


def lose(ctx: Ctx, task: Task, reason: str, *, is_eviction: bool = False) -> Task:
    """A worker has lost a task: what had not started goes back to the queue, what had fails and may be retried."""
    changed = tasks.advance(ctx.tx, task, [(TaskEvent.WORKER_LOST, ctx.now_ms)], ctx.now_ms, reason=reason, cause="lost")
    settle(ctx, task, changed, is_eviction=is_eviction)
    return changed
