"""What agents say: registration, reports, goodbye."""

from __future__ import annotations

import logging
from itertools import groupby

import msgspec

from scitq import __version__
from scitq.broker import checks, departures, outcomes
from scitq.broker.context import Ctx
from scitq.broker.dispatch import handles
from scitq.broker.ready import NO_STEP
from scitq.broker.scheduler import LiveWorker
from scitq.broker.state import Session, capacity, live_worker
from scitq.broker.store import steps, tasks, workers
from scitq.broker.store.tasks import Task
from scitq.errors import ConflictError, NotFoundError, NotLoggedInError, UsageError
from scitq.model import lifecycle
from scitq.model.lifecycle import TaskEvent, TaskStatus
from scitq.protocol.messages import agent as m
from scitq.protocol.registry import Done
from scitq.util.clock import monotonic_s
from scitq.util.units import counted, parse_bytes, parse_duration_s

logger = logging.getLogger(__name__)

_EVENTS = {event.value: event for event in TaskEvent}
_FROM_AGENT = {"accept", "decline", "fetch", "fetched", "start", "skip", "fail", "freeze", "resume_running", "exited_well", "exited_badly",
               "ended_well", "ended_badly", "uploaded", "upload_failed"}  # fmt: skip
_RESEND_S = 3.0
_MOST_MISSING = 2
_DECLINE_PAUSE_S = 30.0
_LONGEST_S = 1000 * 365 * 86400.0


@handles(m.AgentRegister)
def register(ctx: Ctx, message: m.AgentRegister) -> m.Registered:
    """Find or make the worker, agree on what it holds, and tell it what it needs."""
    checks.check_slots(message.concurrency, message.prefetch)
    known = workers.by_machine(ctx.tx, message.machine) if message.machine else None
    known = known or workers.by_uid(ctx.tx, message.uid)
    if known and (known.status in {"deleting", "deleted"} or (known.status == "failed" and known.machine)):
        if message.machine or not message.is_first:
            raise ConflictError(f"worker {known.id} was deleted; this agent must end")
        workers.update(ctx.tx, known.id, {"uid": None})
        known = None
    left_s = _seconds_left(message.seconds_left)
    ends_ms = None if left_s is None else ctx.now_ms + round(left_s * 1000)
    step_id = _step(ctx, message.step)
    worker_id = workers.register(ctx.tx, known.id if known else None, message, ends_ms=ends_ms, step_id=step_id, now_ms=ctx.now_ms)
    worker = workers.get(ctx.tx, worker_id)
    assert worker is not None
    if known is None or known.status in {"installing", "offline", "failed"}:
        workers.record(ctx.tx, worker_id, "ready", f"on {message.host}, {message.hardware.cpus:g} cpus", ctx.now_ms)
    unwanted = _reconcile(ctx, worker_id, message.held)
    now_s = monotonic_s()

    def effect() -> None:
        broker = ctx.broker
        live = broker.fleet.workers.get(worker_id)
        if live is None:
            live = live_worker(worker, message.hardware)
            broker.fleet.add(live)
        _refresh(live, message, worker, now_s)
        old = broker.sessions.get(worker_id)
        if old is not None:
            broker.peers.pop(old.peer, None)
        broker.sessions[worker_id] = Session(ctx.peer, now_s)
        broker.peers[ctx.peer] = worker_id
        broker.silent_since.pop(worker_id, None)
        broker.fleet.touch(live)

    ctx.after(effect)
    ctx.notify("worker")
    config = ctx.broker.config
    return m.Registered(
        worker_id=worker_id, concurrency=worker.concurrency, prefetch=worker.prefetch, heartbeat_s=ctx.broker.heartbeat_s,
        storages={name: {key: _text(value) for key, value in entry.items()} for name, entry in config.rclone.items()},
        registries={host: {"username": entry.username, "password": entry.password} for host, entry in config.registries.items()},
        settings=_settings(ctx), unwanted=unwanted, server_version=__version__,
    )  # fmt: skip


def _step(ctx: Ctx, text: str) -> int | None:
    """The step that an agent was started for, by id or by a name that only one step has."""
    if not text or text == "0":
        return None
    is_id = text.isascii() and text.isdigit() and len(text) < 19
    found = [int(text)] if is_id and steps.get(ctx.tx, int(text)) else steps.named(ctx.tx, text)
    if not found:
        raise NotFoundError(f"there is no step {text}")
    if len(found) > 1:
        raise UsageError(f"{len(found)} steps are named {text}: {', '.join(map(str, found[:10]))}; give the id")
    return found[0]


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _settings(ctx: Ctx) -> dict[str, object]:
    rules = ctx.broker.config.worker
    plain = {name: getattr(rules, name) for name in rules.__struct_fields__}
    return plain | {
        "cache_bytes": parse_bytes(rules.cache_size) if rules.cache_size else 0,
        "min_free_bytes": parse_bytes(rules.min_free_disk),
        "keep_failed_uploads_s": parse_duration_s(rules.keep_failed_uploads),
        "max_extract_bytes": parse_bytes(rules.max_extract_size),
        "max_task_log_bytes": ctx.broker.most_log_bytes,
    }


def _refresh(live: LiveWorker, message: m.AgentRegister, worker: workers.Worker, now_s: float) -> None:
    used = live.total.cpus - live.free.cpus, live.total.mem_gib - live.free.mem_gib
    total = capacity(message.hardware)
    live.free = total
    live.total = total
    if any(used):
        for place in live.held.values():
            if place.is_reserved and not place.is_shipping:
                live.free = live.free.less(place.needs)
    live.group = worker.step_id or NO_STEP
    live.concurrency, live.prefetch = worker.concurrency, worker.prefetch
    live.has_runtime = any(runtime != "bare" for runtime in message.runtimes)
    live.allows_bare = message.allows_bare
    live.is_ready = worker.status == "ready"
    live.ends_s = float("inf") if message.seconds_left is None else now_s + message.seconds_left


def _reconcile(ctx: Ctx, worker_id: int, held: list[m.Held]) -> list[tuple[int, int]]:
    """Agree with an agent that came (back): what it holds and may go on with, what it has lost, what it must forget."""
    said = {(entry.task_id, entry.attempt) for entry in held}
    wanted: set[tuple[int, int]] = set()
    for task in tasks.of_worker(ctx.tx, worker_id):
        if (task.id, task.attempt) in said:
            wanted.add((task.id, task.attempt))
            if task.wish:
                ctx.push_order(worker_id, ctx.broker.order(task.wish, task.id, task.attempt))
        elif task.status is TaskStatus.ASSIGNED:
            outcomes.advance(ctx, task, TaskEvent.DECLINE, reason="the agent was started anew")
        else:
            outcomes.lose(ctx, task, "worker lost: the agent was started anew without it")
    for task_id, attempt in said - wanted:
        found = tasks.get(ctx.tx, task_id)
        if found is None or found.successor_id is not None:  # the files of an upload that failed are needed no more either
            ctx.push_order(worker_id, ctx.broker.order("forget", task_id, attempt))
    return sorted(said - wanted)


@handles(m.AgentReport)
def report(ctx: Ctx, message: m.AgentReport) -> m.Reported:
    """Store logs, then apply events; tell the agent which attempts are no longer its own."""
    worker_id = ctx.broker.peers.get(ctx.peer)
    if worker_id is None:
        raise NotLoggedInError("register first")
    left_s = _seconds_left(message.seconds_left)
    session = ctx.broker.sessions[worker_id]
    session.seen_s = monotonic_s()
    if message.stats is not None:
        ctx.broker.stats[worker_id] = (message.stats, session.seen_s)
    stale: list[tuple[int, int]] = []
    offsets: list[tuple[int, int, int]] = []
    if message.seq > session.seq:
        offsets = [_log(ctx, chunk, worker_id) for chunk in message.logs]
        for (task_id, attempt), events in groupby(message.events, key=lambda event: (event.task_id, event.attempt)):
            if not _apply(ctx, worker_id, task_id, attempt, list(events)):
                stale.append((task_id, attempt))
        seq = message.seq
        ctx.after(lambda: setattr(session, "seq", seq))
    else:
        for chunk in message.logs:
            offsets.append(_log(ctx, chunk, worker_id))
    _note_progress(ctx, worker_id, message)
    if message.held is not None:
        stale.extend(_compare(ctx, worker_id, session, message.held))
    if left_s is not None:
        _set_end(ctx, worker_id, session.seen_s + left_s)
    return m.Reported(seq=message.seq, stale=stale, log_offsets=offsets)


def _note_progress(ctx: Ctx, worker_id: int, message: m.AgentReport) -> None:
    """Of transfers: what was told of an earlier status of an attempt ends with the event, which is older than what comes with it."""
    for event in message.events:
        ctx.broker.progress.pop(event.task_id, None)
    live = ctx.broker.fleet.workers.get(worker_id)
    held = live.held if live is not None else {}
    for task_id, attempt, done, to_do in message.progress:
        if task_id in held and held[task_id].attempt == attempt:
            ctx.broker.progress[task_id] = {"bytes_done": done, "bytes_to_do": to_do}


def _seconds_left(told: float | None) -> float | None:
    """How long an allocation lasts yet; UsageError for what can't be."""
    if told is not None and not abs(told) <= _LONGEST_S:
        raise UsageError(f"seconds_left is {told}; an allocation ends within a thousand years")
    return told


def _set_end(ctx: Ctx, worker_id: int, ends_s: float) -> None:
    live = ctx.broker.fleet.workers.get(worker_id)
    if live is not None:
        live.ends_s = ends_s


def _log(ctx: Ctx, chunk: m.LogChunk, worker_id: int) -> tuple[int, int, int]:
    task = tasks.get(ctx.tx, chunk.task_id)
    end = chunk.offset + len(chunk.data)
    if task is None or task.attempt != chunk.attempt or (task.worker_id is not None and task.worker_id != worker_id):
        return chunk.task_id, chunk.attempt, end
    stored = ctx.broker.logs.append(ctx.tx, chunk.task_id, chunk.attempt, chunk.offset, chunk.data)
    ctx.notify(f"log:{chunk.task_id}")
    return chunk.task_id, chunk.attempt, stored


def _apply(ctx: Ctx, worker_id: int, task_id: int, attempt: int, events: list[m.AttemptEvent]) -> bool:
    """Whether the attempt still belonged to this worker. What the table does not allow (said twice) is let be."""
    task = tasks.get(ctx.tx, task_id)
    if task is None or task.attempt != attempt or task.worker_id != worker_id or not task.is_on_worker:
        return False
    steps: list[tuple[TaskEvent, int]] = []
    taken: list[m.AttemptEvent] = []
    status = task.status
    for event in events:
        kind = _EVENTS.get(event.event)
        if kind is None or event.event not in _FROM_AGENT or (status, kind) not in lifecycle.TABLE:
            logger.debug("task %d: event %s does not fit status %s", task_id, event.event, status)
            continue
        status = lifecycle.after(status, kind)
        steps.append((kind, ctx.now_ms - max(0, event.age_ms)))
        taken.append(event)
    if not taken:
        return True
    taken.reverse()
    reason = next((event.reason for event in taken if event.reason), "")
    cause = next((event.cause for event in taken if event.cause), "")
    exit_status = next((event.exit_status for event in taken if event.exit_status is not None), None)
    use = next((event.use for event in taken if event.use is not None), None)
    changed = tasks.advance(
        ctx.tx, task, steps, ctx.now_ms, worker_id=worker_id, reason=reason, cause=cause, exit_status=exit_status, use=use
    )
    outcomes.settle(ctx, task, changed)
    _note_place(ctx, worker_id, changed)
    if changed.status is TaskStatus.PENDING:
        _declined(ctx, worker_id, reason)
    elif changed.status in lifecycle.FINAL:
        _judge(ctx, worker_id, changed, is_own_fault=any(event.is_own_fault for event in taken), reason=reason)
    return True


def _note_place(ctx: Ctx, worker_id: int, task: Task) -> None:
    is_shipping = task.status in {TaskStatus.UPLOADING, TaskStatus.UPLOADING_FAILED}
    if not is_shipping and task.status is not TaskStatus.RUNNING:
        return

    def effect() -> None:
        live = ctx.broker.fleet.workers.get(worker_id)
        if live is not None:
            live.move(task.id, is_shipping=is_shipping)
            ctx.broker.fleet.touch(live)

    ctx.after(effect)


def _declined(ctx: Ctx, worker_id: int, reason: str) -> None:
    """A worker that declines is left alone for a while, longer each time, so that nothing goes round in circles."""

    def effect() -> None:
        live = ctx.broker.fleet.workers.get(worker_id)
        if live is not None:
            live.declines += 1
            live.not_before_s = monotonic_s() + min(_DECLINE_PAUSE_S, 0.5 * 2**live.declines)
            ctx.broker.fleet.touch(live)

    ctx.after(effect)
    workers.record(ctx.tx, worker_id, "declined", reason, ctx.now_ms)


def _judge(ctx: Ctx, worker_id: int, task: Task, *, is_own_fault: bool, reason: str) -> None:
    """Count failures in a row that are the worker's own fault; too many set it aside."""
    live = ctx.broker.fleet.workers.get(worker_id)
    if live is not None:
        live.declines = 0
    most = ctx.broker.config.worker.max_failures
    if task.status is TaskStatus.SUCCEEDED:
        if live is not None and live.failures:
            live.failures = 0
            workers.update(ctx.tx, worker_id, {"failures": 0})
    elif is_own_fault and live is not None:
        live.failures += 1
        workers.update(ctx.tx, worker_id, {"failures": live.failures})
        if most and live.failures >= most and live.is_ready:
            why = f"{counted(live.failures, 'task')} in a row failed by its own fault, the last: {reason}"
            workers.set_wanted(ctx.tx, worker_id, "paused", why)
            workers.record(ctx.tx, worker_id, "paused", why, ctx.now_ms)
            live.is_ready = False
            ctx.broker.fleet.touch(live)


def _compare(ctx: Ctx, worker_id: int, session: Session, held: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Compare a heartbeat's list with ours: offers that never arrived go again, what the agent lost is lost."""
    live = ctx.broker.fleet.workers.get(worker_id)
    if live is None:
        return []
    said = dict(held)
    stale = []
    for task_id, attempt in held:
        place = live.held.get(task_id)
        task = tasks.get(ctx.tx, task_id) if place is None or place.attempt != attempt else None
        if task is not None and not (task.attempt == attempt and task.worker_id == worker_id and task.is_on_worker):
            stale.append((task_id, attempt))
    now_s = session.seen_s
    for task_id, place in list(live.held.items()):
        if said.get(task_id) == place.attempt:
            session.missing.pop(task_id, None)
            task = tasks.get(ctx.tx, task_id)
            if task is not None and task.wish:
                ctx.push_order(worker_id, ctx.broker.order(task.wish, task_id, task.attempt))
        elif now_s - place.assigned_s > _RESEND_S:
            _missing(ctx, worker_id, session, task_id)
    return stale


def _missing(ctx: Ctx, worker_id: int, session: Session, task_id: int) -> None:
    task = tasks.get(ctx.tx, task_id)
    if task is None or not task.is_on_worker or task.worker_id != worker_id:
        ctx.after(lambda: ctx.broker.release(worker_id, task_id))
        return
    if task.status is TaskStatus.ASSIGNED:
        ctx.push(worker_id, m.AgentOffer(tasks=[assignment(ctx, task.id)]))
        return
    session.missing[task_id] = session.missing.get(task_id, 0) + 1
    if session.missing[task_id] > _MOST_MISSING:
        session.missing.pop(task_id)
        outcomes.lose(ctx, task, "worker lost: the agent does not have the task any more")


def assignment(ctx: Ctx, task_id: int) -> m.Assignment:
    """A task as it is offered."""
    row = tasks.for_offer(ctx.tx, task_id)
    return m.Assignment(
        task_id=row.id, attempt=row.attempt, spec=row.spec, name=row.name, array_index=row.array_index, item=row.item, priority=row.priority
    )


@handles(m.AgentGoodbye)
def goodbye(ctx: Ctx, message: m.AgentGoodbye) -> Done:
    """The agent ends. What it has is lost to it; a hand-started one stays in the list, offline, until it comes back or is deleted."""
    worker_id = ctx.broker.peers.get(ctx.peer)
    if worker_id is None:
        return Done()
    worker = workers.get(ctx.tx, worker_id)
    if worker is not None and worker.machine and worker.status != "deleting" and message.reason == "stopped":
        departures.part(ctx, worker_id)
        return Done()
    reason = "worker lost: its agent ended" + (f" ({message.reason})" if message.reason else "")
    if worker is not None and worker.status == "deleting" and not worker.machine:
        departures.forget(ctx, worker_id, "deleted")
        return Done()
    departures.lose_tasks(ctx, worker_id, reason, is_eviction=message.reason == "walltime")
    departures.go_offline(ctx, worker_id, f"its agent ended {message.reason}".strip())
    return Done()


@handles(m.AgentAnswer)
def answer(ctx: Ctx, message: m.AgentAnswer) -> Done:
    """Keep the answer for the request that asked."""
    if message.order_id in ctx.broker.answers:
        plain = msgspec.structs.replace(message)

        def effect() -> None:
            ctx.broker.answers[message.order_id] = plain

        ctx.after(effect)
        ctx.notify(f"answer:{message.order_id}")
    return Done()
