"""Workers that fall silent, say goodbye, are evicted or deleted: what becomes of their tasks."""

from __future__ import annotations

from scitq.broker import outcomes
from scitq.broker.context import Ctx
from scitq.broker.store import tasks, workers
from scitq.model.lifecycle import TaskEvent, TaskStatus

_NOT_STARTED = {TaskStatus.ASSIGNED, TaskStatus.ACCEPTED, TaskStatus.DOWNLOADING, TaskStatus.ON_HOLD}


def lose_tasks(ctx: Ctx, worker_id: int, reason: str, *, is_eviction: bool = False) -> int:
    """All tasks of a worker are lost to it; how many. Not started ones go back to P, started ones fail."""
    held = tasks.of_worker(ctx.tx, worker_id)
    for task in held:
        outcomes.lose(ctx, task, reason, is_eviction=is_eviction)
    return len(held)


def take_back_offers(ctx: Ctx, worker_id: int, reason: str) -> None:
    """What a silent worker has not accepted goes back to the queue."""
    for task in tasks.of_worker(ctx.tx, worker_id):
        if task.status is TaskStatus.ASSIGNED:
            outcomes.advance(ctx, task, TaskEvent.WORKER_LOST, reason=reason)


def part(ctx: Ctx, worker_id: int) -> None:
    """The agent of a machine was stopped, and not by us: the provider knows whether the machine was taken away.

    What runs is lost when it has answered, or when it does not within the time for silent workers.
    """
    for task in tasks.of_worker(ctx.tx, worker_id):
        if task.status in _NOT_STARTED:
            outcomes.advance(ctx, task, TaskEvent.WORKER_LOST, reason="worker lost: its agent was stopped")
    go_offline(ctx, worker_id, "its agent was stopped")
    ctx.after(lambda: ctx.broker.parted.add(worker_id))


def go_offline(ctx: Ctx, worker_id: int, reason: str) -> None:
    """A worker is silent: show it offline, take back what it has not accepted. Its work goes on, as far as we know."""
    worker = workers.get(ctx.tx, worker_id)
    if worker is None or worker.status in {"offline", "deleting", "deleted", "failed", "installing"}:
        return
    workers.set_status(ctx.tx, worker_id, "offline", reason)
    workers.record(ctx.tx, worker_id, "offline", reason, ctx.now_ms)
    take_back_offers(ctx, worker_id, reason)
    disconnect(ctx, worker_id)


def disconnect(ctx: Ctx, worker_id: int) -> None:
    """Forget the agent's connection, so that nothing more is offered to it."""

    def effect() -> None:
        broker = ctx.broker
        session = broker.sessions.pop(worker_id, None)
        if session is not None:
            broker.peers.pop(session.peer, None)
            broker.silent_since[worker_id] = session.seen_s
        live = broker.fleet.workers.get(worker_id)
        if live is not None:
            live.is_ready = False
            broker.fleet.touch(live)

    ctx.after(effect)


def forget(ctx: Ctx, worker_id: int, reason: str, *, is_eviction: bool = False) -> None:
    """A worker is gone for good: its tasks are lost to it, and it is deleted."""
    lose_tasks(ctx, worker_id, reason, is_eviction=is_eviction)
    workers.set_status(ctx.tx, worker_id, "deleted", reason)
    workers.record(ctx.tx, worker_id, "deleted", reason, ctx.now_ms)
    disconnect(ctx, worker_id)

    def effect() -> None:
        ctx.broker.fleet.remove(worker_id)
        ctx.broker.silent_since.pop(worker_id, None)
        ctx.broker.stats.pop(worker_id, None)

    ctx.after(effect)


def watch(ctx: Ctx, now_s: float) -> None:
    """Once a second: who is silent for too long. Contract, section 0, item 8, and WKL-2."""
    broker = ctx.broker
    for worker_id, session in list(broker.sessions.items()):
        if now_s - session.seen_s > broker.offline_after_s:
            go_offline(ctx, worker_id, f"silent for {broker.offline_after_s:g} s")
    for worker_id, since_s in list(broker.silent_since.items()):
        if worker_id in broker.sessions:
            _hear_no_more(ctx, worker_id)
            continue
        if now_s - since_s > broker.offline_after_s:
            go_offline(ctx, worker_id, "silent since the server started")
        if now_s - since_s > broker.lost_after_s:
            if lose_tasks(ctx, worker_id, "worker lost"):
                workers.record(ctx.tx, worker_id, "lost", "its tasks were given up", ctx.now_ms)
            _hear_no_more(ctx, worker_id)


def _hear_no_more(ctx: Ctx, worker_id: int) -> None:
    def effect() -> None:
        ctx.broker.silent_since.pop(worker_id, None)

    ctx.after(effect)
