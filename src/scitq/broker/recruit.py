"""What recruiters do, as a pure function: `plan(state, now)` gives actions; no clock, no database, no provider (docs/fleet.md)."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

import msgspec

from scitq.broker.recruit_state import Ask, Deploy, FleetState, Plan, RecruiterView, Release, StepView, Take, WorkerView
from scitq.model.flavor import Flavor, by_price
from scitq.model.flavor_filter import passes

_COUNTED = frozenset({"installing", "ready"})
_EXISTING = frozenset({"installing", "ready", "draining", "paused", "offline", "deleting"})


def _that_fit(options: list[tuple[Flavor, int]], asks: tuple[Ask, ...]) -> tuple[list[tuple[Flavor, int]], int]:
    """The flavors on which some of the tasks could run, and how many tasks could run on any of them."""
    fitting = [option for option in options if any(ask.fits(option[0]) for ask in asks)]
    return fitting, sum(ask.count for ask in asks if any(ask.fits(flavor) for flavor, _ in fitting))


def _price_of_work(flavor: Flavor, slots: int, useful: int) -> tuple[bool, float, tuple[bool, float, float, float, tuple[str, str, str]]]:
    """Sort key: the price of a slot that will be used, unknown prices last."""
    return (flavor.cost is None, (flavor.cost or 0.0) / min(slots, useful), by_price(flavor))


def plan(state: FleetState, now_ms: int) -> Plan:
    """What to do now. The same state gives the same plan."""
    return _Planner(state, now_ms).run()


class _Planner:
    def __init__(self, state: FleetState, now_ms: int) -> None:
        self.state = state
        self.now_ms = now_ms
        self.result = Plan(takes=[], deploys=[], releases=[], reasons=defaultdict(list), unmet=set())
        self.wakes: list[int] = []
        self.recruiters = {recruiter.id: recruiter for recruiter in state.recruiters}
        self.by_step: dict[int, list[RecruiterView]] = defaultdict(list)
        for recruiter in sorted(state.recruiters, key=lambda recruiter: (recruiter.rank, recruiter.id)):
            self.by_step[recruiter.step_id].append(recruiter)
        self.workers_of: dict[int | None, list[WorkerView]] = defaultdict(list)
        self.of_recruiter: dict[int, int] = defaultdict(int)
        self.of_workflow: dict[int, int] = defaultdict(int)
        self.spent: dict[tuple[str, str, str], float] = defaultdict(float)
        for worker in sorted(state.workers, key=lambda worker: (worker.status != "ready", -worker.held, worker.created_ms, worker.id)):
            self._count(worker)
        self.free = {worker.id: worker for worker in self._surplus()}

    def _count(self, worker: WorkerView) -> None:
        if worker.status in _COUNTED:
            self.workers_of[worker.step_id].append(worker)
            workflow = self._workflow(worker.step_id)
            if worker.recruiter_id is not None:
                self.of_recruiter[worker.recruiter_id] += 1
                if workflow is not None:
                    self.of_workflow[workflow] += 1
        if worker.status in _EXISTING and worker.flavor is not None and worker.is_deployed:
            self._spend(worker.flavor)

    def _spend(self, flavor: Flavor) -> None:
        for region in ("", flavor.region):
            self.spent[flavor.provider, region, "workers"] += 1
            self.spent[flavor.provider, region, "cpu"] += flavor.cpus
            self.spent[flavor.provider, region, "cost"] += flavor.cost or 0.0

    def _workflow(self, step_id: int | None) -> int | None:
        step = self.state.steps.get(step_id) if step_id is not None else None
        return step.workflow_id if step else None

    def _rounds(self, worker: WorkerView, step_id: int) -> float:
        own = self.recruiters.get(worker.recruiter_id or 0)
        chosen = own if own is not None and own.step_id == step_id else next(iter(self.by_step.get(step_id, [])), None)
        return chosen.rounds if chosen else 1.0

    def _covers(self, worker: WorkerView, step_id: int | None) -> float:
        """How many open tasks of its step a worker stands for: as many as it has when it ends too soon for those that are pending."""
        if step_id is None:
            return worker.concurrency
        if not worker.has_time_for(self.state.steps.get(step_id)):
            return worker.held
        return worker.concurrency * self._rounds(worker, step_id)

    def _surplus(self) -> Iterator[WorkerView]:
        """Workers that their own step can spare: with a free slot while nothing is pending there, or still installing beyond its need."""
        for step_id, workers in self.workers_of.items():
            step = self.state.steps.get(step_id) if step_id is not None else None
            uncovered = float(step.open) if step else 0.0
            for worker in workers:
                if worker.status == "ready":
                    if worker.held < max(1, worker.concurrency) and (step is None or step.pending == 0 or step.is_paused):
                        yield worker
                elif uncovered <= 1e-9:
                    yield worker
                uncovered -= self._covers(worker, step_id)

    def run(self) -> Plan:
        for step_id in sorted(self.by_step):
            self._serve(step_id)
        self._release()
        return msgspec.structs.replace(
            self.result, reasons=dict(self.result.reasons), wake_ms=min((wake for wake in self.wakes if wake > self.now_ms), default=None)
        )

    def _serve(self, step_id: int) -> None:
        step = self.state.steps.get(step_id)
        recruiters = self.by_step[step_id]
        if step is None:
            return
        covered = sum(self._covers(worker, step_id) for worker in self.workers_of[step_id])
        uncovered = step.open - covered
        for recruiter in recruiters:
            say = self.result.reasons[recruiter.id]
            if step.open == 0 and step.is_paused and step.pending:
                say.append(f"step {step_id} is paused, or its workflow suspended: its {step.pending} pending tasks cause no deployment")
                continue
            if step.open == 0:
                waiting = f"; {step.blocked} wait for others or are held back, which never causes a deployment" if step.blocked else ""
                say.append(f"no open task in step {step_id}{waiting}")
                continue
            if uncovered <= 1e-9:
                say.append(f"{step.open} open tasks are covered by the step's {len(self.workers_of[step_id])} workers")
                continue
            uncovered = self._take_over(recruiter, step, uncovered)
            if uncovered > 1e-9:
                self.result.unmet.add(recruiter.id)
                uncovered = self._deploy(recruiter, step, uncovered)

    def _limit(self, recruiter: RecruiterView, step: StepView, *, is_own: bool = False) -> str:
        """Why it may have no further worker, empty when it may; `is_own`: a worker that its workflow has already."""
        if recruiter.max_workers is not None and self.of_recruiter[recruiter.id] >= recruiter.max_workers:
            return f"it has its {recruiter.max_workers} workers (--max-workers)"
        most = self.state.workflow_most.get(step.workflow_id or 0)
        if not is_own and most is not None and self.of_workflow[step.workflow_id or 0] >= most:
            return f"the workflow has its {most} workers (--maximum-workers)"
        return ""

    def _take_over(self, recruiter: RecruiterView, step: StepView, uncovered: float) -> float:
        say = self.result.reasons[recruiter.id]
        candidates = []
        for worker in self.free.values():
            if worker.step_id == step.id or worker.flavor is None or worker.is_permanent or worker.scope == "N":
                continue
            is_same = self._workflow(worker.step_id) == step.workflow_id is not None
            if not (is_same or (worker.scope == "G" and not worker.held)) or not passes(recruiter.conditions, worker.flavor):
                continue
            if recruiter.concurrency_on(worker.flavor) > worker.held and worker.has_time_for(step):
                candidates.append((not is_same, worker.status != "ready", worker.held, by_price(worker.flavor), worker.id, worker))
        for is_other, *_, worker in sorted(candidates, key=lambda candidate: candidate[:5]):
            if uncovered <= 1e-9:
                break
            if self._limit(recruiter, step, is_own=not is_other):
                continue
            assert worker.flavor is not None
            concurrency = recruiter.concurrency_on(worker.flavor)
            prefetch = recruiter.prefetch_for(concurrency)
            self.result.takes.append(
                Take(worker_id=worker.id, recruiter_id=recruiter.id, step_id=step.id, concurrency=concurrency, prefetch=prefetch)
            )
            say.append(f"worker {worker.id} has nothing to do and is taken over")
            del self.free[worker.id]
            self.of_recruiter[recruiter.id] += 1
            if worker.recruiter_id is not None:
                self.of_recruiter[worker.recruiter_id] -= 1
            former = self._workflow(worker.step_id)
            if worker.recruiter_id is not None and former is not None:
                self.of_workflow[former] -= 1
            self.of_workflow[step.workflow_id or 0] += 1
            uncovered -= concurrency * recruiter.rounds
        return uncovered

    def _deploy(self, recruiter: RecruiterView, step: StepView, uncovered: float) -> float:
        say = self.result.reasons[recruiter.id]
        since = recruiter.unmet_since_ms if recruiter.unmet_since_ms is not None else self.now_ms
        if self.now_ms < since + recruiter.timeout_ms:
            self.wakes.append(since + recruiter.timeout_ms)
            say.append(
                f"waits {(since + recruiter.timeout_ms - self.now_ms) / 1000:.0f} s more for idle workers or other ranks (--timeout)"
            )
            return uncovered
        if self.now_ms < recruiter.next_try_ms:
            self.wakes.append(recruiter.next_try_ms)
            say.append(f"tries again in {(recruiter.next_try_ms - self.now_ms) / 1000:.0f} s, after a failed deployment")
            return uncovered
        options = self._options(recruiter)
        if step.asks and options:
            options, fitting = _that_fit(options, step.asks)
            if not options:
                say.append(f"no flavor that passes the filter can run its pending tasks, which ask for {step.asks[0]}")
                return uncovered
            left_alone = max(0.0, uncovered - fitting)
            uncovered -= left_alone
        else:
            left_alone = 0.0
        counts: dict[str, int] = defaultdict(int)
        while uncovered > 1e-9:
            limit = self._limit(recruiter, step)
            if limit:
                say.append(f"wants more workers, but {limit}")
                break
            useful = max(1, math.ceil(uncovered / recruiter.rounds - 1e-9))
            chosen = self._cheapest(options, useful)
            if chosen is None:
                say.append(self._why_none(recruiter, options))
                break
            flavor, slots = chosen
            prefetch = recruiter.prefetch_for(slots)
            self.result.deploys.append(
                Deploy(recruiter_id=recruiter.id, step_id=step.id, flavor=flavor, concurrency=slots, prefetch=prefetch)
            )
            counts[f"{flavor.name} of {flavor.provider} in {flavor.region}"] += 1
            self._spend(flavor)
            self.of_recruiter[recruiter.id] += 1
            self.of_workflow[step.workflow_id or 0] += 1
            uncovered -= slots * recruiter.rounds
        say += [f"deploys {count} × {name}" for name, count in counts.items()]
        return uncovered + left_alone

    def _cheapest(self, options: list[tuple[Flavor, int]], useful: int) -> tuple[Flavor, int] | None:
        allowed = [(flavor, slots) for flavor, slots in options if not self._over_quota(flavor)]
        return min(allowed, key=lambda option: _price_of_work(option[0], option[1], useful)) if allowed else None

    def _options(self, recruiter: RecruiterView) -> list[tuple[Flavor, int]]:
        found = []
        for flavor in self.state.flavors:
            until = self.state.set_aside.get(flavor.key, 0)
            slots = recruiter.concurrency_on(flavor)
            if slots and passes(recruiter.conditions, flavor):
                if until > self.now_ms:
                    self.wakes.append(until)
                else:
                    found.append((flavor, slots))
        return found

    def _over_quota(self, flavor: Flavor) -> bool:
        asked = {"workers": 1.0, "cpu": flavor.cpus, "cost": flavor.cost or 0.0}
        return any(
            quota.provider == flavor.provider
            and quota.region in {"", flavor.region}
            and self.spent[quota.provider, quota.region, quota.kind] + asked[quota.kind] > quota.most + 1e-9
            for quota in self.state.quotas
        )

    def _why_none(self, recruiter: RecruiterView, options: list[tuple[Flavor, int]]) -> str:
        if options:
            return f"all {len(options)} flavors that fit are at their quota"
        aside = [flavor for flavor in self.state.flavors if self.state.set_aside.get(flavor.key, 0) > self.now_ms]
        if any(passes(recruiter.conditions, flavor) for flavor in aside):
            return "the flavors that fit are set aside after failed deployments"
        if any(passes(recruiter.conditions, flavor) for flavor in self.state.flavors):
            return "the flavors that pass the filter are too small for one task"
        return "no flavor in the catalogue passes the filter"

    def _release(self) -> None:
        left: dict[int | None, bool] = defaultdict(bool)
        for step in self.state.steps.values():
            left[step.workflow_id] = left[step.workflow_id] or step.pending > 0 or step.blocked > 0
        for worker in self.free.values():
            if worker.recruiter_id is None or worker.is_permanent or not worker.is_deployed:
                continue
            if worker.status == "installing":
                self.result.releases.append(Release(worker_id=worker.id, reason="no longer needed before it was ready"))
            elif not worker.held and worker.idle_since_ms is not None and not left[self._workflow(worker.step_id)] and worker.scope != "G":
                if self.now_ms - worker.idle_since_ms >= self.state.last_idle_ms:
                    self.result.releases.append(Release(worker_id=worker.id, reason="its workflow has no work left for it"))
                else:
                    self.wakes.append(worker.idle_since_ms + self.state.last_idle_ms)
