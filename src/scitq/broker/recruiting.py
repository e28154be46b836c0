"""Recruiters at work: the plan made of what the database says, and its actions carried out."""

from __future__ import annotations

import math

import msgspec

from scitq.broker import fleet, jobs, setbacks
from scitq.broker.context import Ctx
from scitq.broker.handlers.worker import apply_settings
from scitq.broker.recruit import plan
from scitq.broker.recruit_state import Ask, FleetState, Plan, Quota, RecruiterView, StepView, WorkerView
from scitq.broker.store import flavors, machines, recruiters, steps, workers
from scitq.broker.store.flavors import Listed
from scitq.broker.store.recruiters import Recruiter
from scitq.broker.store.workers import Worker
from scitq.model import flavor_filter
from scitq.model.flavor import Flavor
from scitq.util.clock import monotonic_s
from scitq.util.units import parse_duration_s


def recruit(ctx: Ctx) -> None:
    """Plan and act, when there is any recruiter."""
    if not recruiters.exists_any(ctx.tx) or ctx.broker.is_draining:
        return
    stored = recruiters.listed(ctx.tx)
    state = fleet_state(ctx, stored)
    chosen = plan(state, ctx.now_ms)
    _remember(ctx, stored, chosen)
    for take in chosen.takes:
        changes = {
            "step_id": take.step_id, "recruiter_id": take.recruiter_id, "concurrency": take.concurrency, "prefetch": take.prefetch,
        }  # fmt: skip
        workers.update(ctx.tx, take.worker_id, changes)
        workers.record(ctx.tx, take.worker_id, "taken over", f"by recruiter {take.recruiter_id} for step {take.step_id}", ctx.now_ms)
        apply_settings(ctx, take.worker_id)
    for deploy in chosen.deploys:
        step = steps.get(ctx.tx, deploy.step_id)
        owner_id = steps.workflow(ctx.tx, step.workflow_id).owner_id if step else None
        fleet.deploy(
            ctx, deploy.flavor, concurrency=deploy.concurrency, prefetch=deploy.prefetch, step_id=deploy.step_id, owner_id=owner_id,
            recruiter_id=deploy.recruiter_id,
        )  # fmt: skip
    for release in chosen.releases:
        worker = workers.get(ctx.tx, release.worker_id)
        if worker is not None:
            setbacks.order_away(ctx, worker, release.reason)
    if chosen.deploys or chosen.releases:
        jobs.run_due(ctx)


def _remember(ctx: Ctx, stored: list[Recruiter], chosen: Plan) -> None:
    for recruiter in stored:
        is_unmet = recruiter.id in chosen.unmet
        if is_unmet != (recruiter.unmet_since_ms is not None):
            recruiters.update(ctx.tx, recruiter.id, {"unmet_since_ms": ctx.now_ms if is_unmet else None})
    ctx.broker.reasons = chosen.reasons


def fleet_state(ctx: Ctx, stored: list[Recruiter]) -> FleetState:
    """All that a plan depends on, as it is now."""
    catalogue = flavors.listed(ctx.tx)
    known = {machine.worker_id: machine.flavor for machine in machines.live(ctx.tx)}
    return FleetState(
        recruiters=[_view(recruiter) for recruiter in stored],
        steps={step_id: _with_asks(ctx, step) for step_id, step in recruiters.steps(ctx.tx).items()},
        workers=[_worker_view(ctx, worker, known.get(worker.id)) for worker in workers.listed(ctx.tx)],
        flavors=[entry.flavor for entry in catalogue if not entry.is_disabled and entry.flavor.provider in ctx.broker.providers],
        quotas=quotas(ctx, catalogue),
        set_aside={entry.flavor.key: entry.aside_until_ms for entry in catalogue if entry.aside_until_ms > ctx.now_ms},
        workflow_most=recruiters.workflow_limits(ctx.tx),
        last_idle_ms=round(parse_duration_s(ctx.broker.config.worker.release_after) * 1000),
    )


def _with_asks(ctx: Ctx, step: StepView) -> StepView:
    asks = tuple(
        Ask(cpus=asked.cpus, mem_gib=asked.mem_gib, gpus=asked.gpus, disk_gb=asked.disk_gb, time_s=asked.time_s, count=count)
        for asked, count in ctx.broker.ready.asked(step.id).items()
    )
    return msgspec.structs.replace(step, asks=asks)


def quotas(ctx: Ctx, catalogue: list[Listed]) -> list[Quota]:
    """All limits; on this machine, which costs nothing and would win every time, no more workers than CPUs unless somebody said otherwise."""
    found = fleet.quotas(ctx)
    limited = {quota.provider for quota in found if quota.kind == "workers"}
    for entry in catalogue:
        if entry.flavor.provider.startswith("local.") and entry.flavor.provider not in limited:
            found.append(Quota(provider=entry.flavor.provider, kind="workers", most=max(2.0, entry.flavor.cpus)))
    return found


def _view(recruiter: Recruiter) -> RecruiterView:
    return RecruiterView(
        id=recruiter.id, step_id=recruiter.step_id, conditions=flavor_filter.parse(recruiter.filter), rank=recruiter.rank,
        concurrency=recruiter.concurrency, cpus_per_task=recruiter.cpus_per_task, mem_per_task_gib=recruiter.mem_per_task_gib,
        disk_per_task_gb=recruiter.disk_per_task_gb, concurrency_min=recruiter.concurrency_min, concurrency_max=recruiter.concurrency_max,
        prefetch=recruiter.prefetch, prefetch_percent=recruiter.prefetch_percent, rounds=recruiter.rounds,
        max_workers=recruiter.max_workers, timeout_ms=round(recruiter.timeout_s * 1000), next_try_ms=recruiter.next_try_ms,
        unmet_since_ms=recruiter.unmet_since_ms,
    )  # fmt: skip


def _worker_view(ctx: Ctx, worker: Worker, flavor: Flavor | None) -> WorkerView:
    live = ctx.broker.fleet.workers.get(worker.id)
    if flavor is None and worker.hardware is not None:
        has = worker.hardware
        flavor = Flavor(
            provider=worker.provider, region=worker.region, name=worker.flavor, cpus=has.cpus, mem_gib=has.mem_gib, disk_gb=has.disk_gb,
            gpus=has.gpus, gpu=has.gpu, gpumem_gib=has.gpumem_gib, cost=0.0,
        )  # fmt: skip
    return WorkerView(
        id=worker.id, status=worker.status, concurrency=worker.concurrency, step_id=worker.step_id, recruiter_id=worker.recruiter_id,
        flavor=flavor, held=len(live.held) if live else 0, scope=worker.scope, is_permanent=worker.is_permanent and bool(worker.machine),
        is_deployed=bool(worker.machine), idle_since_ms=ctx.broker.idle_since.get(worker.id), created_ms=worker.created_ms,
        seconds_left=live.ends_s - monotonic_s() if live and worker.worked_ms is not None and math.isfinite(live.ends_s) else None,
    )  # fmt: skip
