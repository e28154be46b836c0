"""Slow provider calls: stored, committed, run in threads, and their ends brought back to the loop (docs/fleet.md, "Nothing leaks").

A job is on disk before its provider is asked, and every call is idempotent by the machine's name; so a server that was
killed at any point does its open jobs again when it starts, and nothing is made twice.
"""

from __future__ import annotations

import logging

from scitq.broker import setbacks
from scitq.broker.context import Ctx, Later
from scitq.broker.providers.base import Bootstrap, Machine, MachineRequest, MachineState, Provider
from scitq.broker.store import flavors, jobs, machines, workers
from scitq.broker.store.jobs import Job
from scitq.broker.store.machines import StoredMachine
from scitq.errors import ProviderError, ScitqError
from scitq.util import proc

logger = logging.getLogger(__name__)
MOST_AT_ONCE = 10
_PATIENCE_MS = 30 * 60_000
_FIRST_WAIT_MS = 2_000
_MOST_WAIT_MS = 10 * 60_000


def run_due(ctx: Ctx) -> None:
    """Give every job that is due to a thread, as far as there is room."""
    room = MOST_AT_ONCE - jobs.count_running(ctx.tx)
    for job in jobs.due(ctx.tx, ctx.now_ms, room) if room > 0 else []:
        provider = ctx.broker.providers.get(job.provider)
        machine = machines.get(ctx.tx, job.machine)
        jobs.start(ctx.tx, job.id, ctx.now_ms + _PATIENCE_MS)
        if provider is None:
            _failed(ctx, job.id, ProviderError(f"the provider {job.provider} is not configured any more"))
        elif job.kind == "delete":
            ctx.background(_delete(job, provider))
        elif machine is None or not machine.is_wanted:
            jobs.end(ctx.tx, job.id, "dropped", ctx.now_ms, "no longer wanted")
        else:
            ctx.background(_create(job, provider, machine_request(ctx, machine)))


def bootstrap(ctx: Ctx) -> Bootstrap:
    """What agents on new machines need to find this server."""
    section = ctx.broker.config.scitq
    host = f"[{section.server_fqdn}]" if ":" in section.server_fqdn else section.server_fqdn
    secrets = ctx.broker.secrets
    return Bootstrap(
        server=f"{host}:{ctx.broker.port}",
        server_key=secrets.curve_public.decode(),
        token=secrets.worker_token,
        executable=tuple(proc.own_command()),
    )


def machine_request(ctx: Ctx, machine: StoredMachine) -> MachineRequest:
    """What a provider is asked for."""
    return MachineRequest(
        name=machine.name,
        flavor=machine.flavor,
        region=machine.flavor.region,
        bootstrap=bootstrap(ctx),
        time_limit_s=machine.time_limit_s,
    )


def _create(job: Job, provider: Provider, request: MachineRequest) -> Later[Machine]:
    return Later(
        lambda: provider.create(request),
        lambda ctx, machine: _created(ctx, job, machine),
        lambda ctx, error: _failed(ctx, job.id, error),
    )


def _delete(job: Job, provider: Provider) -> Later[None]:
    return Later(
        lambda: provider.delete(job.machine),
        lambda ctx, _: _deleted(ctx, job),
        lambda ctx, error: _failed(ctx, job.id, error),
    )


def _created(ctx: Ctx, job: Job, machine: Machine) -> None:
    jobs.end(ctx.tx, job.id, "done", ctx.now_ms)
    stored = machines.get(ctx.tx, job.machine)
    if stored is None:
        return
    machines.set_made(ctx.tx, job.machine, machine.provider_id, ctx.now_ms, has_begun=machine.state is not MachineState.QUEUED)
    flavors.note_success(ctx.tx, stored.flavor.key)
    workers.record(ctx.tx, stored.worker_id, "ordered", f"{job.provider} has it as {machine.provider_id or job.machine}", ctx.now_ms)
    if not stored.is_wanted and not jobs.open_of(ctx.tx, job.machine):
        jobs.insert(ctx.tx, "delete", job.provider, job.machine, stored.worker_id, ctx.now_ms)
    run_due(ctx)


def _deleted(ctx: Ctx, job: Job) -> None:
    jobs.end(ctx.tx, job.id, "done", ctx.now_ms)
    machines.set_deleted(ctx.tx, job.machine)
    if job.worker_id is not None:
        setbacks.machine_is_gone(ctx, job.worker_id)
    run_due(ctx)


def _failed(ctx: Ctx, job_id: int, error: Exception) -> None:
    job = jobs.get(ctx.tx, job_id)
    if job is None:
        return
    if not isinstance(error, ScitqError):
        logger.error("an error in job %d (%s %s)", job.id, job.kind, job.machine, exc_info=error)
        error = ProviderError(f"{job.provider}: an error in the driver: {type(error).__name__}: {error}")
    logger.warning("job %d, %s %s: %s", job.id, job.kind, job.machine, error.message)
    if job.kind == "delete":
        wait_ms = min(_MOST_WAIT_MS, _FIRST_WAIT_MS * 2 ** min(job.tries, 12))
        jobs.put_off(ctx.tx, job.id, ctx.now_ms + wait_ms, error.message)
        if job.worker_id is not None and job.tries <= 1:
            workers.record(ctx.tx, job.worker_id, "delete failed", error.message, ctx.now_ms)
        return
    jobs.end(ctx.tx, job.id, "failed", ctx.now_ms, error.message)
    machine = machines.get(ctx.tx, job.machine)
    if machine is not None:
        setbacks.deployment_failed(ctx, machine, error)
    run_due(ctx)
