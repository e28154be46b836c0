"""The fleet by itself: opening providers, deploying, the catalogue's updates, the janitor, the watchdog, the recruiters' plan."""

from __future__ import annotations

import logging

from scitq.broker import jobs as running
from scitq.broker import setbacks
from scitq.broker.context import Ctx, Later
from scitq.broker.providers.base import FlavorUnusableError, Machine, MachineState, Provider
from scitq.broker.providers.registry import limits_of, open_providers
from scitq.broker.recruit_state import Quota
from scitq.broker.state import Broker
from scitq.broker.store import flavors, jobs, machines, workers
from scitq.broker.store.machines import StoredMachine
from scitq.errors import ProviderError, ScitqError
from scitq.model.flavor import Flavor
from scitq.protocol.messages.agent import Order
from scitq.protocol.messages.fleet import ProviderUpdated
from scitq.util.clock import monotonic_s
from scitq.util.units import parse_duration_s

logger = logging.getLogger(__name__)
_DURATIONS = ("idle_timeout", "release_after", "never_worked_timeout", "offline_timeout", "installing_timeout", "janitor_period")
_SOON_MS = 2_000
"""How often a provider is asked what became of a machine whose agent was stopped."""
_END_MOVED_MS = 45_000
"""Agents end themselves some seconds before their machines; a larger difference means that the end was moved."""
_BEATS = 2.5
"""A machine that its provider shows as gone is gone once its agent has missed two heartbeats."""
_MISSES = 2
"""A machine that the provider does not show so often in a row, while its agent is silent, is gone."""


def open_up(broker: Broker) -> None:
    """Open the configured providers, and put back what a former server was at; UsageError for what scitq.yaml can't mean."""
    limits_of(broker.config.providers)
    for name in _DURATIONS:
        parse_duration_s(getattr(broker.config.worker, name))
    with broker.store.writer as tx:
        broker.machine_mark = machines.mark(tx)
        jobs.start_over(tx)
        broker.providers = open_providers(broker.config.providers, broker.machine_mark, broker.folder / "providers")
        flavors.forget_others(tx, list(broker.providers))


def deploy(
    ctx: Ctx, flavor: Flavor, *, concurrency: int, prefetch: int, step_id: int | None, owner_id: int | None,
    recruiter_id: int | None = None, time_limit_s: float | None = None,
) -> int:  # fmt: skip
    """Order one machine: its name, its worker and the job are stored before anything is asked. The worker's id."""
    worker_id = workers.next_id(ctx.tx)
    name = f"{ctx.broker.machine_mark}{worker_id}"
    made = workers.insert_machine(
        ctx.tx, machine=name, name=f"{flavor.name}-{worker_id}", provider=flavor.provider, region=flavor.region, flavor=flavor.name,
        concurrency=concurrency, prefetch=prefetch, step_id=step_id, owner_id=owner_id, recruiter_id=recruiter_id, now_ms=ctx.now_ms,
    )  # fmt: skip
    assert made == worker_id
    machines.insert(ctx.tx, name, worker_id, flavor, time_limit_s)
    jobs.insert(ctx.tx, "create", flavor.provider, name, worker_id, ctx.now_ms)
    workers.record(ctx.tx, worker_id, "deploy", f"{flavor.name} of {flavor.provider} in {flavor.region}", ctx.now_ms)
    return worker_id


def quotas(ctx: Ctx) -> list[Quota]:
    """All limits: those set by command stand before those of scitq.yaml."""
    found = {(quota.provider, quota.region, quota.kind): quota for quota in limits_of(ctx.broker.config.providers)}
    found |= {(quota.provider, quota.region, quota.kind): quota for quota in flavors.quotas(ctx.tx)}
    return [found[key] for key in sorted(found)]


def used(ctx: Ctx, quota: Quota) -> float:
    """What the machines that exist take of a quota."""
    total = 0.0
    for machine in machines.live(ctx.tx, quota.provider):
        if quota.region in {"", machine.flavor.region}:
            total += {"workers": 1.0, "cpu": machine.flavor.cpus, "cost": machine.flavor.cost or 0.0}[quota.kind]
    return total


def run_jobs(ctx: Ctx) -> None:
    """Start what is due; what was lost in a thread begins anew."""
    jobs.start_over(ctx.tx, ctx.now_ms)
    running.run_due(ctx)


def update_catalogues(ctx: Ctx) -> None:
    """Ask every provider whose period is over for its flavors."""
    for name, provider in ctx.broker.providers.items():
        if ctx.now_ms >= ctx.broker.next_update_ms.get(name, 0):
            ctx.broker.next_update_ms[name] = ctx.now_ms + round(provider.update_period_s * 1000)
            ctx.background(update_catalogue(name, provider))


def update_catalogue(name: str, provider: Provider) -> Later[list[Flavor]]:
    """Read one provider's flavors in a thread; a failure is kept in its own words, answered, and tried again in a minute."""

    def keep(ctx: Ctx, found: list[Flavor]) -> ProviderUpdated:
        flavors.replace(ctx.tx, name, found, ctx.now_ms)
        return ProviderUpdated(flavors=len(found))

    def complain(ctx: Ctx, error: Exception) -> ScitqError:
        known = error if isinstance(error, ScitqError) else ProviderError(f"an error in the driver: {type(error).__name__}: {error}")
        logger.warning("the flavors of %s can't be read: %s", name, known.message)
        flavors.set_error(ctx.tx, name, known.message)
        ctx.broker.next_update_ms[name] = min(ctx.broker.next_update_ms.get(name, 0), ctx.now_ms + 60_000)
        return known

    return Later(provider.list_flavors, keep, complain)


def compare(ctx: Ctx) -> None:
    """The janitor: have every provider that may have machines of ours show them, and compare with the database."""
    period_ms = round(parse_duration_s(ctx.broker.config.worker.janitor_period) * 1000)
    ctx.broker.parted -= {each for each in ctx.broker.parted if each in ctx.broker.sessions or each not in ctx.broker.silent_since}
    living = machines.live(ctx.tx)
    busy = {machine.provider for machine in living}
    asked_soon = {machine.provider for machine in living if machine.worker_id in ctx.broker.parted}
    for name, provider in ctx.broker.providers.items():
        last = ctx.broker.compared_ms.get(name)
        wait_ms = min(period_ms, _SOON_MS) if name in asked_soon else period_ms if name in busy else 20 * period_ms
        if last is None or ctx.now_ms - last >= wait_ms:
            ctx.broker.compared_ms[name] = ctx.now_ms
            ctx.background(_find(name, provider, ctx.now_ms))


def _find(name: str, provider: Provider, asked_ms: int) -> Later[list[Machine]]:
    def complain(_: Ctx, error: Exception) -> None:
        logger.warning("%s does not show its machines: %s", name, error)

    return Later(provider.find, lambda ctx, found: _settle(ctx, name, found, asked_ms), complain)


def _settle(ctx: Ctx, provider: str, found: list[Machine], asked_ms: int) -> None:
    by_name = {machine.name: machine for machine in found}
    for machine in found:
        stored = machines.get(ctx.tx, machine.name)
        if machine.state is not MachineState.GONE and (stored is None or not stored.is_wanted) and not jobs.open_of(ctx.tx, machine.name):
            logger.warning("%s has the machine %s, which is not wanted; it is deleted", provider, machine.name)
            jobs.insert(ctx.tx, "delete", provider, machine.name, stored.worker_id if stored else None, ctx.now_ms)
    for stored in machines.live(ctx.tx, provider):
        if stored.is_wanted and stored.made_ms is not None and stored.made_ms < asked_ms and not jobs.open_of(ctx.tx, stored.name):
            _look_at(ctx, stored, by_name.get(stored.name))
    running.run_due(ctx)


def _look_at(ctx: Ctx, stored: StoredMachine, shown: Machine | None) -> None:
    if shown is not None and shown.state is not MachineState.GONE:
        if shown.is_hopeless:
            setbacks.deployment_failed(ctx, stored, FlavorUnusableError(f"{stored.provider}: {shown.message}"))
            return
        if stored.misses or stored.begun_ms is None:
            machines.set_made(ctx.tx, stored.name, shown.provider_id, ctx.now_ms, has_begun=shown.state is not MachineState.QUEUED)
        setbacks.note_wait(ctx, stored.worker_id, shown)
        _follow_end(ctx, stored.worker_id, shown)
        return
    session = ctx.broker.sessions.get(stored.worker_id)
    if session is not None and (shown is None or monotonic_s() - session.seen_s < _BEATS * ctx.broker.heartbeat_s):
        return
    if shown is None and stored.misses + 1 < _MISSES:
        machines.set_misses(ctx.tx, stored.name, stored.misses + 1)
        return
    words = f": {shown.message}" if shown is not None and shown.message else ""
    setbacks.machine_vanished(ctx, stored, words, is_evicted=shown is not None and shown.is_evicted)


def _follow_end(ctx: Ctx, worker_id: int, shown: Machine) -> None:
    """Tell an agent when its provider has moved the end of its machine."""
    worker = workers.get(ctx.tx, worker_id)
    if shown.seconds_left is None or worker is None or worker_id not in ctx.broker.sessions:
        return
    ends_ms = ctx.now_ms + round(shown.seconds_left * 1000)
    if worker.ends_ms is None or abs(worker.ends_ms - ends_ms) > _END_MOVED_MS:
        workers.update(ctx.tx, worker_id, {"ends_ms": ends_ms})
        workers.record(ctx.tx, worker_id, "end", f"its machine has {shown.seconds_left:.0f} s left", ctx.now_ms)
        ctx.push_order(worker_id, Order(kind="settings", value={"seconds_left": shown.seconds_left}))


def watch(ctx: Ctx) -> None:
    """The watchdog: release deployed workers that idle, never worked, are offline, or do not come."""
    rules = ctx.broker.config.worker
    idle_ms, never_ms, offline_ms, installing_ms = (
        round(parse_duration_s(text) * 1000)
        for text in (rules.idle_timeout, rules.never_worked_timeout, rules.offline_timeout, rules.installing_timeout)
    )
    note_idle(ctx)
    for machine in machines.live(ctx.tx):
        worker = workers.get(ctx.tx, machine.worker_id)
        if worker is None or not machine.is_wanted or worker.is_permanent:
            continue
        since = ctx.broker.idle_since.get(worker.id)
        match worker.status:
            case "ready" | "draining" | "paused" if since is not None:
                limit = never_ms if worker.worked_ms is None and worker.status == "ready" else idle_ms
                if ctx.now_ms - since >= limit:
                    never = " and never had any" if worker.worked_ms is None else ""
                    setbacks.order_away(ctx, worker, f"it had no task for {limit // 1000} s{never}")
            case "offline":
                gone_ms = ctx.broker.offline_since.setdefault(worker.id, ctx.now_ms)
                if ctx.now_ms - gone_ms >= offline_ms:
                    setbacks.order_away(ctx, worker, f"it was offline for {offline_ms // 1000} s")
            case "installing" if machine.begun_ms is not None and ctx.now_ms - machine.begun_ms >= installing_ms:
                setbacks.deployment_failed(
                    ctx, machine, ScitqError(f"{machine.provider}: its agent did not report within {installing_ms // 1000} s")
                )
    for worker_id in machines.failed_and_gone(ctx.tx):
        worker = workers.get(ctx.tx, worker_id)
        if worker is not None:
            setbacks.order_away(ctx, worker, worker.reason)
    running.run_due(ctx)


def note_idle(ctx: Ctx) -> None:
    """Remember since when each connected worker has held nothing, and that one that held something has worked."""
    idle = ctx.broker.idle_since
    for worker_id, live in ctx.broker.fleet.workers.items():
        is_busy = bool(live.held) or worker_id in ctx.broker.had_tasks
        if worker_id not in ctx.broker.sessions or is_busy:
            idle.pop(worker_id, None)
            if is_busy and worker_id not in ctx.broker.have_worked:
                ctx.broker.have_worked.add(worker_id)
                workers.update(ctx.tx, worker_id, {"worked_ms": ctx.now_ms})
        else:
            idle.setdefault(worker_id, ctx.now_ms)
        if worker_id in ctx.broker.sessions:
            ctx.broker.offline_since.pop(worker_id, None)
    ctx.broker.had_tasks.clear()
    for worker_id in [worker_id for worker_id in idle if worker_id not in ctx.broker.fleet.workers]:
        del idle[worker_id]
