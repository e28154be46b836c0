"""The broker's rules about workers: capacity, loss, fencing, being set aside."""

from __future__ import annotations

import pytest
from tests.lib.desk import ADMIN, ALICE, WORKER, Desk, HandAgent

from scitq.broker import departures
from scitq.errors import ConflictError, ForbiddenError, UsageError
from scitq.model.task import NewTask, TaskSpec
from scitq.protocol.messages import agent as am
from scitq.protocol.messages import task as tm
from scitq.protocol.messages import worker as m
from scitq.protocol.registry import Done
from scitq.util.clock import monotonic_s


def row(desk: Desk, worker_id: int) -> m.WorkerRow:
    return desk.send(m.WorkerList(ids=[worker_id]), m.WorkerRows).rows[0]


def test_dep_09_concurrency_one_and_prefetch_one_hold_two_of_three(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=1, prefetch=1)
    ids = desk.create(*[NewTask() for _ in range(3)])
    assert len(desk.schedule()) == 2
    agent.start(ids[0])
    agent.tell(ids[1], "accept", "fetch", "fetched")
    assert desk.status(*ids) == "ROP"
    agent.tell(ids[0], "ended_well")
    agent.tell(ids[1], "start")
    assert [made.task_id for made in desk.schedule()] == [ids[2]]


def test_what_tasks_ask_for_is_reserved_on_the_worker(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=10, cpus=4, mem=8)
    big = TaskSpec(container="bare", command="x", cpus=3)
    small = TaskSpec(container="bare", command="x", cpus=1)
    desk.create(NewTask(), NewTask(), spec=big)
    (little,) = desk.create(spec=small)
    assert [made.task_id for made in desk.schedule()] == [1, little]
    agent.start(1)
    agent.tell(1, "ended_well")
    assert [made.task_id for made in desk.schedule()] == [2]
    (never,) = desk.create(spec=TaskSpec(container="bare", command="x", mem_gib=64))
    assert desk.schedule() == []
    said = desk.send(tm.TaskExplain(id=never), tm.TaskExplained).reasons[0]
    assert "needs 64 GiB" in said
    assert "has 8" in said


def test_requests_are_counted_like_any_other_thing(desk: Desk) -> None:
    hardware = am.Hardware(cpus=8, mem_gib=8, disk_gb=10, requests={"licence": 1})
    agent = HandAgent(desk, concurrency=4)
    desk.send(am.AgentRegister(uid="w1", name="w1", host="h", hardware=hardware, runtimes=["bare"]), am.Registered, WORKER, agent.peer)
    desk.create(NewTask(), NewTask(), spec=TaskSpec(container="bare", command="x", requests={"licence": 1}))
    assert len(desk.schedule()) == 1


def test_a_task_with_a_time_request_is_not_given_to_a_worker_that_ends_before(desk: Desk) -> None:
    HandAgent(desk, seconds_left=100)
    desk.create(spec=TaskSpec(container="bare", command="x", time_request_s=200))
    assert desk.schedule() == []
    desk.create(spec=TaskSpec(container="bare", command="x", time_request_s=50))
    assert len(desk.schedule()) == 1


def test_bare_tasks_and_containers_go_where_they_can_run(desk: Desk) -> None:
    HandAgent(desk, "nobare", allows_bare=False)
    desk.create()
    assert desk.schedule() == []
    desk.create(spec=TaskSpec(container="alpine", command="true"))
    assert len(desk.schedule()) == 1


def test_decision_8_a_lost_worker_gives_back_what_had_not_started_and_fails_what_had(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=6)
    ids = desk.create(*[NewTask() for _ in range(6)])
    desk.schedule()
    for task_id, kinds in zip(ids, [[], ["accept"], ["accept", "fetch"], ["accept", "fetch", "fetched"]], strict=False):
        if kinds:
            agent.tell(task_id, *kinds)
    agent.start(ids[4])
    agent.start(ids[5])
    agent.tell(ids[5], "exited_well")
    desk.do(lambda ctx: departures.lose_tasks(ctx, agent.id, "worker lost"))
    assert desk.status(*ids) == "PPPPFF"
    assert desk.show(ids[4]).row.reason == "worker lost"
    assert [desk.task(task_id).attempt for task_id in ids[:4]] == [2, 2, 2, 2]
    answer = agent.tell(ids[4], "ended_well")
    assert answer.stale == [(ids[4], 1)]


def test_decision_8_three_lost_workers_end_the_retries_and_evictions_do_not_count(desk: Desk) -> None:
    def run_and_lose(name: str, *, is_eviction: bool) -> None:
        agent = HandAgent(desk, name)
        (made,) = desk.schedule()
        agent.start(made.task_id)
        desk.do(lambda ctx: departures.forget(ctx, agent.id, "worker lost", is_eviction=is_eviction))

    desk.create(NewTask(retries=10))
    for number in range(5):
        run_and_lose(f"e{number}", is_eviction=True)
    last = desk.send(tm.TaskList(), tm.TaskRows).rows[0]
    assert desk.show(last.id).retries_left == 10
    for number in range(3):
        run_and_lose(f"l{number}", is_eviction=False)
    HandAgent(desk, "fresh")
    assert desk.schedule() == []


def test_silence_shows_offline_first_and_loses_the_tasks_only_later(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=2)
    running, offered = desk.create(NewTask(), NewTask())
    desk.schedule()
    agent.start(running)
    now_s = monotonic_s()
    desk.do(lambda ctx: departures.watch(ctx, now_s + desk.broker.offline_after_s + 1))
    assert row(desk, agent.id).status == "offline"
    assert desk.status(running, offered) == "RP"
    desk.do(lambda ctx: departures.watch(ctx, now_s + 61))
    assert desk.status(running) == "R", "a cut of one minute harms nothing"
    desk.do(lambda ctx: departures.watch(ctx, now_s + desk.broker.lost_after_s + 1))
    assert desk.status(running) == "F"


def test_srv_04_an_agent_that_comes_back_goes_on_with_what_it_has(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=2)
    running, offered = desk.create(NewTask(), NewTask())
    desk.schedule()
    agent.start(running)
    now_s = monotonic_s()
    desk.do(lambda ctx: departures.watch(ctx, now_s + desk.broker.offline_after_s + 1))
    held = [am.Held(task_id=running, attempt=1, status="R"), am.Held(task_id=offered, attempt=1, status="C")]
    again = desk.send(
        am.AgentRegister(uid="w1", name="w1", host="h", hardware=am.Hardware(cpus=8, mem_gib=8, disk_gb=1), runtimes=["bare"], held=held),
        am.Registered, WORKER, b"new",
    )  # fmt: skip
    assert again.worker_id == agent.id
    assert again.unwanted == [(offered, 1)]
    assert (row(desk, agent.id).status, desk.status(running)) == ("ready", "R")


def test_srv_03_an_agent_started_anew_without_its_tasks_has_lost_them(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=2)
    running, offered = desk.create(NewTask(), NewTask())
    desk.schedule()
    agent.start(running)
    desk.send(agent.message, am.Registered, WORKER, b"again")
    assert desk.status(running, offered) == "FP"


def test_an_offer_that_never_arrived_is_sent_again(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create()
    desk.schedule()
    desk.broker.fleet.workers[agent.id].held[task_id].assigned_s -= 10
    agent.report(held=[])
    assert agent.offers() == [task_id]


def test_what_an_agent_does_not_name_any_more_is_lost_after_some_heartbeats(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create()
    desk.schedule()
    agent.start(task_id)
    desk.broker.fleet.workers[agent.id].held[task_id].assigned_s -= 10
    for _ in range(2):
        agent.report(held=[])
        assert desk.status(task_id) == "R"
    agent.report(held=[])
    assert desk.status(task_id) == "F"


def test_a_worker_that_declines_is_left_alone_for_a_while(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create()
    desk.schedule()
    agent.tell(task_id, "decline", reason="no room")
    assert desk.schedule() == []
    other = HandAgent(desk, "w2")
    assert [made.task_id for made in desk.schedule()] == [task_id]
    assert desk.task(task_id).worker_id == other.id


def test_a_worker_whose_own_faults_fail_tasks_in_a_row_is_set_aside(desk: Desk) -> None:
    agent = HandAgent(desk)
    desk.create(*[NewTask() for _ in range(10)])
    for _ in range(5):
        (made,) = desk.schedule()
        agent.tell(made.task_id, "accept", "fail", reason="disk full", is_own_fault=True)
    assert desk.schedule() == []
    shown = row(desk, agent.id)
    assert shown.status == "paused"
    assert "disk full" in shown.reason
    desk.send(m.WorkerAct(ids=[agent.id], action="resume"), Done, ADMIN)
    assert len(desk.schedule()) == 1


def test_failures_of_the_tasks_own_do_not_set_a_worker_aside(desk: Desk) -> None:
    agent = HandAgent(desk)
    desk.create(*[NewTask() for _ in range(10)])
    for _ in range(9):
        (made,) = desk.schedule()
        agent.tell(made.task_id, "accept", "fail", reason="no such file")
    assert len(desk.schedule()) == 1


def test_workers_are_changed_while_they_work_and_told_so(desk: Desk) -> None:
    agent = HandAgent(desk)
    desk.create(*[NewTask() for _ in range(5)])
    assert len(desk.schedule()) == 1
    desk.send(m.WorkerUpdate(ids=[agent.id], concurrency=3), Done, ADMIN)
    assert agent.orders() == [("settings", 0)]
    assert len(desk.schedule()) == 2
    with pytest.raises(UsageError):
        desk.send(m.WorkerUpdate(ids=[agent.id], concurrency=0), Done, ADMIN)
    with pytest.raises(ForbiddenError):
        desk.send(m.WorkerUpdate(ids=[agent.id], concurrency=1), Done, ALICE)


def test_drain_gives_no_new_tasks_and_lets_the_old_ones_end(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=2)
    first, _ = desk.create(NewTask(), NewTask(depends_on_new=(0,)))
    desk.schedule()
    desk.send(m.WorkerAct(ids=[agent.id], action="drain"), Done, ADMIN)
    agent.start(first)
    agent.tell(first, "ended_well")
    assert (desk.schedule(), row(desk, agent.id).status) == ([], "draining")
    desk.send(m.WorkerAct(ids=[agent.id], action="resume"), Done, ADMIN)
    assert len(desk.schedule()) == 1


def test_del_02_a_deleted_worker_interrupts_its_tasks_and_its_agent_must_end(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=2)
    running, offered = desk.create(NewTask(), NewTask())
    desk.schedule()
    agent.start(running)
    desk.send(m.WorkerAct(ids=[agent.id], action="delete"), Done, ADMIN)
    assert desk.status(running, offered) == "FP"
    assert agent.orders()[-1][0] == "quit"
    assert desk.send(m.WorkerList(), m.WorkerRows).rows == []
    with pytest.raises(ConflictError, match="was deleted"):
        desk.send(
            am.AgentRegister(uid="w1", name="w1", host="h", hardware=am.Hardware(cpus=1, mem_gib=1, disk_gb=1), is_first=False),
            am.Registered,
            WORKER,
            b"x",
        )
    fresh = HandAgent(desk)
    assert fresh.id != agent.id


def test_goodbye_gives_back_and_loses_and_shows_offline(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=2)
    running, offered = desk.create(NewTask(), NewTask())
    desk.schedule()
    agent.start(running)
    desk.send(am.AgentGoodbye(reason="stopped"), Done, WORKER, agent.peer)
    assert desk.status(running, offered) == "FP"
    assert row(desk, agent.id).status == "offline"


def test_stt_figures_come_in_the_order_asked_with_their_age(desk: Desk) -> None:
    first, second = HandAgent(desk, "a"), HandAgent(desk, "b")
    second.report(stats=am.Stats(cpu_percent=50.0))
    rows = desk.send(m.WorkerStats(ids=[second.id, first.id]), m.WorkerStatsRows).rows
    assert [entry.id for entry in rows] == [second.id, first.id]
    assert rows[0].stats is not None
    assert rows[0].stats.cpu_percent == 50.0
    assert rows[0].age_ms is not None
    assert rows[1].stats is None


def test_a_thousand_tasks_spread_over_workers_evenly(desk: Desk) -> None:
    agents = [HandAgent(desk, f"w{number}", concurrency=4) for number in range(50)]
    desk.create(*[NewTask() for _ in range(100)])
    desk.schedule()
    held = [len(desk.broker.fleet.workers[agent.id].held) for agent in agents]
    assert set(held) == {2}


def test_more_than_one_pass_can_pair_is_paired_by_the_next(desk: Desk) -> None:
    HandAgent(desk, concurrency=450)
    desk.create(*[NewTask() for _ in range(500)])
    paired = []
    while desk.broker.ready.changed or desk.broker.fleet.touched:
        paired.append(len(desk.schedule()))
    assert paired == [200, 200, 50]
