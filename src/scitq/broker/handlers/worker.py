"""Workers as people see and steer them."""

from __future__ import annotations

import math
import secrets
from typing import Any

from scitq.broker import checks, departures, jobs, setbacks
from scitq.broker.context import Ctx, Park, Reading
from scitq.broker.dispatch import handles, reads
from scitq.broker.ready import NO_STEP
from scitq.broker.store import steps, users, workers
from scitq.broker.store.workers import Worker
from scitq.errors import ConflictError, NotFoundError, ScitqError, TimedOutError, UsageError
from scitq.protocol.messages import worker as m
from scitq.protocol.messages.agent import Order
from scitq.protocol.registry import Done
from scitq.util.clock import monotonic_s


def _row(reading: Reading, worker: Worker, names: dict[int, str]) -> m.WorkerRow:
    live = reading.broker.fleet.workers.get(worker.id)
    session = reading.broker.sessions.get(worker.id)
    seen_ms = worker.seen_ms
    if session is not None:
        seen_ms = round(reading.now_ms - (reading.now_s - session.seen_s) * 1000)
    ends_ms = worker.ends_ms
    if live is not None and session is not None:
        ends_ms = None if math.isinf(live.ends_s) else round(reading.now_ms + (live.ends_s - reading.now_s) * 1000)
    held = dict(live.held) if live else {}
    return m.WorkerRow(
        id=worker.id, name=worker.name, status=worker.status, concurrency=worker.concurrency, prefetch=worker.prefetch,
        addresses=worker.addresses, flavor=worker.flavor, provider=worker.provider, region=worker.region, step_id=worker.step_id,
        host=worker.host, hardware=worker.hardware, runtimes=worker.runtimes, allows_bare=worker.allows_bare,
        is_permanent=worker.is_permanent, scope=worker.scope, owner=names.get(worker.owner_id or 0, ""), reason=worker.reason,
        version=worker.version, created_ms=worker.created_ms, seen_ms=seen_ms, ends_ms=ends_ms, machine=worker.machine or "",
        running=sum(1 for place in held.values() if place.is_reserved and not place.is_shipping), held=len(held),
    )  # fmt: skip


@reads(m.WorkerList)
def list_workers(reading: Reading, message: m.WorkerList) -> m.WorkerRows:
    """Workers by id; those asked for by id in the order asked."""
    names = users.names(reading.db)
    if message.ids is not None:
        found = []
        for worker_id in message.ids:
            worker = workers.get(reading.db, worker_id)
            if worker is None:
                raise NotFoundError(f"there is no worker {worker_id}")
            found.append(worker)
    else:
        found = workers.listed(reading.db, show_deleted=message.show_deleted)
    return m.WorkerRows(
        rows=[_row(reading, worker, names) for worker in found if message.step_id is None or worker.step_id == message.step_id]
    )


@reads(m.WorkerStats)
def stats(reading: Reading, message: m.WorkerStats) -> m.WorkerStatsRows:
    """Latest figures, in the order asked for."""
    ids = message.ids or [worker.id for worker in workers.listed(reading.db)]
    rows = []
    for worker_id in ids:
        worker = workers.get(reading.db, worker_id)
        if worker is None:
            raise NotFoundError(f"there is no worker {worker_id}")
        figures, at_s = reading.broker.stats.get(worker_id, (None, 0.0))
        age_ms = None if figures is None else round((reading.now_s - at_s) * 1000)
        rows.append(m.WorkerStatsRow(id=worker.id, name=worker.name, status=worker.status, stats=figures, age_ms=age_ms))
    return m.WorkerStatsRows(rows=rows)


@reads(m.WorkerEvents)
def events(reading: Reading, message: m.WorkerEvents) -> m.WorkerEventRows:
    """What happened, newest first."""
    return m.WorkerEventRows(rows=workers.events(reading.db, message.id, message.limit))


def own_step(ctx: Ctx, step_id: int) -> None:
    """The step exists, and the caller may have workers serve it: a worker is given all that its tasks name."""
    step = steps.get(ctx.tx, step_id)
    if step is None:
        raise NotFoundError(f"there is no step {step_id}")
    ctx.must_own(steps.workflow(ctx.tx, step.workflow_id).owner_id, f"step {step_id}")


def must_steer(ctx: Ctx, worker_id: int) -> Worker:
    """The worker, which the caller may change: its owner, the owner of its step's workflow, or an administrator."""
    worker = workers.get(ctx.tx, worker_id)
    if worker is None or worker.status == "deleted":
        raise NotFoundError(f"there is no worker {worker_id}")
    step = steps.get(ctx.tx, worker.step_id) if worker.step_id and worker.recruiter_id else None
    owners = {worker.owner_id, steps.workflow(ctx.tx, step.workflow_id).owner_id if step else None} - {None}
    if ctx.who.user_id not in owners:
        ctx.must_own(None, f"worker {worker_id}")
    return worker


@handles(m.WorkerUpdate)
def update(ctx: Ctx, message: m.WorkerUpdate) -> Done:
    """Change workers while they work."""
    checks.check_slots(message.concurrency, message.prefetch)
    changes: dict[str, Any] = {
        name: value for name, value in (("concurrency", message.concurrency), ("prefetch", message.prefetch)) if value is not None
    }
    if message.step_id is not None:
        if message.step_id:
            own_step(ctx, message.step_id)
        changes["step_id"] = message.step_id or None
    if message.is_permanent is not None:
        changes["is_permanent"] = int(message.is_permanent)
    if message.scope is not None:
        if message.scope not in {"W", "G", "N"}:
            raise UsageError("the scope is W (its workflow), G (all) or N (nobody)")
        changes["scope"] = message.scope
    if message.name is not None:
        checks.check_name(message.name, "worker")
        changes["name"] = message.name
    if not changes:
        raise UsageError("nothing to change was named")
    for worker_id in message.ids:
        must_steer(ctx, worker_id)
        workers.update(ctx.tx, worker_id, changes)
        workers.record(ctx.tx, worker_id, "updated", ", ".join(f"{name} {value}" for name, value in changes.items()), ctx.now_ms)
        apply_settings(ctx, worker_id)
    return Done()


def apply_settings(ctx: Ctx, worker_id: int) -> None:
    """Bring the stored concurrency, prefetch, step and state of a worker before the scheduler and the agent."""
    worker = workers.get(ctx.tx, worker_id)
    if worker is None:
        return
    value = {"concurrency": worker.concurrency, "prefetch": worker.prefetch}
    ctx.push_order(worker_id, Order(kind="settings", value=value))

    def effect() -> None:
        live = ctx.broker.fleet.workers.get(worker_id)
        if live is not None:
            live.concurrency, live.prefetch, live.name = worker.concurrency, worker.prefetch, worker.name
            live.group = worker.step_id or NO_STEP
            live.is_ready = worker.status == "ready" and worker_id in ctx.broker.sessions
            ctx.broker.fleet.touch(live)

    ctx.after(effect)


@handles(m.WorkerAct)
def act(ctx: Ctx, message: m.WorkerAct) -> Done:
    """Drain, resume or delete workers."""
    for worker_id in message.ids:
        known = workers.get(ctx.tx, worker_id)
        if message.action == "delete" and known is not None and known.status == "deleted":
            continue  # said again (contract DEL-3)
        worker = must_steer(ctx, worker_id)
        match message.action:
            case "drain":
                workers.set_wanted(ctx.tx, worker_id, "draining", f"by {ctx.who.name}")
            case "resume":
                workers.update(ctx.tx, worker_id, {"failures": 0})
                workers.set_wanted(ctx.tx, worker_id, "ready")
                _forgive(ctx, worker_id)
            case "delete":
                delete(ctx, worker)
                continue
            case _:
                raise UsageError("the action is one of drain, resume, delete")
        workers.record(ctx.tx, worker_id, message.action, f"by {ctx.who.name}", ctx.now_ms)
        apply_settings(ctx, worker_id)
    return Done()


def _forgive(ctx: Ctx, worker_id: int) -> None:
    def effect() -> None:
        live = ctx.broker.fleet.workers.get(worker_id)
        if live is not None:
            live.failures, live.declines, live.not_before_s = 0, 0, 0.0

    ctx.after(effect)


def delete(ctx: Ctx, worker: Worker) -> None:
    """Interrupt its tasks; tell a hand-started agent to end, or order the provider to delete its machine."""
    reason = f"deleted by {ctx.who.name}"
    if worker.machine:
        setbacks.order_away(ctx, worker, reason)
        jobs.run_due(ctx)
        return
    departures.lose_tasks(ctx, worker.id, f"worker {reason}")
    ctx.push_order(worker.id, Order(kind="quit", reason=reason))
    workers.record(ctx.tx, worker.id, "delete", f"by {ctx.who.name}", ctx.now_ms)
    departures.forget(ctx, worker.id, reason)


@handles(m.WorkerAsk)
def ask(ctx: Ctx, message: m.WorkerAsk) -> m.WorkerAnswer | Park:
    """Have an agent answer; parked until it does."""
    if message.order not in {"cache_list", "cache_clear", "check"}:
        raise UsageError("an agent is asked for cache_list, cache_clear or check")
    worker = workers.get(ctx.tx, message.id)
    if worker is None:
        raise NotFoundError(f"there is no worker {message.id}")
    if message.order == "cache_clear":
        must_steer(ctx, message.id)
    order_id = ctx.parked_key
    if order_id and order_id in ctx.broker.answers:
        found = ctx.broker.answers[order_id]
        if found is None and monotonic_s() < ctx.until_s:
            return Park(frozenset({f"answer:{order_id}"}), ctx.until_s, key=order_id)
        ctx.broker.answers.pop(order_id)
        if found is None:
            raise TimedOutError(f"worker {message.id} did not answer in time")
        if found.error:
            raise ScitqError(f"worker {message.id}: {found.error}")
        return m.WorkerAnswer(result=found.result)
    if message.id not in ctx.broker.sessions:
        raise ConflictError(f"worker {message.id} is not connected")
    order_id = secrets.token_hex(8)
    ctx.broker.answers[order_id] = None
    ctx.push_order(message.id, Order(kind=message.order, order_id=order_id, value=message.value))
    return Park(frozenset({f"answer:{order_id}"}), monotonic_s() + min(message.at_most_s, 60.0), key=order_id)
