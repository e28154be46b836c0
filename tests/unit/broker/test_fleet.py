"""What people may ask of workers, recruiters, providers and jobs, by their messages on a real database (contract, sections 13 and 14)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.lib.desk import ADMIN, ALICE, BOB, Desk, HandAgent

from scitq.broker import departures
from scitq.broker.fleet import note_idle, open_up, watch
from scitq.broker.store import flavors, jobs, machines, workers
from scitq.config.schema import Config
from scitq.errors import ConflictError, ForbiddenError, NotFoundError, UsageError
from scitq.protocol.messages import fleet as m
from scitq.protocol.messages import worker as w
from scitq.protocol.messages import workflow as wf
from scitq.protocol.registry import Done
from scitq.util.clock import UnixMs

FLAVORS: dict[str, Any] = {"small": {"cpus": 2, "cost": 1}, "large": {"cpus": 8, "cost": 2}}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "server", Config(providers={"fake": {"main": {"flavors": FLAVORS, "limits": {"workers": 3}}}}))
    open_up(desk.broker)
    provider = desk.broker.providers["fake.main"]
    desk.do(lambda ctx: flavors.replace(ctx.tx, "fake.main", provider.list_flavors(), ctx.now_ms))
    return desk


def step(desk: Desk, owner: Any = ALICE) -> int:
    workflow = desk.send(wf.WorkflowCreate(name=f"of {owner.name}"), wf.WorkflowRow, owner).id
    desk.send(wf.WorkflowAct(action="finalize", id=workflow), wf.GroupActed, owner)
    return desk.send(wf.StepCreate(name="s", workflow_id=workflow), wf.StepRow, owner).id


def deploy(desk: Desk, who: Any = BOB, **more: Any) -> list[int]:
    return desk.send(m.WorkerDeploy(provider="fake.main", flavor="small", **more), m.WorkersDeployed, who).ids


def recruiter(desk: Desk, number: int) -> m.RecruiterRow:
    return desk.send(m.RecruiterList(ids=[number]), m.RecruiterRows).rows[0]


@pytest.mark.parametrize("more", [{"concurrency": 0}, {"concurrency": 10_001}, {"prefetch": -1}, {"prefetch": 10**12}, {"count": 0}])
def test_dep_07_slots_that_no_worker_has_are_refused(desk: Desk, more: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        deploy(desk, **more)
    assert desk.send(w.WorkerList(), w.WorkerRows).rows == []


@pytest.mark.parametrize("more", [{"concurrency": 0}, {"concurrency": 99_999_999}, {"prefetch": -1}])
def test_wkl_03_an_agent_with_slots_that_no_worker_has_is_refused(desk: Desk, more: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        HandAgent(desk, **more)
    assert desk.send(w.WorkerList(), w.WorkerRows).rows == []


def test_dep_03_a_disabled_flavor_is_told_from_an_unknown_one(desk: Desk) -> None:
    desk.send(m.ProviderFlavor(provider="fake.main", flavor="small"), Done, ADMIN)
    with pytest.raises(ConflictError, match="was disabled by an administrator"):
        deploy(desk)
    with pytest.raises(NotFoundError, match="near are small"):
        desk.send(m.WorkerDeploy(provider="fake.main", flavor="smal"), m.WorkersDeployed, BOB)


@pytest.mark.parametrize("name", ["", " a", "a\nb", "7", "x" * 201, "a/b"])
def test_a_worker_has_a_name_that_can_be_shown_and_told_from_an_id(desk: Desk, name: str) -> None:
    agent = HandAgent(desk)
    with pytest.raises(UsageError, match="can't name a worker"):
        desk.send(w.WorkerUpdate(ids=[agent.id], name=name), Done, ADMIN)


def test_dep_06_a_worker_is_put_into_a_step_of_ones_own_only(desk: Desk) -> None:
    own, others = step(desk, BOB), step(desk, ALICE)
    (worker,) = deploy(desk)
    desk.send(w.WorkerUpdate(ids=[worker], step_id=own), Done, BOB)
    with pytest.raises(ForbiddenError):
        desk.send(w.WorkerUpdate(ids=[worker], step_id=others), Done, BOB)
    with pytest.raises(ForbiddenError):
        deploy(desk, step_id=others)
    assert desk.send(w.WorkerList(ids=[worker]), w.WorkerRows).rows[0].step_id == own
    desk.send(w.WorkerUpdate(ids=[worker], step_id=others), Done, ADMIN)
    desk.send(w.WorkerUpdate(ids=[worker], step_id=0), Done, BOB)


def test_del_03_a_worker_is_deleted_as_often_as_one_likes(desk: Desk) -> None:
    agent = HandAgent(desk)
    for _ in range(2):
        desk.send(w.WorkerAct(ids=[agent.id], action="delete"), Done, ADMIN)
    with pytest.raises(NotFoundError):
        desk.send(w.WorkerAct(ids=[agent.id], action="drain"), Done, ADMIN)
    with pytest.raises(NotFoundError):
        desk.send(w.WorkerAct(ids=[999], action="delete"), Done, ADMIN)


def test_provider_list_counts_machines_and_agents_started_by_hand(desk: Desk) -> None:
    HandAgent(desk, "w1")
    HandAgent(desk, "w2", provider="fake.main")
    deploy(desk, count=2)
    rows = desk.send(m.ProviderList(), m.ProviderRows).rows
    assert {row.name: row.workers for row in rows} == {"fake.main": 3, "local.local": 1}


def test_limits_are_listed_by_provider_and_what_was_set_gives_way_to_the_file_again(desk: Desk) -> None:
    def limits(provider: str | None = None) -> list[tuple[str, str, float]]:
        return [(row.provider, row.kind, row.most) for row in desk.send(m.ProviderQuotas(provider=provider), m.QuotaRows).rows]

    desk.send(m.ProviderQuota(provider="fake.main", most=9), Done, ADMIN)
    desk.send(m.ProviderQuota(provider="local.local", kind="cpu", most=2), Done, ADMIN)
    assert limits() == [("fake.main", "workers", 9), ("local.local", "cpu", 2)]
    assert limits("Fake.main") == [("fake.main", "workers", 9)]
    desk.send(m.ProviderQuota(provider="fake.main"), Done, ADMIN)
    assert limits("fake.main") == [("fake.main", "workers", 3)]
    with pytest.raises(NotFoundError):
        limits("nobody.none")
    with pytest.raises(UsageError):
        desk.send(m.ProviderQuota(provider="fake.main", most=float("nan")), Done, ADMIN)


@pytest.mark.parametrize(
    "values",
    [
        {"concurrency": 2, "cpus_per_task": 1.0},
        {"concurrency": 2, "concurrency_max": 4},
        {"concurrency_min": 2},
        {"cpus_per_task": 1.0, "concurrency_min": 3, "concurrency_max": 2},
        {"cpus_per_task": float("inf")},
        {"rounds": float("nan")},
        {"prefetch": 1, "prefetch_percent": 50},
        {"prefetch_percent": 10_001},
        {"concurrency": 10_001},
        {"max_workers": -1},
    ],
)
def test_a_recruiter_that_can_not_be_meant_is_refused(desk: Desk, values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        desk.send(m.RecruiterCreate(step_id=step(desk), **values), m.RecruiterRow)


def test_what_is_said_of_a_recruiter_replaces_what_it_excludes_and_leaves_the_rest(desk: Desk) -> None:
    number = desk.send(
        m.RecruiterCreate(step_id=step(desk), rank=4, cpus_per_task=2, concurrency_min=2, concurrency_max=6, prefetch_percent=50, rounds=3),
        m.RecruiterRow,
    ).id  # fmt: skip
    desk.send(m.RecruiterUpdate(id=number, prefetch=1), Done)
    row = recruiter(desk, number)
    assert (row.prefetch, row.prefetch_percent, row.concurrency_max, row.rank, row.rounds) == (1, None, 6, 4, 3)
    desk.send(m.RecruiterUpdate(id=number, concurrency=5), Done)
    row = recruiter(desk, number)
    assert (row.concurrency, row.cpus_per_task, row.concurrency_min, row.concurrency_max) == (5, None, 1, None)
    with pytest.raises(UsageError, match="adapts to the flavor"):
        desk.send(m.RecruiterUpdate(id=number, concurrency_max=9), Done)
    desk.send(m.RecruiterUpdate(id=number, mem_per_task_gib=4, concurrency_max=9, prefetch_percent=20), Done)
    row = recruiter(desk, number)
    assert (row.concurrency, row.mem_per_task_gib, row.concurrency_max, row.prefetch, row.prefetch_percent) == (None, 4, 9, 0, 20)


def test_a_job_that_is_done_stays_done(desk: Desk) -> None:
    (worker,) = deploy(desk)
    (job,) = desk.send(m.JobList(worker_id=worker), m.JobRows).rows
    desk.do(lambda ctx: jobs.end(ctx.tx, job.id, "done", ctx.now_ms, ""))
    for action in ("delete", "retry"):
        with pytest.raises(ConflictError, match=f"job {job.id} is done"):
            desk.send(m.JobAct(ids=[job.id], action=action), Done, ADMIN)
    with pytest.raises(ForbiddenError):
        desk.send(m.JobAct(ids=[job.id], action="delete"), Done, ALICE)


def test_a_worker_whose_tasks_are_shorter_than_the_watchdogs_round_has_worked_and_is_not_idle(desk: Desk) -> None:
    agent = HandAgent(desk)

    def idle_ms() -> int | None:
        desk.now = UnixMs(desk.now + 10_000)
        desk.do(note_idle)
        since = desk.broker.idle_since.get(agent.id)
        return None if since is None else desk.now - since

    assert [idle_ms(), idle_ms()] == [0, 10_000]
    (task,) = desk.create()
    desk.schedule()
    agent.start(task)
    agent.tell(task, "ended_well")
    assert idle_ms() is None
    assert [idle_ms(), idle_ms()] == [0, 10_000]
    stored = workers.get(desk.store.writer, agent.id)
    assert stored is not None
    assert stored.worked_ms is not None


def machine_of(desk: Desk, worker_id: int) -> str:
    stored = workers.get(desk.store.writer, worker_id)
    assert stored is not None
    assert stored.machine is not None
    return stored.machine


def standing(desk: Desk, worker_id: int) -> tuple[str, str]:
    row = desk.send(w.WorkerList(ids=[worker_id]), w.WorkerRows).rows[0]
    return row.status, row.reason


def after(desk: Desk, minutes: float) -> None:
    """Let so much time go by, with the watchdog's look at its beginning and its end."""
    desk.do(watch)
    desk.now = UnixMs(desk.now + round(minutes * 60_000))
    desk.do(watch)


@pytest.fixture
def deployed(desk: Desk) -> HandAgent:
    """A worker that was deployed and has reported."""
    (worker,) = deploy(desk)
    agent = HandAgent(desk, "deployed", machine=machine_of(desk, worker))
    assert (agent.id, standing(desk, worker)[0]) == (worker, "ready")
    return agent


def test_the_watchdog_releases_what_never_worked(desk: Desk, deployed: HandAgent) -> None:
    after(desk, 14.9)
    assert standing(desk, deployed.id)[0] == "ready"
    after(desk, 0.2)
    assert standing(desk, deployed.id) == ("deleting", "it had no task for 900 s and never had any")


def test_the_watchdog_releases_what_idles_sooner_and_leaves_what_is_permanent(desk: Desk, deployed: HandAgent) -> None:
    (task,) = desk.create()
    desk.schedule()
    deployed.start(task)
    after(desk, 60)
    assert standing(desk, deployed.id)[0] == "ready"
    deployed.tell(task, "ended_well")
    after(desk, 0)
    desk.send(w.WorkerUpdate(ids=[deployed.id], is_permanent=True), Done, BOB)
    after(desk, 60)
    assert standing(desk, deployed.id)[0] == "ready"
    desk.send(w.WorkerUpdate(ids=[deployed.id], is_permanent=False), Done, BOB)
    after(desk, 0)
    assert standing(desk, deployed.id) == ("deleting", "it had no task for 300 s")


def test_the_watchdog_deletes_what_is_offline_for_too_long(desk: Desk, deployed: HandAgent) -> None:
    desk.do(lambda ctx: departures.go_offline(ctx, deployed.id, "silent"))
    after(desk, 9.9)
    assert standing(desk, deployed.id)[0] == "offline"
    after(desk, 0.2)
    assert standing(desk, deployed.id) == ("deleting", "it was offline for 600 s")


def test_the_watchdog_gives_up_machines_whose_agent_does_not_report(desk: Desk) -> None:
    queued, begun = deploy(desk, count=2)
    for worker, has_begun in ((queued, False), (begun, True)):
        name = machine_of(desk, worker)
        desk.do(lambda ctx, name=name, has_begun=has_begun: machines.set_made(ctx.tx, name, "x", ctx.now_ms, has_begun=has_begun))
    after(desk, 29.9)
    assert [standing(desk, worker)[0] for worker in (queued, begun)] == ["installing", "installing"]
    after(desk, 0.2)
    assert standing(desk, queued)[0] == "installing"
    assert standing(desk, begun) == ("failed", "fake.main: its agent did not report within 1800 s")


def test_the_watchdog_leaves_agents_alone_that_were_started_by_hand(desk: Desk) -> None:
    agent = HandAgent(desk)
    after(desk, 1000)
    assert standing(desk, agent.id)[0] == "ready"


def test_a_simulation_takes_a_concurrency_or_what_a_task_needs(desk: Desk) -> None:
    asked = m.RecruiterSimulate(steps=[(4, 60.0, False)], concurrency=2)
    assert desk.send(asked, m.RecruiterSimulated).machines_made == 2
    with pytest.raises(UsageError, match="not both"):
        desk.send(msgspec.structs.replace(asked, cpus_per_task=1.0), m.RecruiterSimulated)


@pytest.mark.parametrize(
    "more",
    [
        {"steps": [(1, float("inf"), False)]},
        {"steps": [(1, float("nan"), False)]},
        {"steps": []},
        {"delay_s": float("inf")},
        {"delay_s": -1.0},
        {"fail_percent": float("nan")},
        {"fail_percent": 100.0},
        {"evictions_per_hour": 1e9},
    ],
)
def test_a_simulation_that_would_never_end_is_refused(desk: Desk, more: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        desk.send(m.RecruiterSimulate(**({"steps": [(1, 60.0, False)]} | more)), m.RecruiterSimulated)
