"""Recruiters as people make and change them, and simulations."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from scitq.broker import recruiting
from scitq.broker.checks import MOST_SLOTS
from scitq.broker.context import Ctx, Later, Reading
from scitq.broker.dispatch import handles, reads
from scitq.broker.providers.fake import FakeCloud
from scitq.broker.recruit_simulation import SimulatedStep, Simulation, Trial
from scitq.broker.recruit_state import RecruiterView
from scitq.broker.store import flavors, recruiters, steps, workers
from scitq.broker.store.recruiters import Recruiter
from scitq.errors import ConflictError, NotFoundError, UsageError
from scitq.model import flavor_filter
from scitq.protocol.messages import fleet as m
from scitq.protocol.registry import Done

_MOST_SIMULATED = 100_000
_MONTH_S = 30 * 86_400
_ADAPTS = ("cpus_per_task", "mem_per_task_gib", "disk_per_task_gb")


def _check(values: dict[str, Any]) -> None:
    """UsageError for what can't be meant."""
    flavor_filter.parse(values.get("filter") or "")
    for name, least, most in (
        ("rank", 0, 1_000_000), ("concurrency", 1, MOST_SLOTS), ("concurrency_min", 1, MOST_SLOTS), ("concurrency_max", 1, MOST_SLOTS),
        ("prefetch", 0, MOST_SLOTS), ("prefetch_percent", 0, MOST_SLOTS), ("max_workers", 0, 1_000_000), ("timeout_s", 0, 1e9),
    ):  # fmt: skip
        if values.get(name) is not None and not least <= values[name] <= most:
            raise UsageError(f"{name.replace('_', '-')} lies between {least} and {most:g}")
    for name in (*_ADAPTS, "rounds"):
        if values.get(name) is not None and not 0 < values[name] < math.inf:
            raise UsageError(f"{name.replace('_', '-')} is above 0")
    if values.get("prefetch") and values.get("prefetch_percent") is not None:
        raise UsageError("give either a prefetch or a percentage, not both")
    greatest, smallest = values.get("concurrency_max"), values.get("concurrency_min")
    if greatest is not None and smallest is not None and greatest < smallest:
        raise UsageError("the greatest concurrency is less than the smallest")


def _must_adapt(least: int, most: int | None) -> None:
    """UsageError for bounds of a concurrency that is fixed: they would be kept and never used."""
    if least > 1 or most is not None:
        raise UsageError(
            "the smallest and greatest concurrency bound one that adapts to the flavor; give what a task needs (cpus per task, …)"
        )


def _own_step(ctx: Ctx, step_id: int) -> None:
    step = steps.get(ctx.tx, step_id)
    if step is None:
        raise NotFoundError(f"there is no step {step_id}")
    ctx.must_own(steps.workflow(ctx.tx, step.workflow_id).owner_id, f"step {step_id}")


def _own(ctx: Ctx, recruiter_id: int) -> Recruiter:
    found = recruiters.get(ctx.tx, recruiter_id)
    if found is None:
        raise NotFoundError(f"there is no recruiter {recruiter_id}")
    _own_step(ctx, found.step_id)
    return found


def _row(recruiter: Recruiter, workflow_id: int | None, count: int) -> m.RecruiterRow:
    shared = {name: getattr(recruiter, name) for name in Recruiter._fields if name in m.RecruiterRow.__struct_fields__}
    return m.RecruiterRow(**shared, workflow_id=workflow_id, workers=count)


@handles(m.RecruiterCreate)
def create(ctx: Ctx, message: m.RecruiterCreate) -> m.RecruiterRow:
    """A recruiter for a step of one's own."""
    values = {name: getattr(message, name) for name in message.__struct_fields__ if name != "step_id"}
    _check(values)
    _own_step(ctx, message.step_id)
    adapts = any(values[name] is not None for name in _ADAPTS)
    if adapts and message.concurrency is not None:
        raise UsageError("give either a concurrency or what a task needs (cpus, memory, disk per task), not both")
    if not adapts:
        _must_adapt(message.concurrency_min, message.concurrency_max)
        values["concurrency"] = message.concurrency or 1
    recruiter_id = recruiters.insert(ctx.tx, message.step_id, values, ctx.now_ms)
    made = recruiters.get(ctx.tx, recruiter_id)
    step = steps.get(ctx.tx, message.step_id)
    assert made is not None
    return _row(made, step.workflow_id if step else None, 0)


@reads(m.RecruiterList)
def list_recruiters(reading: Reading, message: m.RecruiterList) -> m.RecruiterRows:
    """By step and rank; those asked for by id in the order asked."""
    counts: dict[int, int] = {}
    for worker in workers.listed(reading.db):
        if worker.recruiter_id is not None:
            counts[worker.recruiter_id] = counts.get(worker.recruiter_id, 0) + 1
    if message.ids is not None:
        found = []
        for recruiter_id in message.ids:
            recruiter = recruiters.get(reading.db, recruiter_id)
            if recruiter is None:
                raise NotFoundError(f"there is no recruiter {recruiter_id}")
            found.append(recruiter)
    else:
        found = recruiters.listed(reading.db, step_id=message.step_id, workflow_id=message.workflow_id)
    rows = []
    for recruiter in found:
        step = steps.get(reading.db, recruiter.step_id)
        rows.append(_row(recruiter, step.workflow_id if step else None, counts.get(recruiter.id, 0)))
    return m.RecruiterRows(rows=rows)


@handles(m.RecruiterUpdate)
def update(ctx: Ctx, message: m.RecruiterUpdate) -> Done:
    """Change what was named."""
    recruiter = _own(ctx, message.id)
    values = {name: getattr(message, name) for name in message.__struct_fields__ if name != "id" and getattr(message, name) is not None}
    if not values:
        raise UsageError("nothing to change was named")
    adapts = any(name in values for name in _ADAPTS)
    if adapts and "concurrency" in values:
        raise UsageError("give either a concurrency or what a task needs (cpus, memory, disk per task), not both")
    if adapts:
        values["concurrency"] = None
    elif "concurrency" in values or recruiter.concurrency is not None:
        _must_adapt(values.get("concurrency_min", 1), values.get("concurrency_max"))
        if "concurrency" in values:
            values |= dict.fromkeys(_ADAPTS) | {"concurrency_min": 1, "concurrency_max": None}
    _check({"concurrency_min": recruiter.concurrency_min, "concurrency_max": recruiter.concurrency_max} | values)
    if "prefetch_percent" in values:
        values["prefetch"] = 0
    elif "prefetch" in values:
        values["prefetch_percent"] = None
    recruiters.update(ctx.tx, message.id, values | {"next_try_ms": 0})
    return Done()


@handles(m.RecruiterDelete)
def delete(ctx: Ctx, message: m.RecruiterDelete) -> Done:
    """Remove recruiters; their workers stay until they idle."""
    for recruiter_id in message.ids:
        _own(ctx, recruiter_id)
        recruiters.delete(ctx.tx, recruiter_id)
    return Done()


@reads(m.RecruiterExplain)
def explain(reading: Reading, message: m.RecruiterExplain) -> m.RecruiterExplained:
    """What the last plan said of it."""
    recruiter = recruiters.get(reading.db, message.id)
    if recruiter is None:
        raise NotFoundError(f"there is no recruiter {message.id}")
    reasons = list(reading.broker.reasons.get(message.id, ["it has not been looked at yet"]))
    if recruiter.last_error:
        reasons.append(f"the last deployment that failed: {recruiter.last_error}")
    return m.RecruiterExplained(id=message.id, reasons=reasons)


@handles(m.RecruiterSimulate)
def simulate(ctx: Ctx, message: m.RecruiterSimulate) -> Later[Trial]:
    """Run the workload in simulated time, in a thread."""
    values = {
        name: getattr(message, name) for name in ("filter", "concurrency", "cpus_per_task", "mem_per_task_gib", "rounds", "max_workers")
    }
    _check(values)
    if message.concurrency is not None and (message.cpus_per_task or message.mem_per_task_gib):
        raise UsageError("give either a concurrency or what a task needs (cpus, memory per task), not both")
    if not message.steps or not 0 < sum(count for count, _, _ in message.steps) <= _MOST_SIMULATED:
        raise UsageError(f"a simulation has at least one task and at most {_MOST_SIMULATED}")
    if any(count < 1 or not 0 < seconds <= _MONTH_S for count, seconds, _ in message.steps):
        raise UsageError("each step has at least one task, and its tasks take more than 0 s and at most 30 days")
    for what, number, most in (
        ("delay", message.delay_s, _MONTH_S), ("percentage of failures", message.fail_percent, 95),
        ("number of evictions an hour", message.evictions_per_hour or 0.0, 1000),
    ):  # fmt: skip
        if not 0 <= number <= most:
            raise UsageError(f"the {what} lies between 0 and {most:g}")
    listed = flavors.listed(ctx.tx)
    catalogue = [entry.flavor for entry in listed if not entry.is_disabled and entry.flavor.cost is not None]
    if not catalogue:
        raise ConflictError("the catalogue has no flavor with a price to simulate with")
    work = [
        SimulatedStep(id=number, tasks=count, seconds=seconds, follows=number - 1 if follows and number > 1 else None)
        for number, (count, seconds, follows) in enumerate(message.steps, 1)
    ]
    for one, other in zip(work[1:], work, strict=False):
        if one.follows is not None and one.tasks != other.tasks:
            raise UsageError(f"step {one.id} follows step {other.id} task by task, so both have the same number of tasks")
    adapts = message.concurrency is None and (message.cpus_per_task or message.mem_per_task_gib)
    view = RecruiterView(
        id=0, step_id=0, conditions=flavor_filter.parse(message.filter), concurrency=None if adapts else message.concurrency or 1,
        cpus_per_task=message.cpus_per_task, mem_per_task_gib=message.mem_per_task_gib, rounds=message.rounds,
    )  # fmt: skip
    named = {f"{flavor.name} of {flavor.provider} in {flavor.region}": flavor for flavor in catalogue}
    cloud = FakeCloud(
        flavors={name: msgspec.structs.replace(flavor, name=name) for name, flavor in named.items()},
        delay_s=message.delay_s,
        fail_rate=message.fail_percent / 100,
        evict_per_hour=message.evictions_per_hour or 0.0,
        seed=message.seed,
    )
    views = [msgspec.structs.replace(view, id=step.id, step_id=step.id) for step in work]
    run = Simulation(cloud, work, views, quotas=recruiting.quotas(ctx, listed), most_workers=message.max_workers).run

    def tell(_: Ctx, trial: Trial) -> m.RecruiterSimulated:
        return m.RecruiterSimulated(
            seconds=trial.seconds, cost=trial.cost, cheapest_cost=trial.cheapest_cost, machines_made=trial.machines_made,
            most_at_once=trial.most_at_once, evictions=trial.evictions, failed_deployments=trial.failed_deployments,
        )  # fmt: skip

    return Later(run, tell)
