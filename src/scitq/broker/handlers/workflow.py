"""Workflows and steps: making, finalizing, holding back, calling off, waiting, removing.

What concerns all tasks of a group is done in pieces of `MOST_AT_ONCE`, so that the loop is never held up: the answer
tells how many are left, and the client asks again.
"""

from __future__ import annotations

import apsw

from scitq.broker import checks, outcomes
from scitq.broker.context import Ctx, Park, Reading
from scitq.broker.dispatch import handles, reads
from scitq.broker.groups import MOST_AT_ONCE, act_on, find, find_step, found, must_be_over, remove
from scitq.broker.handlers import task_act
from scitq.broker.handlers.task_create import must_own_task, waited_for
from scitq.broker.handlers.worker import apply_settings
from scitq.broker.outcomes import advance
from scitq.broker.store import creation, dependencies, recruiters, steps, tasks, workers, workflows
from scitq.broker.store.steps import Step, Workflow
from scitq.errors import ConflictError, UsageError
from scitq.model.lifecycle import FINAL, TaskEvent, TaskStatus
from scitq.model.uri import BUILT_IN
from scitq.protocol.messages import workflow as m
from scitq.protocol.messages.task import TaskRetry


def _must_be_free(ctx: Ctx, name: str) -> None:
    taken = next((each for each in workflows.named(ctx.tx, name) if each.owner_id == ctx.who.user_id), None)
    if taken:
        raise ConflictError(
            f"you have a workflow named {name!r} already: number {taken.id}; go on with it (`workflow run --continue`), or choose another name"
        )


@handles(m.WorkflowCreate)
def create(ctx: Ctx, message: m.WorkflowCreate) -> m.WorkflowRow:
    """A new, open workflow, by a name that its owner has no other of."""
    checks.check_name(message.name, "workflow")
    if message.maximum_workers is not None and message.maximum_workers < 0:
        raise UsageError("the most workers of a workflow are 1 or more; 0 means any number")
    if len(message.template) > 4 << 20:
        raise UsageError("the workflow file is over 4 MiB")
    _must_be_free(ctx, message.name)
    number = workflows.insert(ctx.tx, message.name, ctx.who.user_id, message.maximum_workers or None, message.template, ctx.now_ms)
    return workflows.row(ctx.tx, steps.workflow(ctx.tx, number))


@reads(m.WorkflowList)
def listing(reading: Reading, message: m.WorkflowList) -> m.WorkflowRows:
    """One page, newest first."""
    if message.limit < 0 or message.offset < 0:
        raise UsageError("limit and offset are 0 or more")
    page = workflows.listed(reading.db, limit=message.limit, offset=message.offset, name=message.name, user=message.user)
    return m.WorkflowRows(rows=page)


@reads(m.WorkflowShow)
def show(reading: Reading, message: m.WorkflowShow) -> m.WorkflowDetails:
    """A workflow and its steps."""
    workflow = find(reading.db, reading.who, message.id, message.name)
    return m.WorkflowDetails(
        workflow=workflows.row(reading.db, workflow),
        steps=[workflows.step_row(reading.db, step) for step in workflows.steps_of(reading.db, workflow.id)],
        template=workflows.template(reading.db, workflow.id),
    )


@handles(m.WorkflowUpdate)
def update(ctx: Ctx, message: m.WorkflowUpdate) -> m.WorkflowRow:
    """A new name or limit."""
    workflow = _owned(ctx, message.id, message.name)
    if message.new_name is not None and message.new_name != workflow.name:
        checks.check_name(message.new_name, "workflow")
        _must_be_free(ctx, message.new_name)
    if message.maximum_workers is not None and message.maximum_workers < 0:
        raise UsageError("the most workers of a workflow are 1 or more; 0 means any number")
    workflows.update(ctx.tx, workflow.id, message.new_name, message.maximum_workers)
    return workflows.row(ctx.tx, steps.workflow(ctx.tx, workflow.id))


def _owned(ctx: Ctx, number: int | None, name: str | None) -> Workflow:
    workflow = find(ctx.tx, ctx.who, number, name)
    ctx.must_own(workflow.owner_id, f"workflow {workflow.id}")
    return workflow


@handles(m.WorkflowAct)
def act(ctx: Ctx, message: m.WorkflowAct) -> m.GroupActed:
    """Finalize, suspend, resume or cancel; the status changes with the first piece, but for finalize with the last."""
    actions = {"finalize": _finalize, "suspend": _suspend, "resume": _resume, "cancel": _cancel}
    if message.action not in actions:
        raise UsageError(f"the action is one of {', '.join(actions)}")
    workflow = _owned(ctx, message.id, message.name)
    if workflow.status == "canceled" and message.action != "cancel":
        raise ConflictError(f"workflow {workflow.id} is canceled")
    changed, remaining = actions[message.action](ctx, workflow)
    ctx.notify("ended")
    fresh = steps.workflow(ctx.tx, workflow.id)
    counted = workflows.counts(ctx.tx, workflow.id) if fresh.status == "ready" else {}
    return m.GroupActed(id=workflow.id, status=workflows.status(ctx.tx, fresh, counted), changed=changed, remaining=remaining)


def _finalize(ctx: Ctx, workflow: Workflow) -> tuple[int, int]:
    if workflow.status != "open":
        return 0, 0
    ids = workflows.inactive(ctx.tx, workflow.id, MOST_AT_ONCE + 1)
    remaining = len(ids[MOST_AT_ONCE:])
    for task_id in ids[:MOST_AT_ONCE]:
        task = tasks.get(ctx.tx, task_id)
        if task is not None:
            waits = dependencies.has_unmet(ctx.tx, task_id)
            advance(ctx, task, TaskEvent.FINALIZE_WAITING if waits else TaskEvent.FINALIZE_READY)
    if not remaining:
        workflows.set_status(ctx.tx, workflow.id, "ready")
    return len(ids) - remaining, remaining


def _suspend(ctx: Ctx, workflow: Workflow) -> tuple[int, int]:
    if workflow.status == "open":
        raise ConflictError(f"workflow {workflow.id} is open: none of its tasks starts before it is finalized")
    workflows.set_status(ctx.tx, workflow.id, "suspended")
    return act_on(ctx, "suspend", "WPACDOR", f"with workflow {workflow.id}", workflow_id=workflow.id)


def _resume(ctx: Ctx, workflow: Workflow) -> tuple[int, int]:
    if workflow.status == "open":
        raise ConflictError(f"workflow {workflow.id} is open, not suspended; finalize it")
    workflows.set_status(ctx.tx, workflow.id, "ready")
    return act_on(ctx, "resume", "Z", f"with workflow {workflow.id}", workflow_id=workflow.id)


def _cancel(ctx: Ctx, workflow: Workflow) -> tuple[int, int]:
    workflows.set_status(ctx.tx, workflow.id, "canceled")
    return act_on(ctx, "cancel", "IWPACDORZ", f"with workflow {workflow.id}", workflow_id=workflow.id)


@handles(m.WorkflowDelete)
def delete(ctx: Ctx, message: m.WorkflowDelete) -> m.GroupActed:
    """Remove what has ended."""
    workflow = _owned(ctx, message.id, message.name)
    must_be_over(ctx, workflow)
    changed, remaining = remove(ctx, workflow_id=workflow.id)
    if not remaining:
        for step in workflows.steps_of(ctx.tx, workflow.id):
            _drop_step(ctx, step)
        workflows.delete(ctx.tx, workflow.id)
    return m.GroupActed(id=workflow.id, status="" if remaining else "deleted", changed=changed, remaining=remaining)


def _drop_step(ctx: Ctx, step: Step) -> None:
    for recruiter in recruiters.listed(ctx.tx, step_id=step.id):
        recruiters.delete(ctx.tx, recruiter.id)
    for worker_id in workflows.workers_of(ctx.tx, step.id):
        workers.update(ctx.tx, worker_id, {"step_id": None})
        workers.record(ctx.tx, worker_id, "updated", f"step {step.id} was deleted", ctx.now_ms)
        apply_settings(ctx, worker_id)
    workflows.delete_step(ctx.tx, step.id)
    ctx.after(lambda: ctx.broker.paused_groups.discard(step.id))


@handles(m.WorkflowRepeat)
def repeat(ctx: Ctx, message: m.WorkflowRepeat) -> m.TasksRepeated:
    """Make tasks anew with other content."""
    if len(message.tasks) > MOST_AT_ONCE:
        raise UsageError(f"{len(message.tasks)} tasks in one request; at most {MOST_AT_ONCE}")
    return m.TasksRepeated(ids=[_again(ctx, again) for again in message.tasks])


def _again(ctx: Ctx, again: m.Again) -> int:
    task = must_own_task(ctx, again.id)
    if task.workflow_id is None or task.successor_id is not None:
        raise ConflictError(f"task {task.id} is in no workflow, or was retried already")
    if task.is_on_worker:
        raise ConflictError(f"task {task.id} is with a worker ({task.status.value})")
    checks.check_retries(again.retries)
    checks.check_spec(again.spec, frozenset((*ctx.broker.config.rclone, *BUILT_IN)))
    if task.status not in FINAL:
        task = outcomes.cancel(ctx, task, "made anew with other content")
    new_id = outcomes.retry(ctx, task, retries=again.retries)
    if tasks.spec(ctx.tx, task.spec_id) != again.spec:
        tasks.set_spec(ctx.tx, new_id, creation.insert_specs(ctx.tx, [creation.spec_row(again.spec)])[0])
    dependencies.drop(ctx.tx, new_id)
    for kind, ids in (("success", again.depends_on), ("end", again.after_any)):
        for wanted in ids:
            on_id, _, is_met = waited_for(ctx, wanted, kind)
            dependencies.insert(ctx.tx, [(new_id, on_id, kind, is_met)])
    made = found(tasks.get(ctx.tx, new_id), "task", new_id)
    match made.status, dependencies.has_unmet(ctx.tx, new_id):
        case TaskStatus.PENDING, True:
            advance(ctx, made, TaskEvent.DEPENDENCY_UNDONE)
        case TaskStatus.PENDING, False:
            outcomes.enqueue(ctx, made)
        case TaskStatus.WAITING, False:
            outcomes.stop_waiting(ctx, made)
    return new_id


@reads(m.TaskContents)
def contents(reading: Reading, message: m.TaskContents) -> m.TasksContents:
    """What some tasks hold, without their history."""
    if len(message.ids) > MOST_AT_ONCE:
        raise UsageError(f"{len(message.ids)} tasks in one request; at most {MOST_AT_ONCE}")
    known = workflows.contents(reading.db, message.ids)
    return m.TasksContents(tasks=[found(known.get(number), "task", number) for number in message.ids])


@reads(m.WorkflowWait)
def wait(reading: Reading, message: m.WorkflowWait) -> m.WorkflowWaited | Park:
    """Answered at the end of the workflow, or when the time is up."""
    workflow = find(reading.db, reading.who, message.id, message.name)
    counted = workflows.counts(reading.db, workflow.id)
    is_over = workflow.status != "open" and workflows.is_over(reading.db, workflow, counted)
    until_s = reading.arrived_s + min(max(message.at_most_s, 0.0), 60.0)
    is_news = bool(message.unless_counts) and message.unless_counts != counted
    if not is_over and not is_news and reading.now_s < until_s:
        return Park(frozenset({"ended"}), until_s, at_least_s=0.2)
    return m.WorkflowWaited(is_over=is_over, status=workflows.status(reading.db, workflow, counted), counts=counted)


@handles(m.StepCreate)
def create_step(ctx: Ctx, message: m.StepCreate) -> m.StepRow:
    """A new step of a workflow of one's own."""
    checks.check_name(message.name, "step")
    checks.check_retries(message.retries)
    workflow = _owned(ctx, message.workflow_id, message.workflow_name)
    if workflow.status == "canceled":
        raise ConflictError(f"workflow {workflow.id} is canceled")
    existing = next((step for step in workflows.steps_of(ctx.tx, workflow.id) if step.name == message.name), None)
    if existing is not None and message.is_existing_fine:
        return workflows.step_row(ctx.tx, existing)
    try:
        number = workflows.insert_step(ctx.tx, workflow.id, message.name, message.retries, ctx.now_ms)
    except apsw.ConstraintError:
        raise ConflictError(f"workflow {workflow.id} has a step named {message.name!r} already") from None
    return workflows.step_row(ctx.tx, found(steps.get(ctx.tx, number), "step", number))


@reads(m.StepList)
def list_steps(reading: Reading, message: m.StepList) -> m.StepRows:
    """Steps by id."""
    number = None
    if message.workflow_id is not None or message.workflow_name is not None:
        number = find(reading.db, reading.who, message.workflow_id, message.workflow_name).id
    return m.StepRows(rows=[workflows.step_row(reading.db, step) for step in workflows.steps_of(reading.db, number)])


@reads(m.StepShow)
def show_step(reading: Reading, message: m.StepShow) -> m.StepRow:
    """One step."""
    step = find_step(reading.db, reading.who, message)
    return workflows.step_row(reading.db, step)


@reads(m.StepStatsAsk)
def stats(reading: Reading, message: m.StepStatsAsk) -> m.StepStatsRows:
    """Figures of steps."""
    if message.ids:
        wanted = [found(steps.get(reading.db, number), "step", number) for number in dict.fromkeys(message.ids)]
    else:
        number = None
        if message.workflow_id is not None or message.workflow_name is not None:
            number = find(reading.db, reading.who, message.workflow_id, message.workflow_name).id
        wanted = workflows.steps_of(reading.db, number)
    rows = [workflows.stats(reading.db, [step], step.id, step.name, step.workflow_id) for step in wanted]
    if message.with_totals:
        rows.append(workflows.stats(reading.db, wanted, 0, "total", 0))
    return m.StepStatsRows(rows=rows)


def _owned_step(ctx: Ctx, number: int) -> tuple[Step, Workflow]:
    step = found(steps.get(ctx.tx, number), "step", number)
    workflow = steps.workflow(ctx.tx, step.workflow_id)
    ctx.must_own(workflow.owner_id, f"step {step.id}")
    return step, workflow


@handles(m.StepAct)
def act_on_step(ctx: Ctx, message: m.StepAct) -> m.GroupActed:
    """Pause, resume, or retry all that failed."""
    step, workflow = _owned_step(ctx, message.id)
    if message.action in ("pause", "resume"):
        is_paused = message.action == "pause"
        workflows.set_paused(ctx.tx, step.id, is_paused)

        def effect() -> None:
            if is_paused:
                ctx.broker.paused_groups.add(step.id)
            else:
                ctx.broker.paused_groups.discard(step.id)
                ctx.broker.ready.changed.add(step.id)

        ctx.after(effect)
        return m.GroupActed(id=step.id, status="paused" if is_paused else "ready", changed=int(step.is_paused != is_paused), remaining=0)
    if message.action != "retry":
        raise UsageError("the action is one of pause, resume, retry")
    if workflow.status == "canceled":
        raise ConflictError(f"workflow {workflow.id} is canceled")
    ids = workflows.ids_of(ctx.tx, "F", MOST_AT_ONCE, is_running=False, step_id=step.id)
    made = task_act.retry(ctx, TaskRetry(ids=ids, retries=message.retries)).ids
    remaining = tasks.counts(ctx.tx, step_id=step.id).get("F", 0)
    return m.GroupActed(id=step.id, status="paused" if step.is_paused else "ready", changed=len(ids), remaining=remaining, ids=made)


@handles(m.StepUpdate)
def update_step(ctx: Ctx, message: m.StepUpdate) -> m.StepRow:
    """How often later tasks are tried again."""
    step, _ = _owned_step(ctx, message.id)
    checks.check_retries(message.retries)
    workflows.set_retries(ctx.tx, step.id, message.retries)
    return workflows.step_row(ctx.tx, found(steps.get(ctx.tx, step.id), "step", step.id))


@handles(m.StepDelete)
def delete_step(ctx: Ctx, message: m.StepDelete) -> m.GroupActed:
    """Remove a step whose tasks have ended."""
    step, workflow = _owned_step(ctx, message.id)
    must_be_over(ctx, workflow, step)
    changed, remaining = remove(ctx, step_id=step.id)
    if not remaining:
        _drop_step(ctx, step)
    return m.GroupActed(id=step.id, status="" if remaining else "deleted", changed=changed, remaining=remaining)
