"""Machines that fail to come, go by themselves, or are gone: what becomes of their workers, flavors and recruiters."""

from __future__ import annotations

from scitq.broker import departures
from scitq.broker.context import Ctx
from scitq.broker.providers.base import Machine, MachineState
from scitq.broker.recruit_backoff import after_failure
from scitq.broker.store import flavors, jobs, machines, recruiters, workers
from scitq.broker.store.machines import StoredMachine
from scitq.broker.store.workers import Worker
from scitq.errors import ScitqError
from scitq.protocol.messages.agent import Order


def deployment_failed(ctx: Ctx, machine: StoredMachine, error: ScitqError) -> None:
    """A machine could not be made, or never reported: its worker has failed, its flavor and recruiter have a setback.

    What the provider may have made all the same is deleted.
    """
    worker = workers.get(ctx.tx, machine.worker_id)
    discard(ctx, machine)
    if worker is None or worker.status in {"deleting", "deleted"}:
        return
    workers.set_status(ctx.tx, worker.id, "failed", error.message)
    workers.record(ctx.tx, worker.id, "failed", error.message, ctx.now_ms)
    failures = flavors.note_failure(ctx.tx, machine.flavor.key)
    setback = after_failure(error.code, failures, ctx.now_ms)
    if setback.aside_until_ms is not None:
        flavors.set_aside(ctx.tx, machine.flavor.key, setback.aside_until_ms, error.message)
    if worker.recruiter_id is not None:
        recruiters.update(ctx.tx, worker.recruiter_id, {"next_try_ms": setback.next_try_ms, "last_error": error.message})


def note_wait(ctx: Ctx, worker_id: int, shown: Machine) -> None:
    """What a machine waits for at its provider is why its worker is still installing."""
    worker = workers.get(ctx.tx, worker_id)
    words = shown.message if shown.state is MachineState.QUEUED else ""
    if worker is not None and worker.status == "installing" and worker.reason != words:
        workers.set_status(ctx.tx, worker_id, "installing", words)


def discard(ctx: Ctx, machine: StoredMachine) -> None:
    """The server no longer wants the machine: whatever there is of it is deleted, as often as it takes."""
    machines.set_wanted(ctx.tx, machine.name, is_wanted=False)
    jobs.drop_queued(ctx.tx, machine.name, "create", ctx.now_ms)
    if not machine.is_deleted and not any(job.kind == "delete" for job in jobs.open_of(ctx.tx, machine.name)):
        jobs.insert(ctx.tx, "delete", machine.provider, machine.name, machine.worker_id, ctx.now_ms)


def machine_is_gone(ctx: Ctx, worker_id: int) -> None:
    """The provider has confirmed the end of a worker's machine."""
    worker = workers.get(ctx.tx, worker_id)
    if worker is not None and worker.status == "deleting":
        departures.forget(ctx, worker_id, worker.reason)


def order_away(ctx: Ctx, worker: Worker, reason: str) -> None:
    """Delete a worker whose machine the server had made: tasks lost, agent told, provider ordered."""
    if worker.status in {"deleting", "deleted"}:
        return
    machine = machines.get(ctx.tx, worker.machine or "")
    departures.lose_tasks(ctx, worker.id, f"worker deleted: {reason}")
    ctx.push_order(worker.id, Order(kind="quit", reason=reason))
    workers.record(ctx.tx, worker.id, "delete", reason, ctx.now_ms)
    if machine is None or machine.is_deleted:
        departures.forget(ctx, worker.id, reason)
        return
    workers.set_status(ctx.tx, worker.id, "deleting", reason)
    departures.disconnect(ctx, worker.id)
    discard(ctx, machine)


def machine_vanished(ctx: Ctx, machine: StoredMachine, words: str, *, is_evicted: bool) -> None:
    """The provider no longer has a machine that the server wanted, and its agent is silent."""
    worker = workers.get(ctx.tx, machine.worker_id)
    if worker is None or worker.status in {"deleting", "deleted", "failed"}:
        discard(ctx, machine)
        return
    if worker.status == "installing" and not is_evicted:
        deployment_failed(ctx, machine, ScitqError(f"{machine.provider}: the machine ended before its agent reported" + words))
        return
    reason = ("evicted" if is_evicted else "its machine is gone") + words
    workers.record(ctx.tx, worker.id, "evicted" if is_evicted else "gone", reason, ctx.now_ms)
    departures.forget(ctx, worker.id, f"worker lost: {reason}", is_eviction=is_evicted)
    discard(ctx, machine)
