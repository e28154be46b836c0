"""Why a task is not running, in words."""

from __future__ import annotations

from scitq.broker.context import Reading
from scitq.broker.ready import NO_STEP
from scitq.broker.scheduler import LiveWorker
from scitq.broker.store import dependencies, steps, task_reads, tasks, workers
from scitq.broker.store.tasks import Task
from scitq.errors import NotFoundError
from scitq.model import lifecycle, needs
from scitq.model.lifecycle import FINAL, TaskStatus
from scitq.protocol.messages.task import TaskExplained
from scitq.util.units import counted, figure


def explain(reading: Reading, task_id: int) -> TaskExplained:
    """The reasons, weightiest first. Reads the broker's memory from another thread: figures may be a moment old."""
    task = tasks.get(reading.db, task_id)
    shown = task_reads.row(reading.db, task_id)
    if task is None or shown is None:
        raise NotFoundError(f"there is no task {task_id}")
    reasons = _reasons(reading, task)
    if shown.reason and not any(reason.startswith(shown.reason) for reason in reasons):
        reasons.append(shown.reason)
    if task.successor_id is not None:
        reasons.append(f"it was retried as task {task.successor_id}")
    return TaskExplained(id=task_id, status=task.status.value, reasons=reasons)


def _reasons(reading: Reading, task: Task) -> list[str]:
    match task.status:
        case TaskStatus.WAITING:
            return _waiting(reading, task)
        case TaskStatus.PENDING:
            return _pending(reading, task)
        case TaskStatus.INACTIVE:
            return [f"its workflow {task.workflow_id} is not finalized: scitq workflow finalize --id {task.workflow_id}"]
        case TaskStatus.SUSPENDED:
            return [f"it is held back: scitq task resume --id {task.id}"]
        case TaskStatus.ASSIGNED:
            return [f"worker {task.worker_id} was offered it and has not answered yet"]
        case TaskStatus.ON_HOLD:
            return [f"it is ready on worker {task.worker_id}, whose slots are taken"]
        case _ if task.status in FINAL:
            return [f"it {'was' if task.status is TaskStatus.CANCELED else 'has'} {lifecycle.NAMES[task.status]}"]
        case _:
            return [f"it is {lifecycle.NAMES[task.status]} on worker {task.worker_id}"]


def _waiting(reading: Reading, task: Task) -> list[str]:
    reasons: list[str] = []
    for on_id, kind, is_met in dependencies.of_task(reading.db, task.id)[:20]:
        on = tasks.get(reading.db, on_id)
        if is_met or on is None:
            continue
        name = lifecycle.NAMES[on.status]
        if kind == "success" and on.status in {TaskStatus.FAILED, TaskStatus.CANCELED}:
            reasons.insert(0, f"waits for task {on_id}, which {name}: scitq task retry --id {on_id}")
        else:
            reasons.append(f"waits for task {on_id}, which is {name}")
    return reasons


def _pending(reading: Reading, task: Task) -> list[str]:
    broker, group = reading.broker, task.step_id or NO_STEP
    step = steps.get(reading.db, task.step_id) if task.step_id else None
    where = f"of step {task.step_id}" if step else "without a step"
    if step and step.is_paused:
        return [f"step {step.id} is paused: scitq step resume --id {step.id}"]
    if broker.is_draining:
        return ["the server is draining and gives no tasks"]
    crew = [live for live in list(broker.fleet.workers.values()) if live.group == group]
    if not crew:
        others = len(broker.fleet.workers)
        hint = f" ({counted(others, 'worker')} of other steps)" if others else ""
        known = [worker for worker in workers.listed(reading.db) if (worker.step_id or NO_STEP) == group and worker.status == "installing"]
        if known:
            return [f"{counted(len(known), 'worker')} {where} {'is' if len(known) == 1 else 'are'} being installed"]
        return [f"no worker {where}{hint}: start one with scitq agent{f' --step {task.step_id}' if step else ''}"]
    ready = [live for live in crew if live.is_ready]
    if not ready:
        rows = workers.listed(reading.db)
        states = [f"{row.name} is {row.status}" for row in rows if row.id in {live.id for live in crew}]
        return [f"no worker {where} is ready: {'; '.join(states[:5])}{'; …' if len(states) > 5 else ''}"]
    asked = broker.ready.needs_of(task.id) or needs.of_spec(tasks.spec(reading.db, task.spec_id))
    refusals = [(live, live.refuses(asked, reading.now_s)) for live in ready[:500]]
    if all(refusal for _, refusal in refusals):
        return [_too_small(refusals, asked, where)]
    if asked.array_id and not broker.array_has_room(asked):
        return [f"its array runs at most {counted(broker.array_most[asked.array_id], 'task')} at once, and so many are running"]
    free = [live for live, refusal in refusals if not refusal and live.slots > 0]
    short = [f"{live.name} has too little free for {missing}" for live in free if (missing := live.free.misses(asked))]
    if short and len(short) == len(free):
        return [f"waits until other tasks leave room: {'; '.join(short[:5])}{'; …' if len(short) > 5 else ''}"]
    ahead = broker.ready.position(task.id)
    crew_told = f"the worker {where}" if len(ready) == 1 else f"the {len(ready)} workers {where}"
    return [f"all slots of {crew_told} are taken, {ahead} ahead of it"]


def _too_small(refusals: list[tuple[LiveWorker, str]], asked: needs.Needs, where: str) -> str:
    biggest = max(live.total.mem_gib for live, _ in refusals)
    if asked.mem_gib > biggest:
        return f"needs {figure(asked.mem_gib)} GiB of memory and the biggest worker {where} has {figure(biggest)}"
    most = max(live.total.cpus for live, _ in refusals)
    if asked.cpus > most:
        return f"needs {figure(asked.cpus)} cpus and the biggest worker {where} has {figure(most)}"
    return f"fits no worker {where}: " + "; ".join(f"{live.name} {refusal}" for live, refusal in refusals[:5])
