"""What a workflow file comes to: steps, tasks with their dependencies, recruiters."""

from __future__ import annotations

from dataclasses import dataclass, field

from scitq.model.task import TaskSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTask:
    """One task. `depends_on`, `after_any`: positions of tasks before it in the plan."""

    step: str
    item: str
    """What names it within its step: the items it is for, joined by dots; empty when the step has one task only."""
    spec: TaskSpec
    depends_on: tuple[int, ...] = ()
    after_any: tuple[int, ...] = ()
    retries: int = 0
    priority: int = 0
    coordinates: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`step.item`, unique in the workflow."""
        return f"{self.step}.{self.item}" if self.item else self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRecruiter:
    """One recruiter of a step; None where nothing was said. Memory in GiB, disk in GB."""

    step: str
    rank: int
    filter: str
    concurrency: int | None = None
    cpus_per_task: float | None = None
    mem_per_task_gib: float | None = None
    disk_per_task_gb: float | None = None
    prefetch: int | None = None
    prefetch_percent: int | None = None
    rounds: int | None = None
    max_workers: int | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One step; `retries`: how often its tasks are tried again by themselves."""

    name: str
    retries: int = 0
    tasks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole, in an order in which everything comes after what it needs."""

    name: str
    description: str = ""
    max_workers: int | None = None
    steps: tuple[PlannedStep, ...] = ()
    tasks: tuple[PlannedTask, ...] = ()
    recruiters: tuple[PlannedRecruiter, ...] = ()
    notes: tuple[str, ...] = ()
    """What is allowed, and may not be meant."""
