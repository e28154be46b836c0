"""A workload run against a fake cloud in simulated time, by the very plan that the broker follows (`scitq recruiter simulate`)."""

from __future__ import annotations

import heapq
import math
from collections import deque

import msgspec

from scitq.broker.providers.base import FlavorUnusableError
from scitq.broker.providers.fake import FakeCloud
from scitq.broker.recruit import plan
from scitq.broker.recruit_backoff import after_failure
from scitq.broker.recruit_state import Ask, Deploy, FleetState, Quota, RecruiterView, StepView, WorkerView
from scitq.errors import ConflictError, ProviderError
from scitq.model.flavor_filter import passes

TICK_S = 2.0
_MOST_S = 365 * 86400.0


class SimulatedStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step: so many tasks of so many seconds. With `follows`, task i waits for task i of that earlier step."""

    id: int
    tasks: int
    seconds: float
    spread: float = 0.0
    """Durations vary by this part of `seconds`, either way."""
    follows: int | None = None


def _longest_s(step: SimulatedStep) -> float:
    return step.seconds * (1 + step.spread)


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. `cheapest_cost`: all work on the flavor with the cheapest slot, without one idle second."""

    seconds: float
    cost: float
    cheapest_cost: float
    succeeded: int
    machines_made: int
    machines_left: int
    most_at_once: int
    evictions: int
    failed_deployments: int
    runs: int

    @property
    def ratio(self) -> float:
        """Cost over the cheapest possible."""
        return self.cost / self.cheapest_cost if self.cheapest_cost else 1.0


class _Worker(msgspec.Struct, kw_only=True):
    id: int
    name: str
    recruiter_id: int
    step_id: int
    flavor: str
    concurrency: int
    created_s: float
    ends_s: float = math.inf
    """When its allocation is over; tasks ask for the time of the longest of their step, and are not begun later."""
    status: str = "installing"
    idle_since_s: float = 0.0
    has_worked: bool = False
    running: set[tuple[int, int]] = msgspec.field(default_factory=set)


_MOST_RUNS = 100
"""A workload whose tasks are begun so often on average, because their machines are reclaimed, does not end."""
MOST_WORK = 10_000_000
"""Looks at a worker, one for each of them in each round: some minutes of a core."""


class Simulation:
    """One run. Everything of it is in memory; the same arguments give the same result."""

    def __init__(
        self,
        cloud: FakeCloud,
        steps: list[SimulatedStep],
        recruiters: list[RecruiterView],
        *,
        idle_timeout_s: float = 300.0,
        quotas: list[Quota] | None = None,
        most_workers: int | None = None,
    ) -> None:
        self.cloud, self.steps, self.recruiters = cloud, {step.id: step for step in steps}, {each.id: each for each in recruiters}
        self.idle_timeout_s = idle_timeout_s
        self.quotas, self.most_workers = quotas or [], most_workers
        self.now_s = 0.0
        self.pending: dict[int, deque[int]] = {step.id: deque(range(step.tasks) if step.follows is None else ()) for step in steps}
        self.blocked = {step.id: step.tasks - len(self.pending[step.id]) for step in steps}
        self.followers: dict[int, list[int]] = {step.id: [other.id for other in steps if other.follows == step.id] for step in steps}
        self.done = 0
        self.workers: dict[int, _Worker] = {}
        self.events: list[tuple[float, int, str, int, tuple[int, int]]] = []
        self.work = 0
        self.count = self.made = self.evictions = self.failures = self.runs = self.most_at_once = 0
        self.flavor_failures: dict[str, int] = {}
        self.aside: dict[tuple[str, str, str], int] = {}

    def _at(self, time_s: float, kind: str, worker_id: int = 0, task: tuple[int, int] = (0, 0)) -> None:
        self.count += 1
        heapq.heappush(self.events, (time_s, self.count, kind, worker_id, task))

    def run(self) -> Trial:
        """Until every task has succeeded and every machine is gone; ConflictError when that never comes."""
        total = sum(step.tasks for step in self.steps.values())
        self._at(0.0, "tick")
        while self.events and (self.done < total or self.workers):
            self.now_s, _, kind, worker_id, task = heapq.heappop(self.events)
            if self.now_s > _MOST_S:
                raise ConflictError(f"the workload does not end: {self.done} of {total} tasks after a simulated year")
            if self.runs > _MOST_RUNS * total:
                raise ConflictError(
                    f"the workload does not end: {self.done} of {total} tasks after {self.runs} runs; machines are reclaimed too soon for it"
                )
            match kind:
                case "tick":
                    self.work += 1 + len(self.workers)
                    if self.work > MOST_WORK:
                        raise ConflictError(
                            f"the simulation takes too long: {self.done} of {total} tasks after {self.now_s / 3600:.0f} simulated hours"
                        )
                    self._at(self._tick(), "tick")
                case "ready":
                    self._ready(worker_id)
                case "evict":
                    self._evict(worker_id)
                case "expire":
                    self._expire(worker_id)
                case _:
                    self._end_task(worker_id, task)
        left = sum(1 for machine in self.cloud.machines.values() if self.cloud.is_alive(machine, self.now_s))
        return Trial(
            seconds=self.now_s, cost=self.cloud.bill(self.now_s), cheapest_cost=self._cheapest(), succeeded=self.done,
            machines_made=self.made, machines_left=left, most_at_once=self.most_at_once, evictions=self.evictions,
            failed_deployments=self.failures, runs=self.runs,
        )  # fmt: skip

    def _duration_s(self, step: SimulatedStep, index: int) -> float:
        return step.seconds * (1 + step.spread * (2 * self.cloud.chance("task", str(step.id), str(index)) - 1))

    def _cheapest(self) -> float:
        cost = 0.0
        for step in self.steps.values():
            prices = [
                (flavor.cost or 0.0) / recruiter.concurrency_on(flavor)
                for recruiter in self.recruiters.values()
                for flavor in self.cloud.flavors.values()
                if recruiter.step_id == step.id
                and recruiter.concurrency_on(flavor)
                and passes(recruiter.conditions, flavor)
                and Ask(time_s=_longest_s(step)).fits(flavor)
            ]
            cost += min(prices, default=0.0) * sum(self._duration_s(step, index) for index in range(step.tasks)) / 3600
        return cost

    def _state(self) -> FleetState:
        workers = [
            WorkerView(
                id=worker.id, status=worker.status, concurrency=worker.concurrency, step_id=worker.step_id,
                recruiter_id=worker.recruiter_id, flavor=self.cloud.flavors[worker.flavor], held=len(worker.running),
                idle_since_ms=None if worker.running else round(worker.idle_since_s * 1000), created_ms=round(worker.created_s * 1000),
                seconds_left=worker.ends_s - self.now_s if worker.has_worked and math.isfinite(worker.ends_s) else None,
            )
            for worker in self.workers.values()
        ]  # fmt: skip
        held = dict.fromkeys(self.steps, 0)
        for worker in self.workers.values():
            held[worker.step_id] += sum(1 for step_id, _ in worker.running if step_id == worker.step_id)
        steps = {
            step_id: StepView(
                id=step_id, workflow_id=1, pending=len(self.pending[step_id]), held=held[step_id], blocked=self.blocked[step_id],
                asks=(Ask(time_s=_longest_s(step), count=len(self.pending[step_id])),) if self.pending[step_id] else (),
            )
            for step_id, step in self.steps.items()
        }  # fmt: skip
        return FleetState(
            recruiters=list(self.recruiters.values()), steps=steps, workers=workers, flavors=list(self.cloud.flavors.values()),
            quotas=self.quotas, set_aside=self.aside, workflow_most={} if self.most_workers is None else {1: self.most_workers},
        )  # fmt: skip

    def _tick(self) -> float:
        """Plan and act; when to do so next: while nothing happens the plan stays the same."""
        now_ms = round(self.now_s * 1000)
        former = dict(self.recruiters)
        chosen = plan(self._state(), now_ms)
        for recruiter_id, recruiter in self.recruiters.items():
            since = (recruiter.unmet_since_ms if recruiter.unmet_since_ms is not None else now_ms) if recruiter_id in chosen.unmet else None
            self.recruiters[recruiter_id] = msgspec.structs.replace(recruiter, unmet_since_ms=since)
        for take in chosen.takes:
            worker = self.workers[take.worker_id]
            worker.recruiter_id, worker.step_id, worker.concurrency = take.recruiter_id, take.step_id, take.concurrency
            self._feed(worker)
        for deploy in chosen.deploys:
            self._deploy(deploy, now_ms)
        if not (self.workers or chosen.deploys or chosen.wake_ms):
            raise ConflictError(
                "the workload can't be done: " + "; ".join(sorted({reason for said in chosen.reasons.values() for reason in said}))
            )
        for release in chosen.releases:
            self._remove(self.workers[release.worker_id])
        idle = [worker for worker in self.workers.values() if worker.status == "ready" and not worker.running]
        for worker in idle:
            if self.now_s - worker.idle_since_s >= self.idle_timeout_s:
                self._remove(worker)
        if chosen.takes or chosen.deploys or chosen.releases or former != self.recruiters:
            return self.now_s + TICK_S
        moments = [worker.idle_since_s + self.idle_timeout_s for worker in idle]
        moments += [self.events[0][0]] if self.events else []
        moments += [chosen.wake_ms / 1000] if chosen.wake_ms else []
        return self.now_s + TICK_S * max(1, math.ceil((min(moments, default=self.now_s) - self.now_s) / TICK_S))

    def _deploy(self, deploy: Deploy, now_ms: int) -> None:
        self.made += 1
        name = f"sim-{self.made}"
        try:
            machine = self.cloud.create(name, deploy.flavor.name, deploy.flavor.region, self.now_s)
        except ProviderError as error:
            self.failures += 1
            failures = self.flavor_failures[deploy.flavor.name] = self.flavor_failures.get(deploy.flavor.name, 0) + 1
            setback = after_failure(error.code, failures, now_ms)
            recruiter = self.recruiters[deploy.recruiter_id]
            self.recruiters[deploy.recruiter_id] = msgspec.structs.replace(recruiter, next_try_ms=setback.next_try_ms)
            if setback.aside_until_ms is not None or isinstance(error, FlavorUnusableError):
                self.aside[deploy.flavor.key] = setback.aside_until_ms or now_ms
            return
        self.flavor_failures.pop(deploy.flavor.name, None)
        worker = _Worker(
            id=self.made, name=name, recruiter_id=deploy.recruiter_id, step_id=deploy.step_id, flavor=deploy.flavor.name,
            concurrency=deploy.concurrency, created_s=self.now_s
        )  # fmt: skip
        self.workers[worker.id] = worker
        self.most_at_once = max(self.most_at_once, len(self.workers))
        self._at(machine.ready_s, "ready", worker.id)
        if deploy.flavor.longest_s is not None:
            worker.ends_s = machine.ready_s + deploy.flavor.longest_s
            self._at(worker.ends_s, "expire", worker.id)
        if machine.evicted_s is not None:
            self._at(machine.evicted_s, "evict", worker.id)

    def _ready(self, worker_id: int) -> None:
        worker = self.workers.get(worker_id)
        if worker is not None:
            worker.status, worker.idle_since_s = "ready", self.now_s
            self._feed(worker)

    def _feed(self, worker: _Worker) -> None:
        queue = self.pending[worker.step_id]
        if self.now_s + _longest_s(self.steps[worker.step_id]) > worker.ends_s:
            return
        while worker.status == "ready" and queue and len(worker.running) < worker.concurrency:
            index = queue.popleft()
            self.runs += 1
            worker.has_worked = True
            worker.running.add((worker.step_id, index))
            self._at(self.now_s + self._duration_s(self.steps[worker.step_id], index), "end", worker.id, (worker.step_id, index))

    def _end_task(self, worker_id: int, task: tuple[int, int]) -> None:
        worker = self.workers.get(worker_id)
        if worker is None or task not in worker.running:
            return
        worker.running.remove(task)
        step_id, index = task
        self.done += 1
        for follower in self.followers[step_id]:
            self.blocked[follower] -= 1
            self.pending[follower].append(index)
        if not worker.running:
            worker.idle_since_s = self.now_s
        self._feed(worker)
        for other in self.workers.values():
            if self.followers[step_id] and other.step_id in self.followers[step_id] and len(other.running) < other.concurrency:
                self._feed(other)

    def _evict(self, worker_id: int) -> None:
        worker = self.workers.get(worker_id)
        if worker is not None:
            self.evictions += 1
            self._remove(worker)

    def _expire(self, worker_id: int) -> None:
        """An allocation is over; nothing runs there any more, for no task was begun that would have lasted longer."""
        worker = self.workers.get(worker_id)
        if worker is not None:
            self._remove(worker)

    def _remove(self, worker: _Worker) -> None:
        del self.workers[worker.id]
        for step_id, index in worker.running:
            self.pending[step_id].appendleft(index)
        self.cloud.delete(worker.name, self.now_s)
