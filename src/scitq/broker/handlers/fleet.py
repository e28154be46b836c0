"""Deployments, the catalogue, providers and jobs, as people ask for them; and the fleet's own clockwork."""

from __future__ import annotations

import difflib
from collections import Counter
from typing import Any

from scitq.broker import checks, fleet, jobs, recruiting, setbacks
from scitq.broker.context import Ctx, Later, Reading
from scitq.broker.dispatch import every, handles, reads
from scitq.broker.handlers.worker import own_step
from scitq.broker.providers.base import MachineRequest, Provider
from scitq.broker.providers.registry import QUOTA_KINDS
from scitq.broker.recruit_state import Quota
from scitq.broker.store import flavors, machines, workers
from scitq.broker.store import jobs as stored_jobs
from scitq.errors import ConflictError, NotFoundError, UsageError
from scitq.model import flavor_filter
from scitq.model.flavor import Flavor
from scitq.protocol.messages import fleet as m
from scitq.protocol.registry import Done
from scitq.util.units import figure

MOST_AT_ONCE = 1000
_WEEK_MS = 7 * 86_400_000


@every(0.5)
def run_jobs(ctx: Ctx) -> None:
    """Jobs that are due."""
    fleet.run_jobs(ctx)


@every(1.0)
def keep_up(ctx: Ctx) -> None:
    """Catalogues, the janitor and the watchdog, each in its own period."""
    fleet.update_catalogues(ctx)
    fleet.compare(ctx)
    fleet.watch(ctx)


@every(1.0)
def recruit(ctx: Ctx) -> None:
    """Recruiters."""
    recruiting.recruit(ctx)


@every(3600.0)
def tidy(ctx: Ctx) -> None:
    """Forget jobs that ended a week ago."""
    stored_jobs.tidy(ctx.tx, ctx.now_ms - _WEEK_MS)


def provider_of(ctx: Ctx | Reading, name: str) -> Provider:
    """The configured provider; NotFoundError that lists them otherwise (contract DEP-2)."""
    found = ctx.broker.providers.get(name.strip().lower())
    if found is None:
        raise NotFoundError(f"there is no provider {name!r}; configured are {', '.join(sorted(ctx.broker.providers))}")
    return found


@handles(m.WorkerDeploy)
def deploy(ctx: Ctx, message: m.WorkerDeploy) -> m.WorkersDeployed | Later[str]:
    """Order machines; all or none as far as quotas go, each on its own after that (contract DEP-1 to DEP-10)."""
    if not 1 <= message.count <= MOST_AT_ONCE:
        raise UsageError(f"the count lies between 1 and {MOST_AT_ONCE}")
    checks.check_slots(message.concurrency, message.prefetch)
    provider = provider_of(ctx, message.provider)
    if message.step_id is not None:
        own_step(ctx, message.step_id)
    flavor = _flavor(ctx, provider, message.region, message.flavor)
    if message.is_dry_run:
        request = MachineRequest(
            name=f"{ctx.broker.machine_mark}{workers.next_id(ctx.tx)}", flavor=flavor, region=flavor.region,
            bootstrap=jobs.bootstrap(ctx), time_limit_s=message.time_limit_s,
        )  # fmt: skip
        return Later(lambda: provider.script(request), lambda _, script: m.WorkersDeployed(script=script))
    for quota in fleet.quotas(ctx):
        if quota.provider == provider.name and quota.region in {"", flavor.region}:
            asked = message.count * {"workers": 1.0, "cpu": flavor.cpus, "cost": flavor.cost or 0.0}[quota.kind]
            used = fleet.used(ctx, quota)
            if used + asked > quota.most + 1e-9:
                where = f" in {quota.region}" if quota.region else ""
                raise ConflictError(
                    f"the quota of {provider.name}{where} is {figure(quota.most)} {quota.kind}, "
                    f"{figure(used)} are used, and {figure(asked)} more would be too many"
                )
    ids = [
        fleet.deploy(
            ctx, flavor, concurrency=message.concurrency, prefetch=message.prefetch, step_id=message.step_id,
            owner_id=ctx.who.user_id, time_limit_s=message.time_limit_s,
        )
        for _ in range(message.count)
    ]  # fmt: skip
    jobs.run_due(ctx)
    return m.WorkersDeployed(ids=ids)


def _flavor(ctx: Ctx, provider: Provider, region: str, name: str) -> Flavor:
    catalogue = flavors.listed(ctx.tx, provider.name)
    wanted = region or provider.default_region
    for entry in catalogue:
        if entry.flavor.name == name and entry.flavor.region.lower() == wanted.lower():
            if entry.is_disabled:
                raise ConflictError(f"the flavor {name!r} of {provider.name} in {entry.flavor.region} was disabled by an administrator")
            return entry.flavor
    elsewhere = sorted({entry.flavor.region for entry in catalogue if entry.flavor.name == name})
    if elsewhere:
        raise NotFoundError(f"{provider.name} has the flavor {name!r} not in {wanted} but in {', '.join(elsewhere)}; name it with --region")
    names = sorted({entry.flavor.name for entry in catalogue})
    if not names:
        error = flavors.states(ctx.tx).get(provider.name, (None, ""))[1]
        raise NotFoundError(
            f"the catalogue has no flavor of {provider.name} yet" + (f": {error}" if error else "; try: scitq provider update")
        )
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or names[:5]
    raise NotFoundError(f"{provider.name} has no flavor {name!r}; near are {', '.join(near)}")


@reads(m.FlavorList)
def list_flavors(reading: Reading, message: m.FlavorList) -> m.FlavorRows:
    """The cheapest that pass (contract, section 13)."""
    conditions = flavor_filter.parse(message.filter)
    if message.limit < 0:
        raise UsageError("the limit is 0 (all) or more")
    entries = {entry.flavor.key: entry for entry in flavors.listed(reading.db)}
    found = flavor_filter.select((entry.flavor for entry in entries.values()), conditions)
    rows = [
        m.FlavorRow(
            provider=flavor.provider, region=flavor.region, name=flavor.name, cpu=flavor.cpus, mem=flavor.mem_gib, disk=flavor.disk_gb,
            gpus=flavor.gpus, gpu=flavor.gpu, gpumem=flavor.gpumem_gib, eviction=flavor.eviction_percent, cost=flavor.cost,
            is_disabled=entries[flavor.key].is_disabled,
            aside_until_ms=entries[flavor.key].aside_until_ms if entries[flavor.key].aside_until_ms > reading.now_ms else 0,
            aside_reason=entries[flavor.key].aside_reason,
        )
        for flavor in found[: message.limit or None]
    ]  # fmt: skip
    return m.FlavorRows(rows=rows, total=len(entries))


@reads(m.ProviderList)
def list_providers(reading: Reading, _: m.ProviderList) -> m.ProviderRows:
    """What is configured and how it stands."""
    states = flavors.states(reading.db)
    offered: dict[str, int] = {}
    for entry in flavors.listed(reading.db):
        offered[entry.flavor.provider] = offered.get(entry.flavor.provider, 0) + 1
    live = Counter(machine.provider for machine in machines.live(reading.db))
    live.update(worker.provider for worker in workers.listed(reading.db) if worker.machine is None)
    rows = []
    for name, provider in sorted(reading.broker.providers.items()):
        updated_ms, error = states.get(name, (None, ""))
        rows.append(
            m.ProviderRow(
                name=name, region=provider.default_region, flavors=offered.get(name, 0), workers=live[name], updated_ms=updated_ms,
                error=error,
            )
        )  # fmt: skip
    return m.ProviderRows(rows=rows)


@handles(m.ProviderCheck)
def check(ctx: Ctx, message: m.ProviderCheck) -> Later[str]:
    """Ask it, in a thread."""
    provider = provider_of(ctx, message.name)
    return Later(provider.check, lambda _, words: m.ProviderChecked(words=words))


@handles(m.ProviderUpdate)
def update(ctx: Ctx, message: m.ProviderUpdate) -> Later[list[Flavor]]:
    """Read its catalogue now, in a thread."""
    provider = provider_of(ctx, message.name)
    return fleet.update_catalogue(provider.name, provider)


@handles(m.ProviderFlavor)
def disable(ctx: Ctx, message: m.ProviderFlavor) -> Done:
    """Keep a flavor from use, or allow it again."""
    provider = provider_of(ctx, message.provider)
    if not flavors.set_disabled(ctx.tx, provider.name, message.region, message.flavor, is_disabled=message.is_disabled):
        raise NotFoundError(f"{provider.name} has no flavor {message.flavor!r}" + (f" in {message.region}" if message.region else ""))
    return Done()


@handles(m.ProviderQuotas)
def list_quotas(ctx: Ctx, message: m.ProviderQuotas) -> m.QuotaRows:
    """Limits and what is used of them."""
    only = provider_of(ctx, message.provider).name if message.provider is not None else None
    rows = [
        m.QuotaRow(provider=quota.provider, region=quota.region, kind=quota.kind, most=quota.most, used=fleet.used(ctx, quota))
        for quota in fleet.quotas(ctx)
        if only in {None, quota.provider}
    ]
    return m.QuotaRows(rows=rows)


@handles(m.ProviderQuota)
def set_quota(ctx: Ctx, message: m.ProviderQuota) -> Done:
    """Set or remove one limit."""
    provider = provider_of(ctx, message.provider)
    if message.kind not in QUOTA_KINDS:
        raise UsageError(f"a quota is one of {', '.join(QUOTA_KINDS)}")
    if message.most is None:
        flavors.drop_quota(ctx.tx, provider.name, message.region, message.kind)
    elif not message.most >= 0:
        raise UsageError("a quota is 0 or more")
    else:
        flavors.set_quota(ctx.tx, Quota(provider=provider.name, region=message.region, kind=message.kind, most=message.most))
    return Done()


@reads(m.JobList)
def list_jobs(reading: Reading, message: m.JobList) -> m.JobRows:
    """Newest first."""
    found = stored_jobs.listed(reading.db, limit=message.limit, status=message.status, worker_id=message.worker_id)
    rows = [
        m.JobRow(
            id=job.id, kind=job.kind, status=job.status, provider=job.provider, machine=job.machine, worker_id=job.worker_id,
            tries=job.tries, created_ms=job.created_ms, ended_ms=job.ended_ms, error=job.error,
        )
        for job in found
    ]  # fmt: skip
    return m.JobRows(rows=rows)


@handles(m.JobAct)
def act(ctx: Ctx, message: m.JobAct) -> Done:
    """Try jobs now, or give them up."""
    if message.action not in {"retry", "delete"}:
        raise UsageError("the action is retry or delete")
    for job_id in message.ids:
        job = stored_jobs.get(ctx.tx, job_id)
        if job is None:
            raise NotFoundError(f"there is no job {job_id}")
        worker = workers.get(ctx.tx, job.worker_id) if job.worker_id is not None else None
        ctx.must_own(worker.owner_id if worker else None, f"job {job_id}")
        if message.action == "retry":
            _retry(ctx, job, worker)
        else:
            _drop(ctx, job, worker)
    jobs.run_due(ctx)
    return Done()


def _retry(ctx: Ctx, job: stored_jobs.Job, worker: Any) -> None:  # noqa: ANN401 - a worker or None
    if job.status == "queued":
        stored_jobs.put_off(ctx.tx, job.id, ctx.now_ms, job.error)
    elif job.status == "failed" and worker is not None and worker.status == "failed":
        stored_jobs.end(ctx.tx, job.id, "dropped", ctx.now_ms, job.error)
        stored_jobs.drop_queued(ctx.tx, job.machine, "delete", ctx.now_ms)
        machines.set_wanted(ctx.tx, job.machine, is_wanted=True)
        workers.set_status(ctx.tx, worker.id, "installing")
        workers.record(ctx.tx, worker.id, "deploy", f"tried again by {ctx.who.name}", ctx.now_ms)
        stored_jobs.insert(ctx.tx, "create", job.provider, job.machine, worker.id, ctx.now_ms)
    else:
        raise ConflictError(f"job {job.id} is {job.status}; only queued and failed ones are tried again")


def _drop(ctx: Ctx, job: stored_jobs.Job, worker: Any) -> None:  # noqa: ANN401 - a worker or None
    if job.status == "running":
        raise ConflictError(f"job {job.id} is with {job.provider} now; try again in a moment")
    if job.status == "queued":
        stored_jobs.end(ctx.tx, job.id, "dropped", ctx.now_ms, job.error)
        if job.kind == "create" and worker is not None:
            setbacks.order_away(ctx, worker, f"its deployment was given up by {ctx.who.name}")
        elif worker is not None and worker.status == "deleting":
            setbacks.machine_is_gone(ctx, worker.id)
    elif job.status == "failed":
        stored_jobs.end(ctx.tx, job.id, "dropped", ctx.now_ms, job.error)
    else:
        raise ConflictError(f"job {job.id} is {job.status}; there is nothing to give up")
