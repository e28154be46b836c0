"""What people do to tasks: retry, cancel, kill, suspend, edit, delete."""

from __future__ import annotations

from scitq.broker import checks, outcomes
from scitq.broker.context import Ctx
from scitq.broker.dispatch import handles
from scitq.broker.handlers.task_create import must_own_task
from scitq.broker.ready import NO_STEP
from scitq.broker.scheduler import Place
from scitq.broker.store import dependencies, logs, tasks
from scitq.broker.store.tasks import Task
from scitq.errors import ConflictError, UsageError
from scitq.model import lifecycle, needs
from scitq.model.lifecycle import FINAL, STARTED, TaskEvent, TaskStatus
from scitq.protocol.messages import task as m
from scitq.protocol.registry import Done
from scitq.util.clock import monotonic_s

MOST_IDS = 100_000


def _named(task: Task) -> str:
    return f"task {task.id} is {lifecycle.NAMES[task.status]} ({task.status.value})"


def _must_be_latest(task: Task) -> None:
    if task.successor_id is not None:
        raise ConflictError(f"task {task.id} was retried already, as task {task.successor_id}")


@handles(m.TaskRetry)
def retry(ctx: Ctx, message: m.TaskRetry) -> m.TaskRetried:
    """Hide each and make it anew; F and X only, S when forced."""
    if len(message.ids) > MOST_IDS or len(set(message.ids)) != len(message.ids):
        raise UsageError("give each id once")
    if message.retries is not None:
        checks.check_retries(message.retries)
    made = []
    for task_id in message.ids:
        task = must_own_task(ctx, task_id)
        _must_be_latest(task)
        allowed = {TaskStatus.FAILED, TaskStatus.CANCELED} | ({TaskStatus.SUCCEEDED} if message.is_forced else set())
        if task.status not in allowed:
            hint = (
                "; add --force to run it again" if task.status is TaskStatus.SUCCEEDED else "; only failed and canceled tasks are retried"
            )
            raise ConflictError(_named(task) + hint)
        made.append(outcomes.retry(ctx, task, retries=task.retries_left if message.retries is None else message.retries))
    return m.TaskRetried(ids=made)


@handles(m.TaskAct)
def act(ctx: Ctx, message: m.TaskAct) -> m.TaskActed:
    """Carry out one action on each, all or none."""
    actions = {"cancel": _cancel, "kill": _kill, "stop": _stop, "suspend": _suspend, "resume": _resume, "upload": _upload}
    action = actions.get(message.action)
    if action is None or len(message.ids) > MOST_IDS:
        raise UsageError(f"the action is one of {', '.join(actions)}, on at most {MOST_IDS} tasks")
    statuses = []
    for task_id in message.ids:
        task = must_own_task(ctx, task_id)
        _must_be_latest(task)
        statuses.append(action(ctx, task, message.reason or f"by {ctx.who.name}").status.value)
    return m.TaskActed(statuses=statuses)


def _wish(ctx: Ctx, task: Task, wish: str, reason: str) -> Task:
    """Have the task's worker do something; said again at its next heartbeat if it is away."""
    tasks.set_wish(ctx.tx, task.id, wish)
    if task.worker_id:
        ctx.push_order(task.worker_id, ctx.broker.order(wish, task.id, task.attempt, reason))
    return task


def _has_run(task: Task) -> bool:
    return task.status in STARTED or (task.status is TaskStatus.SUSPENDED and task.worker_id is not None)


def _cancel(ctx: Ctx, task: Task, reason: str) -> Task:
    if task.status in FINAL:
        raise ConflictError(f"{_named(task)} and can't be canceled")
    if _has_run(task):
        return _wish(ctx, task, "kill", f"killed {reason}")
    return outcomes.cancel(ctx, task, f"canceled {reason}")


def _kill(ctx: Ctx, task: Task, reason: str) -> Task:
    if not _has_run(task):
        raise ConflictError(f"{_named(task)}, not running; scitq task cancel ends tasks that have not started")
    return _wish(ctx, task, "kill", f"killed {reason}")


def _stop(ctx: Ctx, task: Task, reason: str) -> Task:
    if not _has_run(task):
        raise ConflictError(f"{_named(task)}, not running; scitq task cancel ends tasks that have not started")
    return _wish(ctx, task, "stop", f"stopped {reason}")


def _suspend(ctx: Ctx, task: Task, reason: str) -> Task:
    if task.status in {TaskStatus.PENDING, TaskStatus.WAITING}:
        return outcomes.advance(ctx, task, TaskEvent.SUSPEND, reason=f"suspended {reason}")
    if task.status is TaskStatus.RUNNING:
        return _wish(ctx, task, "freeze", f"suspended {reason}")
    if task.status in {TaskStatus.ASSIGNED, TaskStatus.ACCEPTED, TaskStatus.DOWNLOADING, TaskStatus.ON_HOLD}:
        if task.worker_id:
            ctx.push_order(task.worker_id, ctx.broker.order("cancel", task.id, task.attempt, f"suspended {reason}"))
        back = outcomes.advance(ctx, task, TaskEvent.DECLINE, reason="taken back")
        return outcomes.advance(ctx, back, TaskEvent.SUSPEND, reason=f"suspended {reason}")
    raise ConflictError(f"{_named(task)} and can't be suspended")


def _resume(ctx: Ctx, task: Task, reason: str) -> Task:
    if task.status is not TaskStatus.SUSPENDED:
        if task.wish == "freeze":
            tasks.set_wish(ctx.tx, task.id, "")
        elif task.status is not TaskStatus.RUNNING:
            raise ConflictError(f"{_named(task)}, not suspended")
        return _wish(ctx, task, "thaw", reason)
    if task.worker_id is not None:
        return _wish(ctx, task, "thaw", reason)
    waits = task.resumes_to != TaskStatus.PENDING.value and dependencies.has_unmet(ctx.tx, task.id)
    return outcomes.advance(ctx, task, TaskEvent.RESUME_WAITING if waits else TaskEvent.RESUME_READY)


def _upload(ctx: Ctx, task: Task, reason: str) -> Task:
    if task.status is not TaskStatus.FAILED or task.wish != tasks.KEPT:
        raise ConflictError(f"{_named(task)}, without an upload that failed")
    worker = ctx.broker.sessions.get(task.worker_id or 0)
    if worker is None:
        raise ConflictError(f"the worker {task.worker_id} that keeps the files of task {task.id} is not connected")
    is_all_that_failed = task.cause == "upload"
    event = TaskEvent.UPLOAD_AGAIN if is_all_that_failed else TaskEvent.UPLOAD_AGAIN_BAD
    changed = outcomes.advance(ctx, task, event, reason=f"uploaded again {reason}", cause="" if is_all_that_failed else task.cause)
    _hold(ctx, changed)
    return _wish(ctx, changed, "upload", reason)


def _hold(ctx: Ctx, task: Task) -> None:
    """A worker has the task again, to upload what it made: it isn't idle, and tells how far it is."""
    asked = needs.of_spec(tasks.spec(ctx.tx, task.spec_id), ctx.broker.limited(task.array_id))

    def hold() -> None:
        live = ctx.broker.fleet.workers.get(task.worker_id or 0)
        if live is not None:
            live.hold(task.id, Place(task.attempt, asked, is_reserved=True, is_shipping=True, assigned_s=monotonic_s()))
            ctx.broker.fleet.touch(live)

    ctx.after(hold)


@handles(m.TaskEdit)
def edit(ctx: Ctx, message: m.TaskEdit) -> Done:
    """Change priority, name, labels or retries while no worker has the task."""
    if message.priority is not None:
        checks.check_priority(message.priority)
    if message.retries is not None:
        checks.check_retries(message.retries)
    for task_id in message.ids:
        task = must_own_task(ctx, task_id)
        if task.status not in {TaskStatus.PENDING, TaskStatus.WAITING, TaskStatus.INACTIVE, TaskStatus.SUSPENDED} or task.worker_id:
            raise ConflictError(f"{_named(task)}; a task that was sent to a worker never changes")
        tasks.edit(
            ctx.tx, task_id, priority=message.priority, name=message.name, labels=message.labels, retries=message.retries
        )  # fmt: skip
        if task.status is TaskStatus.PENDING and message.priority is not None:
            _requeue(ctx, task, message.priority)
    return Done()


def _requeue(ctx: Ctx, task: Task, priority: int) -> None:
    asked = needs.of_spec(tasks.spec(ctx.tx, task.spec_id), ctx.broker.limited(task.array_id))

    def move() -> None:
        ctx.broker.ready.remove(task.id)
        ctx.broker.ready.add([task.id], task.step_id or NO_STEP, asked, priority)

    ctx.after(move)


@handles(m.TaskDelete)
def delete(ctx: Ctx, message: m.TaskDelete) -> Done:
    """Remove ended tasks with their logs."""
    for task_id in message.ids:
        task = must_own_task(ctx, task_id)
        if task.status not in FINAL:
            raise ConflictError(f"{_named(task)}; only ended tasks are deleted")
        if any(True for waiter, _ in dependencies.waiting_on(ctx.tx, task_id) if (tasks.get(ctx.tx, waiter) or task).status not in FINAL):
            raise ConflictError(f"other tasks wait for task {task_id}")
        outcomes.forget_upload(ctx, task)
        attempts = [attempt for attempt, _ in logs.attempts(ctx.tx, task_id)]
        tasks.delete(ctx.tx, task_id)
        ctx.after(lambda task_id=task_id, attempts=attempts: ctx.broker.logs.delete(task_id, attempts))  # type: ignore[misc] # the loop's values
    return Done()
