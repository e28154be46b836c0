"""Creating tasks, all of a request or none."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from scitq.broker import checks
from scitq.broker.context import Ctx
from scitq.broker.dispatch import handles
from scitq.broker.ready import NO_STEP
from scitq.broker.store import creation, dependencies, steps, tasks
from scitq.broker.store.creation import Origin
from scitq.errors import ConflictError, ForbiddenError, NotFoundError, ScitqError, UsageError
from scitq.model import needs
from scitq.model.lifecycle import TaskStatus
from scitq.model.needs import Needs
from scitq.model.task import NewTask, digest
from scitq.protocol.messages.task import TaskCreate, TasksCreated

BUILT_IN_SCHEMES = ("http", "https", "ftp", "file")
MOST_AT_ONCE = 20_000


class _Draft(NamedTuple):
    task: NewTask
    letter: str
    workflow_id: int | None
    waits: list[tuple[int, str, bool]]
    waits_new: list[tuple[int, str]]


@handles(TaskCreate)
def create(ctx: Ctx, message: TaskCreate) -> TasksCreated:
    """Check everything, then insert; a key that exists gives its task."""
    if len(message.tasks) > MOST_AT_ONCE:
        raise UsageError(f"{len(message.tasks)} tasks in one request; at most {MOST_AT_ONCE}")
    _check(ctx, message)
    ids: list[int | None] = [None] * len(message.tasks)
    keys: dict[str, int] = {}
    existing: list[int] = []
    drafts: list[_Draft] = []
    places: list[int] = []
    by_step: dict[int, tuple[int, str, int]] = {}
    for position, task in enumerate(message.tasks):
        try:
            if task.key is not None and _is_known(ctx, message, position, task.key, keys, ids):
                existing.append(position)
            else:
                drafts.append(_draft(ctx, task, by_step, ids, keys))
                places.append(position)
        except ScitqError as error:
            error.position = position
            raise
    if message.is_dry_run:
        return TasksCreated(ids=[task_id or 0 for task_id in ids], existing=existing)
    array_id = _array(ctx, message, ids[existing[0]] if existing else None)
    asked = [needs.of_spec(spec) for spec in message.specs]
    _insert(ctx, message, drafts, places, ids, array_id, asked)
    for position in places:
        key = message.tasks[position].key
        if key is not None:
            content = digest(message.specs[message.tasks[position].spec], message.tasks[position])
            creation.insert_key(ctx.tx, ctx.who.user_id, key, ids[position] or 0, content)
    return TasksCreated(ids=[task_id or 0 for task_id in ids], existing=existing, array_id=array_id)


def _check(ctx: Ctx, message: TaskCreate) -> None:
    schemes = [*ctx.broker.config.rclone, *BUILT_IN_SCHEMES]
    for number, spec in enumerate(message.specs):
        try:
            checks.check_spec(spec, schemes)
        except ScitqError as error:
            error.position = next((position for position, task in enumerate(message.tasks) if task.spec == number), None)
            raise
    for position, task in enumerate(message.tasks):
        try:
            checks.check_task(task, position, len(message.specs))
        except ScitqError as error:
            error.position = position
            raise


def _array(ctx: Ctx, message: TaskCreate, made_id: int | None) -> int | None:
    """The array of a request; `made_id`: a task of it that a key found, whose array is gone on with."""
    if message.array_id is not None:
        found = creation.array(ctx.tx, message.array_id)
        if found is None or found[0] != ctx.who.user_id:
            raise NotFoundError(f"you have no array {message.array_id}")
        return message.array_id
    most, fails = message.array_most_running, message.array_max_fails
    if not message.is_array and most is None and fails is None:
        return None
    if (most is not None and most < 1) or (fails is not None and fails < 1):
        raise UsageError("the limits of an array are at least 1")
    known_id = None if made_id is None else creation.array_of(ctx.tx, made_id)
    if known_id is not None:
        return known_id
    array_id = creation.insert_array(ctx.tx, ctx.who.user_id, most, fails)
    if most is not None:
        ctx.broker.array_most[array_id] = most
    return array_id


def _is_known(ctx: Ctx, message: TaskCreate, position: int, key: str, keys: dict[str, int], ids: list[int | None]) -> bool:
    """Whether the key of a task finds one that exists; its id is then in `ids`. `keys` gets the position of every key."""
    if key in keys:
        raise ConflictError(f"the key {key!r} is used twice, by tasks {keys[key] + 1} and {position + 1} of the request")
    keys[key] = position
    task = message.tasks[position]
    found = creation.by_key(ctx.tx, ctx.who.user_id, key)
    if found is None:
        return False
    if found[1] != digest(message.specs[task.spec], task):
        raise ConflictError(f"the key {key!r} belongs to task {found[0]}, which has other content")
    ids[position] = found[0]
    return True


def _waits_for_something(task: NewTask) -> bool:
    return bool(
        task.depends_on or task.after_any or task.depends_on_keys or task.after_any_keys or task.depends_on_new or task.after_any_new
    )


def _draft(ctx: Ctx, task: NewTask, by_step: dict[int, tuple[int, str, int]], ids: list[int | None], keys: dict[str, int]) -> _Draft:
    if task.step_id is None and not _waits_for_something(task):
        return _Draft(task, "Z" if task.is_held else "P", None, [], [])
    workflow_id, is_open = None, False
    if task.step_id is not None:
        if task.step_id not in by_step:
            step = steps.get(ctx.tx, task.step_id)
            if step is None:
                raise NotFoundError(f"there is no step {task.step_id}")
            workflow = steps.workflow(ctx.tx, step.workflow_id)
            if workflow.status == "canceled":
                raise ConflictError(f"workflow {workflow.id} is canceled and takes no tasks")
            ctx.must_own(workflow.owner_id, f"step {step.id}")
            by_step[task.step_id] = (step.workflow_id, workflow.status, step.retries)
        workflow_id, status, retries = by_step[task.step_id]
        if task.retries < retries:
            task = msgspec.structs.replace(task, retries=retries)
        is_open = status == "open"
    waits: list[tuple[int, str, bool]] = []
    waits_new: list[tuple[int, str]] = []
    for kind, on_ids in (("success", task.depends_on), ("end", task.after_any)):
        waits.extend(waited_for(ctx, on_id, kind) for on_id in on_ids)
    for kind, names, positions in (
        ("success", task.depends_on_keys, task.depends_on_new),
        ("end", task.after_any_keys, task.after_any_new),
    ):
        waits.extend(waited_for(ctx, _by_key(ctx, name), kind) for name in names if name not in keys)
        for position in (*positions, *(keys[name] for name in names if name in keys)):
            known = ids[position]
            if known is not None:
                waits.append(waited_for(ctx, known, kind))
            else:
                waits_new.append((position, kind))
    unmet = bool(waits_new) or any(not is_met for _, _, is_met in waits)
    if is_open:
        letter = "I"
    elif unmet:
        letter = "W"
    else:
        letter = "Z" if task.is_held or (workflow_id is not None and by_step[task.step_id or 0][1] == "suspended") else "P"
    return _Draft(task, letter, workflow_id, waits, waits_new)


def _by_key(ctx: Ctx, key: str) -> int:
    found = creation.by_key(ctx.tx, ctx.who.user_id, key)
    if found is None:
        raise NotFoundError(f"you have no task with the key {key!r} to depend on")
    return found[0]


def waited_for(ctx: Ctx, on_id: int, kind: str) -> tuple[int, str, bool]:
    """The newest attempt of a task to wait for, the kind of waiting, and whether it is over already."""
    on = tasks.get(ctx.tx, on_id)
    if on is None:
        raise NotFoundError(f"there is no task {on_id} to depend on")
    while on.successor_id is not None:
        on = tasks.get(ctx.tx, on.successor_id) or on
    is_met = on.status is TaskStatus.SUCCEEDED or (kind == "end" and on.status in {TaskStatus.FAILED, TaskStatus.CANCELED})
    return on.id, kind, is_met


def _insert(
    ctx: Ctx, message: TaskCreate, drafts: list[_Draft], places: list[int], ids: list[int | None], array_id: int | None, asked: list[Needs]
) -> None:
    if not drafts:
        return
    used = sorted({draft.task.spec for draft in drafts})
    spec_ids = dict(zip(used, creation.insert_specs(ctx.tx, [message.specs[number] for number in used]), strict=True))
    rows = [(draft.task, spec_ids[draft.task.spec], draft.letter, draft.workflow_id) for draft in drafts]
    new_ids = creation.insert_tasks(ctx.tx, rows, Origin(ctx.who.user_id, array_id, ctx.now_ms))
    for position, new_id in zip(places, new_ids, strict=True):
        ids[position] = new_id
    fresh: list[tuple[int, int, Needs, int]] = []
    for draft, new_id in zip(drafts, new_ids, strict=True):
        for on_id, kind, is_met in draft.waits:
            dependencies.insert(ctx.tx, new_id, on_id, kind, is_met=is_met)
        if draft.waits_new:
            dependencies.insert_unmet(ctx.tx, [(new_id, ids[position] or 0, kind) for position, kind in draft.waits_new])
        if draft.letter == "P":
            fresh.append((new_id, draft.task.step_id or NO_STEP, asked[draft.task.spec], draft.task.priority))
    if fresh:
        limited = ctx.broker.limited(array_id)

        def enqueue() -> None:
            for task_id, group, asked_of, priority in fresh:
                ctx.broker.ready.add(task_id, group, asked_of._replace(array_id=limited) if limited else asked_of, priority)

        ctx.after(enqueue)
    ctx.notify("created")


def must_own_task(ctx: Ctx, task_id: int) -> tasks.Task:
    """The task, which must exist and be the caller's (or the caller an administrator)."""
    task = tasks.get(ctx.tx, task_id)
    if task is None:
        raise NotFoundError(f"there is no task {task_id}")
    if not ctx.is_admin and task.owner_id != ctx.who.user_id:
        raise ForbiddenError(f"task {task_id} belongs to somebody else; only the owner or an administrator may change it")
    return task
