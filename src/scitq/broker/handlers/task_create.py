"""Creating tasks, all of a request or none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from scitq.broker import checks
from scitq.broker.context import Ctx
from scitq.broker.dispatch import handles
from scitq.broker.ready import NO_STEP
from scitq.broker.sheet import Sheet
from scitq.broker.store import creation, dependencies, steps, tasks
from scitq.broker.store.creation import Origin, Standing
from scitq.errors import ConflictError, ForbiddenError, NotFoundError, ScitqError, UsageError
from scitq.model.lifecycle import TaskStatus
from scitq.model.needs import Needs
from scitq.model.task import NewTask, digest
from scitq.model.uri import BUILT_IN
from scitq.protocol.messages.task import TaskCreate, TasksCreated

MOST_AT_ONCE = 2_000
"""Nothing else is answered while a request is carried out; plain tasks take 10 microseconds each, rich ones 25."""
_Run = tuple[Standing, list[NewTask], list[int]]
"""Tasks in a row that start alike, and their positions in the request."""
_Fresh = defaultdict[tuple[int, int], defaultdict[Needs, list[int]]]
"""Ids that are pending, by group and priority, and by what they ask."""


_shape = attrgetter("step_id", "priority", "retries", "is_held", "cancel_when_dependency_fails", "depends_on", "after_any")
"""What decides where a task starts, unless it waits for others by key or within its request."""


@handles(TaskCreate)
def create(ctx: Ctx, message: TaskCreate) -> TasksCreated:
    """Check everything, then insert; a key that exists gives its task."""
    if len(message.tasks) > MOST_AT_ONCE:
        raise UsageError(f"{len(message.tasks)} tasks in one request; at most {MOST_AT_ONCE}")
    sheet = _check(ctx, message)
    ids: list[int] = [0] * len(message.tasks)
    keys = _find_keys(ctx, message.tasks, sheet, ids)
    existing = [position for position, task_id in enumerate(ids) if task_id] if keys else []
    runs = _runs(ctx, message.tasks, ids, keys)
    if message.is_dry_run:
        return TasksCreated(ids=ids, existing=existing)
    array_id = _array(ctx, message, ids[existing[0]] if existing else None)
    if runs:
        _insert(ctx, sheet, runs, ids, array_id)
    return TasksCreated(ids=ids, existing=existing, array_id=array_id)


def _check(ctx: Ctx, message: TaskCreate) -> Sheet:
    position = 0
    try:
        sheet = Sheet(message.specs, frozenset((*ctx.broker.config.rclone, *BUILT_IN)))
    except UsageError as error:
        error.position = next((position for position, task in enumerate(message.tasks) if task.spec == error.position), None)
        raise
    try:
        if not checks.are_plain_tasks(message.tasks, len(message.specs)):
            for position, task in enumerate(message.tasks):
                checks.check_task(task, position, len(message.specs))
    except UsageError as error:
        error.position = position
        raise
    return sheet


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


def _find_keys(ctx: Ctx, new: Sequence[NewTask], sheet: Sheet, ids: list[int]) -> dict[str, int]:
    """The position of each key; the ids of those that exist are put into `ids`."""
    keys: dict[str, int] = {}
    position = 0
    try:
        for position, task in enumerate(new):
            if task.key is not None and keys.setdefault(task.key, position) != position:
                raise ConflictError(f"the key {task.key!r} is used twice, by tasks {keys[task.key] + 1} and {position + 1} of the request")
        known = creation.by_keys(ctx.tx, ctx.who.user_id, list(keys))
        for position in sorted(keys[key] for key in known):
            task = new[position]
            task_id, content = known[task.key or ""]
            if content != digest(sheet.specs[task.spec], task):
                raise ConflictError(f"the key {task.key!r} belongs to task {task_id}, which has other content")
            ids[position] = task_id
    except ConflictError as error:
        error.position = position
        raise
    return keys


def _runs(ctx: Ctx, new: Sequence[NewTask], ids: Sequence[int], keys: Mapping[str, int]) -> list[_Run]:
    """Where each task that does not exist yet starts; those in a row that start alike make a run."""
    runs: list[_Run] = []
    by_shape: dict[Any, Standing] = {}
    last: Standing | None = None
    position = 0
    try:
        for position, task in enumerate(new):
            if ids[position]:
                continue
            shape = _shape(task)
            standing = by_shape.get(shape) or by_shape.setdefault(shape, _standing(ctx, task))
            if task.depends_on_new or task.after_any_new or task.depends_on_keys or task.after_any_keys:
                standing = _standing_after(ctx, standing, task, position, ids, keys)
            if standing is not last:
                runs.append((standing, [], []))
                last = standing
            runs[-1][1].append(task)
            runs[-1][2].append(position)
    except ScitqError as error:
        error.position = position
        raise
    return runs


def _standing(ctx: Ctx, task: NewTask) -> Standing:
    workflow_id, status, retries = None, "", task.retries
    if task.step_id is not None:
        step = steps.get(ctx.tx, task.step_id)
        if step is None:
            raise NotFoundError(f"there is no step {task.step_id}")
        workflow = steps.workflow(ctx.tx, step.workflow_id)
        if workflow.status == "canceled":
            raise ConflictError(f"workflow {workflow.id} is canceled and takes no tasks")
        ctx.must_own(workflow.owner_id, f"step {step.id}")
        workflow_id, status, retries = step.workflow_id, workflow.status, max(retries, step.retries)
    waits = [waited_for(ctx, on_id, "success") for on_id in task.depends_on] + [waited_for(ctx, on_id, "end") for on_id in task.after_any]
    if status == "open":
        letter = "I"
    elif not all(is_met for _, _, is_met in waits):
        letter = "W"
    else:
        letter = "Z" if task.is_held or status == "suspended" else "P"
    return Standing(letter, task.step_id, workflow_id, task.priority, retries, task.cancel_when_dependency_fails, waits)


def _standing_after(
    ctx: Ctx, standing: Standing, task: NewTask, place: int, ids: Sequence[int], keys: Mapping[str, int]
) -> Standing:  # fmt: skip
    """The standing of one that waits for others by key or within its request; what exists already is waited for as it is."""
    waits, waits_new = list(standing.waits), []
    for kind, names, positions in (
        ("success", task.depends_on_keys, task.depends_on_new),
        ("end", task.after_any_keys, task.after_any_new),
    ):
        own = [keys[name] for name in names if keys.get(name, place) < place]
        waits += [waited_for(ctx, _by_key(ctx, name), kind) for name in names if keys.get(name, place) >= place]
        waits += [waited_for(ctx, ids[position], kind) for position in (*positions, *own) if ids[position]]
        waits_new += [(position, kind) for position in (*positions, *own) if not ids[position]]
    is_waiting = waits_new or not all(is_met for _, _, is_met in waits)
    letter = "W" if is_waiting and standing.letter != "I" else standing.letter
    return replace(standing, letter=letter, waits=waits, waits_new=waits_new)


def _by_key(ctx: Ctx, key: str) -> int:
    found = creation.by_key(ctx.tx, ctx.who.user_id, key)
    if found is None:
        raise NotFoundError(f"you have no task with the key {key!r} to depend on")
    return found


def waited_for(ctx: Ctx, on_id: int, kind: str) -> tuple[int, str, bool]:
    """The newest attempt of a task to wait for, the kind of waiting, and whether it is over already."""
    on = tasks.get(ctx.tx, on_id)
    if on is None:
        raise NotFoundError(f"there is no task {on_id} to depend on")
    while on.successor_id is not None:
        on = tasks.get(ctx.tx, on.successor_id) or on
    is_met = on.status is TaskStatus.SUCCEEDED or (kind == "end" and on.status in {TaskStatus.FAILED, TaskStatus.CANCELED})
    return on.id, kind, is_met


def _insert(ctx: Ctx, sheet: Sheet, runs: list[_Run], ids: list[int], array_id: int | None) -> None:
    used = sorted({task.spec for _, new, _ in runs for task in new})
    spec_ids = dict(zip(used, creation.insert_specs(ctx.tx, [sheet.rows[number] for number in used]), strict=True))
    made = creation.insert_tasks(ctx.tx, runs, spec_ids, Origin(ctx.who.user_id, array_id, ctx.now_ms))
    fresh: _Fresh = defaultdict(lambda: defaultdict(list))
    waits: list[tuple[int, int, str, bool]] = []
    keys: list[tuple[str, int, bytes]] = []
    done = 0
    for standing, new, positions in runs:
        own = made[done : done + len(new)]
        done += len(new)
        for position, task_id in zip(positions, own, strict=True):
            ids[position] = task_id
        if standing.letter == "P":
            queues = fresh[standing.step_id or NO_STEP, standing.priority]
            for task, task_id in zip(new, own, strict=True):
                queues[sheet.needs[task.spec]].append(task_id)
        keys += [
            (task.key, task_id, digest(sheet.specs[task.spec], task))
            for task, task_id in zip(new, own, strict=True)
            if task.key is not None
        ]
        waits += [(task_id, on_id, kind, is_met) for on_id, kind, is_met in standing.waits for task_id in own]
        waits += [(task_id, ids[other], kind, False) for other, kind in standing.waits_new for task_id in own]
    if waits:
        dependencies.insert(ctx.tx, waits)
    if keys:
        creation.insert_keys(ctx.tx, ctx.who.user_id, keys)
    if fresh:
        ctx.after(lambda: _enqueue(ctx, fresh, array_id))
    ctx.notify("created")


def _enqueue(ctx: Ctx, fresh: _Fresh, array_id: int | None) -> None:
    limited = ctx.broker.limited(array_id)
    for (group, priority), queues in fresh.items():
        for asked, task_ids in queues.items():
            ctx.broker.ready.add(task_ids, group, asked._replace(array_id=limited) if limited else asked, priority)


def must_own_task(ctx: Ctx, task_id: int) -> tasks.Task:
    """The task, which must exist and be the caller's (or the caller an administrator)."""
    task = tasks.get(ctx.tx, task_id)
    if task is None:
        raise NotFoundError(f"there is no task {task_id}")
    if not ctx.is_admin and task.owner_id != ctx.who.user_id:
        raise ForbiddenError(f"task {task_id} belongs to somebody else; only the owner or an administrator may change it")
    return task
