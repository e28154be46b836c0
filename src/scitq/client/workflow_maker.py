"""From a plan to a workflow on the server: new, or one to go on with (docs/workflows.md, "Running a file again")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import msgspec

from scitq.client.api import Api
from scitq.errors import ConflictError, NotFoundError, UsageError
from scitq.model import flavor_filter
from scitq.model.task import NewTask, TaskSpec
from scitq.model.template.plan import Plan, PlannedStep, PlannedTask
from scitq.model.uri import Uri
from scitq.protocol.messages import fleet as f
from scitq.protocol.messages import workflow as m
from scitq.protocol.messages.task import TaskCreate, TaskList, TaskRow, TaskRows, TasksCreated

MOST_AT_ONCE = 1000
MOST_BYTES_AT_ONCE = 16 << 20
_MOST_REPEATED = 200
_PAGE = 5000
_LAST_ID = (1 << 62) - 1
_ON_WORKER = "ACDORUV"


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What was made. `retried`: new ids of tasks made anew; `kept`: tasks that were there and stay; `busy`: those of them
    whose inputs have changed but which are with a worker.
    """

    id: int
    name: str
    steps: dict[str, int] = {}
    created: list[int] = []
    retried: list[int] = []
    kept: int = 0
    busy: list[int] = []
    recruiters: int = 0


def make(api: Api, plan: Plan, text: str, *, goes_on: bool, with_recruiters: bool) -> Made:
    """Make the workflow of a plan, and let it start.

    text: the file, for the record. goes_on: add to the workflow of that name, if there is one. Nothing starts before all
    is there: the tasks of a new workflow are inactive (I) until the last call.
    """
    _check_storages(api, plan)
    if with_recruiters:
        _check_providers(api, plan)
    found = _existing(api, plan.name) if goes_on else None
    tasks: dict[tuple[int, str], TaskRow] = {}
    if found is None:
        row = api.call(m.WorkflowCreate(name=plan.name, maximum_workers=plan.max_workers, template=text), m.WorkflowRow)
    else:
        row = found
        tasks = {(task.step_id or 0, task.name): task for task in _tasks_of(api, row.id)}
    maker = _Maker(api, plan, row.id, tasks)
    maker.make_steps()
    maker.make_tasks()
    recruiters = maker.make_recruiters() if with_recruiters else 0
    while api.call(m.WorkflowAct(action="finalize", id=row.id), m.GroupActed).remaining:
        pass
    return Made(
        id=row.id,
        name=row.name,
        steps=maker.steps,
        created=maker.created,
        retried=maker.retried,
        kept=maker.kept,
        busy=maker.busy,
        recruiters=recruiters,
    )


def _existing(api: Api, name: str) -> m.WorkflowRow | None:
    try:
        return api.call(m.WorkflowShow(name=name), m.WorkflowDetails).workflow
    except NotFoundError:
        return None


def _tasks_of(api: Api, workflow_id: int) -> Iterator[TaskRow]:
    """All latest attempts, page after page by id, so that none is missed while others change."""
    first = 1
    while True:
        asked = TaskList(workflow_id=workflow_id, ids=[(first, _LAST_ID, 1)], limit=_PAGE, is_oldest_first=True)
        rows = api.call(asked, TaskRows).rows
        yield from rows
        if len(rows) < _PAGE:
            return
        first = rows[-1].id + 1


def _check_storages(api: Api, plan: Plan) -> None:
    """Have the server look at one task for each set of storages that is named, before anything is made."""
    chosen: dict[tuple[str, ...], TaskSpec] = {}
    for task in plan.tasks:
        spec = task.spec
        uris = [*spec.inputs, *spec.resources, *(place for place in (spec.output, spec.publish) if place)]
        chosen.setdefault(tuple(sorted({Uri.parse(uri).scheme for uri in uris})), spec)
    specs = list(chosen.values())
    api.call(TaskCreate(specs=specs, tasks=[NewTask(spec=number) for number in range(len(specs))], is_dry_run=True), TasksCreated)


def _check_providers(api: Api, plan: Plan) -> None:
    """UsageError for a recruiter of a provider that is not there: it would wait for ever, and only say so when it is asked."""
    wanted: dict[str, str] = {}
    for recruiter in plan.recruiters:
        for condition in flavor_filter.parse(recruiter.filter):
            if condition.column == "provider" and "%" not in condition.text:
                wanted.setdefault(condition.text.lower(), recruiter.step)
    known = {row.name for row in api.call(f.ProviderList(), f.ProviderRows).rows} if wanted else set()
    for name in sorted(set(wanted) - known):
        raise UsageError(f"the step {wanted[name]} has a recruiter of {name!r}, but the providers are {', '.join(sorted(known))}")


def _size(spec: TaskSpec) -> int:
    return 500 + len(spec.command) + sum(map(len, spec.inputs)) + sum(map(len, spec.resources))


def _batches(tasks: Sequence[tuple[int, PlannedTask]], most: int = MOST_AT_ONCE) -> Iterator[list[tuple[int, PlannedTask]]]:
    """Pieces that fit into one message each."""
    batch: list[tuple[int, PlannedTask]] = []
    size = 0
    for entry in tasks:
        more = _size(entry[1].spec)
        if batch and (len(batch) >= most or size + more > MOST_BYTES_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += more
    if batch:
        yield batch


def _is_with_a_worker(found: m.TaskContent) -> bool:
    return found.status in _ON_WORKER or (found.status == "Z" and found.worker_id is not None)


def _has_moved(task: PlannedTask, found: m.TaskContent) -> bool:
    """Whether the task has other inputs now."""
    return (set(task.spec.inputs), set(task.spec.resources)) != (set(found.spec.inputs), set(found.spec.resources))


def _is_outdated(task: PlannedTask, found: m.TaskContent) -> bool:
    return _is_with_a_worker(found) and _has_moved(task, found)


class _Maker:
    def __init__(self, api: Api, plan: Plan, workflow_id: int, existing: dict[tuple[int, str], TaskRow]) -> None:
        self._api = api
        self._plan = plan
        self._id = workflow_id
        self._existing = existing
        self._ids: dict[int, int] = {}
        self._fresh: set[int] = set()
        """Positions of tasks that were created or made anew by this run."""
        self.steps: dict[str, int] = {}
        self.created: list[int] = []
        self.retried: list[int] = []
        self.busy: list[int] = []
        self.kept = 0

    def make_steps(self) -> None:
        """Steps that are there already are kept; their retries follow the file."""
        for step in self._plan.steps:
            asked = m.StepCreate(name=step.name, workflow_id=self._id, retries=step.retries, is_existing_fine=True)
            row = self._api.call(asked, m.StepRow)
            self.steps[step.name] = row.id
            self._update_retries(row, step)

    def _update_retries(self, row: m.StepRow, step: PlannedStep) -> None:
        if row.retries != step.retries:
            self._api.call(m.StepUpdate(id=row.id, retries=step.retries), m.StepRow)

    def make_tasks(self) -> None:
        """Step after step, so that what a task waits for has its id already."""
        for name, entries in groupby(enumerate(self._plan.tasks), key=lambda entry: entry[1].step):
            step_id = self.steps[name]
            new: list[tuple[int, PlannedTask]] = []
            old: list[tuple[int, PlannedTask, TaskRow]] = []
            for position, task in entries:
                row = self._existing.get((step_id, task.name))
                if row is None:
                    new.append((position, task))
                else:
                    self._ids[position] = row.id
                    old.append((position, task, row))
            for batch in _batches(new):
                self._create(step_id, batch)
            self._go_on(old)

    def _create(self, step_id: int, batch: list[tuple[int, PlannedTask]]) -> None:
        specs: dict[bytes, int] = {}
        unique: list[TaskSpec] = []
        tasks: list[NewTask] = []
        for _, task in batch:
            number = specs.setdefault(msgspec.msgpack.encode(task.spec, order="deterministic"), len(unique))
            if number == len(unique):
                unique.append(task.spec)
            tasks.append(
                NewTask(
                    spec=number,
                    name=task.name,
                    key=f"workflow {self._id}: {task.name}",
                    step_id=step_id,
                    depends_on=tuple(self._ids[position] for position in task.depends_on),
                    after_any=tuple(self._ids[position] for position in task.after_any),
                    priority=task.priority,
                    retries=task.retries,
                    item=task.item or None,
                )
            )
        ids = self._api.call(TaskCreate(specs=unique, tasks=tasks), TasksCreated).ids
        for (position, _), number in zip(batch, ids, strict=True):
            self._ids[position] = number
            self._fresh.add(position)
        self.created += ids

    def _go_on(self, old: list[tuple[int, PlannedTask, TaskRow]]) -> None:
        """Make anew what failed, and what has other inputs than it had; leave the rest."""
        chosen = [entry for entry in old if self._may_differ(*entry)]
        self.kept += len(old) - len(chosen)
        rows = {position: row for position, _, row in chosen}
        for batch in _batches([(position, task) for position, task, _ in chosen], _MOST_REPEATED):
            piece = [(position, task, rows[position]) for position, task in batch]
            for is_last in (False, False, True):
                try:
                    self._repeat(piece)
                    break
                except ConflictError:  # one was given to a worker after it was looked at: look again
                    if is_last:
                        raise

    def _repeat(self, piece: list[tuple[int, PlannedTask, TaskRow]]) -> None:
        """Look at some tasks and make anew those that need it; ConflictError, and nothing done, when one has changed meanwhile."""
        contents = self._api.call(m.TaskContents(ids=[row.id for _, _, row in piece]), m.TasksContents).tasks
        again = [
            (position, self._again(task, found.id))
            for (position, task, _), found in zip(piece, contents, strict=True)
            if self._is_to_repeat(task, found)
        ]
        ids = self._api.call(m.WorkflowRepeat(tasks=[entry for _, entry in again]), m.TasksRepeated).ids if again else []
        for (position, _), number in zip(again, ids, strict=True):
            self._ids[position] = number
            self._fresh.add(position)
        self.retried += ids
        self.kept += len(piece) - len(again)
        self.busy += [found.id for (_, task, _), found in zip(piece, contents, strict=True) if _is_outdated(task, found)]

    def _may_differ(self, _: int, task: PlannedTask, row: TaskRow) -> bool:
        """Whether to look closer: it failed or has not started, gathers from several tasks, or waits for one that is fresh."""
        waits = (*task.depends_on, *task.after_any)
        return row.status in "FXWPIZ" or len(waits) > 1 or any(position in self._fresh for position in waits)

    def _is_to_repeat(self, task: PlannedTask, found: m.TaskContent) -> bool:
        if _is_with_a_worker(found):
            return False
        if found.status == "S":
            return _has_moved(task, found)
        waits = ({self._ids[place] for place in task.depends_on}, {self._ids[place] for place in task.after_any})
        return found.status in "FX" or task.spec != found.spec or waits != (set(found.depends_on), set(found.after_any))

    def _again(self, task: PlannedTask, number: int) -> m.Again:
        return m.Again(
            id=number,
            spec=task.spec,
            retries=task.retries,
            depends_on=[self._ids[position] for position in task.depends_on],
            after_any=[self._ids[position] for position in task.after_any],
        )

    def make_recruiters(self) -> int:
        """Those that are not there yet, by step and rank; how many."""
        if not self._plan.recruiters:
            return 0
        rows = self._api.call(f.RecruiterList(workflow_id=self._id), f.RecruiterRows).rows
        there = {(row.step_id, row.rank) for row in rows}
        wanted = [each for each in self._plan.recruiters if (self.steps[each.step], each.rank) not in there]
        for each in wanted:
            message = f.RecruiterCreate(
                step_id=self.steps[each.step],
                filter=each.filter,
                rank=each.rank,
                concurrency=each.concurrency,
                cpus_per_task=each.cpus_per_task,
                mem_per_task_gib=each.mem_per_task_gib,
                disk_per_task_gb=each.disk_per_task_gb,
                prefetch=each.prefetch or 0,
                prefetch_percent=each.prefetch_percent,
                rounds=each.rounds or 1.0,
                max_workers=each.max_workers,
                timeout_s=each.timeout_s or 0.0,
            )
            self._api.call(message, f.RecruiterRow)
        return len(wanted)
