"""What a plan of the recruiters depends on, and what it says to do: figures only (docs/fleet.md)."""

from __future__ import annotations

import math

import msgspec

from scitq.model.flavor import Flavor
from scitq.model.flavor_filter import Condition

LAST_IDLE_MS = 30_000
"""A recruited worker is released after so long when its workflow has nothing left that could come to it (worker.release_after)."""


class RecruiterView(msgspec.Struct, frozen=True, kw_only=True):
    """A recruiter. `concurrency` None: as many tasks as `*_per_task` let fit into the flavor, within the bounds."""

    id: int
    step_id: int
    conditions: tuple[Condition, ...]
    rank: int = 1
    concurrency: int | None = 1
    cpus_per_task: float | None = None
    mem_per_task_gib: float | None = None
    disk_per_task_gb: float | None = None
    concurrency_min: int = 1
    concurrency_max: int | None = None
    prefetch: int = 0
    prefetch_percent: int | None = None
    rounds: float = 1.0
    max_workers: int | None = None
    timeout_ms: int = 0
    next_try_ms: int = 0
    unmet_since_ms: int | None = None

    def concurrency_on(self, flavor: Flavor) -> int:
        """Tasks at once on one worker of `flavor`; 0 when it is too small."""
        if self.concurrency is not None:
            return self.concurrency
        fits = [
            math.floor(has / per + 1e-9)
            for has, per in (
                (flavor.cpus, self.cpus_per_task),
                (flavor.mem_gib, self.mem_per_task_gib),
                (flavor.disk_gb, self.disk_per_task_gb),
            )
            if per
        ]
        count = min(fits, default=1)
        if self.concurrency_max is not None:
            count = min(count, self.concurrency_max)
        return count if count >= max(1, self.concurrency_min) else 0

    def prefetch_for(self, concurrency: int) -> int:
        """Tasks fetched ahead by a worker of this concurrency."""
        return self.prefetch if self.prefetch_percent is None else math.ceil(concurrency * self.prefetch_percent / 100)


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What `count` pending tasks of a step ask of a worker alike; 0 asks for nothing."""

    cpus: float = 0.0
    mem_gib: float = 0.0
    gpus: int = 0
    disk_gb: float = 0.0
    time_s: float = 0.0
    count: int = 1

    def fits(self, flavor: Flavor) -> bool:
        """Whether a worker of `flavor` could ever run such a task. A disk of unknown size is not held against it."""
        return (
            self.cpus <= flavor.cpus + 1e-9
            and self.mem_gib <= flavor.mem_gib + 1e-9
            and self.gpus <= flavor.gpus
            and (not flavor.disk_gb or self.disk_gb <= flavor.disk_gb + 1e-9)
            and (flavor.longest_s is None or self.time_s <= flavor.longest_s)
        )

    def __str__(self) -> str:
        parts = (
            (self.cpus, "cpus"),
            (self.mem_gib, "GiB of memory"),
            (self.gpus, "GPUs"),
            (self.disk_gb, "GB of disk"),
            (self.time_s, "seconds"),
        )
        return ", ".join(f"{figure:g} {unit}" for figure, unit in parts if figure) or "nothing special"


class StepView(msgspec.Struct, frozen=True, kw_only=True):
    """A step's tasks: `pending` (P), `held` (A to V) by the workers that are the step's own now, and `blocked` (W, I, Z).

    What is held by a worker that serves another step meanwhile is covered by it; blocked tasks never cause a deployment.
    """

    id: int
    workflow_id: int | None
    pending: int = 0
    held: int = 0
    blocked: int = 0
    is_paused: bool = False
    asks: tuple[Ask, ...] = ()
    """What the pending tasks ask for; empty: nothing that any worker would lack."""

    @property
    def open(self) -> int:
        """Tasks that need a slot, now or until they end."""
        return self.held if self.is_paused else self.pending + self.held


class WorkerView(msgspec.Struct, frozen=True, kw_only=True):
    """A worker. `held`: tasks it has. `is_deployed`: the server had its machine made, and may delete it.

    seconds_left: until its machine ends by itself; None where it does not, and of one that has not worked yet: where even
    fresh ones are too short for the tasks, more of them would not help.
    """

    id: int
    status: str
    concurrency: int
    step_id: int | None = None
    recruiter_id: int | None = None
    flavor: Flavor | None = None
    held: int = 0
    scope: str = "W"
    is_permanent: bool = False
    is_deployed: bool = True
    idle_since_ms: int | None = None
    created_ms: int = 0
    seconds_left: float | None = None

    def has_time_for(self, step: StepView | None) -> bool:
        """Whether any pending task of the step would be given to it so near to its end."""
        return self.seconds_left is None or step is None or not step.asks or any(ask.time_s <= self.seconds_left for ask in step.asks)


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """A limit on one provider, in one region (empty: all together). Kind: workers, cpu, or cost (per hour)."""

    provider: str
    region: str = ""
    kind: str = "workers"
    most: float = 0


class FleetState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a plan depends on. `set_aside`: flavors not to use until a time; `workflow_most`: workers by workflow."""

    recruiters: list[RecruiterView]
    steps: dict[int, StepView]
    workers: list[WorkerView]
    flavors: list[Flavor]
    quotas: list[Quota] = []
    set_aside: dict[tuple[str, str, str], int] = {}
    workflow_most: dict[int, int] = {}
    last_idle_ms: int = LAST_IDLE_MS


class Take(msgspec.Struct, frozen=True, kw_only=True):
    """Move an idle worker to the recruiter's step."""

    worker_id: int
    recruiter_id: int
    step_id: int
    concurrency: int
    prefetch: int


class Deploy(msgspec.Struct, frozen=True, kw_only=True):
    """Have one machine made for the recruiter's step."""

    recruiter_id: int
    step_id: int
    flavor: Flavor
    concurrency: int
    prefetch: int


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Delete a worker that is no longer needed."""

    worker_id: int
    reason: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Actions in order, why (by recruiter), and which recruiters' demand stays unmet."""

    takes: list[Take]
    deploys: list[Deploy]
    releases: list[Release]
    reasons: dict[int, list[str]]
    unmet: set[int]
    wake_ms: int | None = None
