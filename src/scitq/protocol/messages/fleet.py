"""Messages about the fleet: deployments, flavors, providers, recruiters, and the slow jobs on providers."""

from __future__ import annotations

from scitq.protocol.registry import ADMINS, USERS, Reply, Request, request


class WorkersDeployed(Reply, frozen=True, kw_only=True):
    """Ids of the workers to come, in order; or, for a dry run, the script that would be sent."""

    ids: list[int] = []
    script: str = ""


@request("worker.deploy", USERS, WorkersDeployed)
class WorkerDeploy(Request, frozen=True, kw_only=True):
    """Have `count` machines made. Answered at once; the workers are `installing` until their agents report."""

    provider: str
    flavor: str
    region: str = ""
    count: int = 1
    step_id: int | None = None
    concurrency: int = 1
    prefetch: int = 0
    time_limit_s: float | None = None
    is_dry_run: bool = False


class FlavorRow(Reply, frozen=True, kw_only=True):
    """A flavor: memory in GiB, disk in GB, eviction in percent, cost an hour (None: not known)."""

    provider: str
    region: str
    name: str
    cpu: float
    mem: float
    disk: float
    gpus: int = 0
    gpu: str = ""
    gpumem: float = 0.0
    eviction: float = 0.0
    cost: float | None = None
    is_disabled: bool = False
    aside_until_ms: int = 0
    aside_reason: str = ""


class FlavorRows(Reply, frozen=True, kw_only=True):
    """The cheapest first. `total`: flavors in the catalogue, whatever the filter."""

    rows: list[FlavorRow]
    total: int = 0


@request("flavor.list", USERS, FlavorRows)
class FlavorList(Request, frozen=True, kw_only=True):
    """Flavors that pass `filter`; limit 0 means all."""

    limit: int = 10
    filter: str = ""


class ProviderRow(Reply, frozen=True, kw_only=True):
    """One configured provider. `error`: what it said at the last update, empty when that went well."""

    name: str
    region: str
    flavors: int
    workers: int
    updated_ms: int | None = None
    error: str = ""


class ProviderRows(Reply, frozen=True, kw_only=True):
    """By name."""

    rows: list[ProviderRow]


@request("provider.list", USERS, ProviderRows)
class ProviderList(Request, frozen=True, kw_only=True):
    """The providers of scitq.yaml."""


class ProviderChecked(Reply, frozen=True, kw_only=True):
    """What the provider says of itself."""

    words: str


@request("provider.check", USERS, ProviderChecked)
class ProviderCheck(Request, frozen=True, kw_only=True):
    """Does it answer? An error in its own words otherwise."""

    name: str


class ProviderUpdated(Reply, frozen=True, kw_only=True):
    """How many flavors the provider offers now."""

    flavors: int


@request("provider.update", USERS, ProviderUpdated)
class ProviderUpdate(Request, frozen=True, kw_only=True):
    """Read the provider's catalogue now."""

    name: str


@request("provider.flavor", ADMINS)
class ProviderFlavor(Request, frozen=True, kw_only=True):
    """Keep recruiters and deployments from a flavor, or let them use it again (all regions when `region` is empty)."""

    provider: str
    flavor: str
    region: str = ""
    is_disabled: bool = True


class QuotaRow(Reply, frozen=True, kw_only=True):
    """A limit and what is used of it. Kind: workers, cpu or cost (an hour)."""

    provider: str
    region: str
    kind: str
    most: float
    used: float


class QuotaRows(Reply, frozen=True, kw_only=True):
    """By provider, region and kind."""

    rows: list[QuotaRow]


@request("provider.quotas", USERS, QuotaRows)
class ProviderQuotas(Request, frozen=True, kw_only=True):
    """All limits, or those of one provider."""

    provider: str | None = None


@request("provider.quota", ADMINS)
class ProviderQuota(Request, frozen=True, kw_only=True):
    """Set one limit; `most` None removes it."""

    provider: str
    region: str = ""
    kind: str = "workers"
    most: float | None = None


class RecruiterRow(Reply, frozen=True, kw_only=True):
    """One recruiter. `concurrency` None: adapted to the flavor by what a task needs."""

    id: int
    step_id: int
    workflow_id: int | None = None
    filter: str = ""
    rank: int = 1
    concurrency: int | None = None
    cpus_per_task: float | None = None
    mem_per_task_gib: float | None = None
    disk_per_task_gb: float | None = None
    concurrency_min: int = 1
    concurrency_max: int | None = None
    prefetch: int = 0
    prefetch_percent: int | None = None
    rounds: float = 1.0
    max_workers: int | None = None
    timeout_s: float = 0.0
    workers: int = 0
    last_error: str = ""


class RecruiterRows(Reply, frozen=True, kw_only=True):
    """By step and rank."""

    rows: list[RecruiterRow]


@request("recruiter.create", USERS, RecruiterRow)
class RecruiterCreate(Request, frozen=True, kw_only=True):
    """A recruiter for a step. Neither concurrency nor any `*_per_task` given: concurrency 1."""

    step_id: int
    filter: str = ""
    rank: int = 1
    concurrency: int | None = None
    cpus_per_task: float | None = None
    mem_per_task_gib: float | None = None
    disk_per_task_gb: float | None = None
    concurrency_min: int = 1
    concurrency_max: int | None = None
    prefetch: int = 0
    prefetch_percent: int | None = None
    rounds: float = 1.0
    max_workers: int | None = None
    timeout_s: float = 0.0


@request("recruiter.list", USERS, RecruiterRows)
class RecruiterList(Request, frozen=True, kw_only=True):
    """All, or those of a step or a workflow, or those named."""

    step_id: int | None = None
    workflow_id: int | None = None
    ids: list[int] | None = None


@request("recruiter.update", USERS)
class RecruiterUpdate(Request, frozen=True, kw_only=True):
    """Change one; what is None stays. A given concurrency ends its adaption, and a given `*_per_task` begins it."""

    id: int
    filter: str | None = None
    rank: int | None = None
    concurrency: int | None = None
    cpus_per_task: float | None = None
    mem_per_task_gib: float | None = None
    disk_per_task_gb: float | None = None
    concurrency_min: int | None = None
    concurrency_max: int | None = None
    prefetch: int | None = None
    prefetch_percent: int | None = None
    rounds: float | None = None
    max_workers: int | None = None
    timeout_s: float | None = None


@request("recruiter.delete", USERS)
class RecruiterDelete(Request, frozen=True, kw_only=True):
    """Remove one; its workers stay until they are idle."""

    ids: list[int]


class RecruiterExplained(Reply, frozen=True, kw_only=True):
    """What a recruiter does now and why."""

    id: int
    reasons: list[str]


@request("recruiter.explain", USERS, RecruiterExplained)
class RecruiterExplain(Request, frozen=True, kw_only=True):
    """What is it doing, and why?"""

    id: int


class RecruiterSimulated(Reply, frozen=True, kw_only=True):
    """What a workload would take: seconds, cost, the cheapest possible cost, machines."""

    seconds: float
    cost: float
    cheapest_cost: float
    machines_made: int
    most_at_once: int
    evictions: int
    failed_deployments: int


@request("recruiter.simulate", USERS, RecruiterSimulated)
class RecruiterSimulate(Request, frozen=True, kw_only=True):
    """Run a workload against a fake cloud with the catalogue's flavors, in simulated time.

    `steps`: (tasks, seconds each, whether task i waits for task i of the step before).
    """

    steps: list[tuple[int, float, bool]]
    filter: str = ""
    concurrency: int | None = None
    cpus_per_task: float | None = None
    mem_per_task_gib: float | None = None
    rounds: float = 1.0
    max_workers: int | None = None
    delay_s: float = 90.0
    fail_percent: float = 0.0
    evictions_per_hour: float | None = None
    seed: str = "1"


class JobRow(Reply, frozen=True, kw_only=True):
    """A slow operation on a provider. Status: queued, running, done, failed, dropped; `error` in the provider's words."""

    id: int
    kind: str
    status: str
    provider: str
    machine: str
    worker_id: int | None = None
    tries: int = 0
    created_ms: int = 0
    ended_ms: int | None = None
    error: str = ""


class JobRows(Reply, frozen=True, kw_only=True):
    """Newest first."""

    rows: list[JobRow]


@request("job.list", USERS, JobRows)
class JobList(Request, frozen=True, kw_only=True):
    """Jobs, newest first; limit 0 means all."""

    limit: int = 20
    status: str = ""
    worker_id: int | None = None


@request("job.act", USERS)
class JobAct(Request, frozen=True, kw_only=True):
    """One of: retry (try a queued or failed job now), delete (give it up; a machine that it leaves is the janitor's)."""

    ids: list[int]
    action: str
