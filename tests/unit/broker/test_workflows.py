"""Workflows and steps, by their messages on a real database (contract CRE-2, LST-6, section 10 letter I)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.lib.desk import ADMIN, ALICE, BOB, Desk, HandAgent

from scitq.broker.context import Park, Reading
from scitq.broker.handlers import workflow as handlers
from scitq.errors import ConflictError, ForbiddenError, NotFoundError, UsageError
from scitq.model.task import NewTask, TaskSpec, Use
from scitq.protocol.messages import workflow as m
from scitq.protocol.messages.fleet import RecruiterCreate, RecruiterList, RecruiterRow, RecruiterRows
from scitq.protocol.messages.task import TaskAct, TaskActed, TaskList, TaskRetried, TaskRetry, TaskRows
from scitq.protocol.messages.worker import WorkerUpdate
from scitq.protocol.registry import Done
from scitq.util.clock import monotonic_s


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "server")


def _workflow(desk: Desk, name: str = "w", *, is_open: bool = False) -> m.WorkflowRow:
    row = desk.send(m.WorkflowCreate(name=name), m.WorkflowRow)
    return row if is_open else _act(desk, "finalize", row.id) and row


def _act(desk: Desk, action: str, number: int, who=ALICE) -> m.GroupActed:
    return desk.send(m.WorkflowAct(action=action, id=number), m.GroupActed, who)


def _step(desk: Desk, workflow: m.WorkflowRow, name: str = "s", retries: int = 0) -> int:
    return desk.send(m.StepCreate(name=name, workflow_id=workflow.id, retries=retries), m.StepRow).id


def _status(desk: Desk, number: int) -> str:
    return desk.send(m.WorkflowShow(id=number), m.WorkflowDetails).workflow.status


def test_i_tasks_of_an_open_workflow_are_inactive_until_it_is_finalized(desk: Desk) -> None:
    workflow = _workflow(desk, is_open=True)
    step = _step(desk, workflow)
    first = desk.create(NewTask(step_id=step))[0]
    second = desk.create(NewTask(step_id=step, depends_on=(first,)))[0]
    agent = HandAgent(desk)
    desk.send(m.StepShow(id=step), m.StepRow)
    assert desk.status(first, second) == "II"
    assert desk.schedule() == []
    assert (_status(desk, workflow.id), workflow.status) == ("open", "open")
    done = _act(desk, "finalize", workflow.id)
    assert (done.changed, done.remaining, done.status) == (2, 0, "running")
    assert desk.status(first, second) == "PW"
    assert _act(desk, "finalize", workflow.id).changed == 0
    assert agent.id


def test_finalizing_goes_on_in_pieces(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handlers, "MOST_AT_ONCE", 2)
    workflow = _workflow(desk, is_open=True)
    desk.create(*[NewTask(step_id=_step(desk, workflow))] * 5)
    left = []
    while not left or left[-1]:
        left.append(_act(desk, "finalize", workflow.id).remaining)
    assert left == [1, 1, 0]
    assert _status(desk, workflow.id) == "running"


def test_cre_02_a_worker_of_a_step_takes_only_that_steps_tasks(desk: Desk) -> None:
    workflow = _workflow(desk)
    steps = [_step(desk, workflow, name) for name in ("a", "b")]
    ids = [desk.create(NewTask(step_id=step))[0] for step in (steps[0], steps[1], None)]
    plain = HandAgent(desk, "plain", concurrency=5)
    assert [made.task_id for made in desk.schedule()] == [ids[2]]

    of_b = HandAgent(desk, "of-b", concurrency=5)
    desk.send(WorkerUpdate(ids=[of_b.id], step_id=steps[1]), Done, ADMIN)
    assert [made.task_id for made in desk.schedule()] == [ids[1]]
    assert desk.status(*ids) == "PAA"
    assert plain.id != of_b.id


def test_lst_06_tasks_are_listed_by_step_and_by_workflow(desk: Desk) -> None:
    workflow, other = _workflow(desk, "a"), _workflow(desk, "b")
    first, second, third = _step(desk, workflow, "x"), _step(desk, workflow, "y"), _step(desk, other, "x")
    ids = [desk.create(NewTask(step_id=step))[0] for step in (first, second, third)]
    desk.create()
    assert [row.id for row in desk.send(TaskList(step_id=second), TaskRows).rows] == [ids[1]]
    assert [row.id for row in desk.send(TaskList(workflow_id=workflow.id), TaskRows).rows] == [ids[1], ids[0]]


def test_a_paused_step_gives_no_tasks_until_it_is_resumed(desk: Desk) -> None:
    workflow = _workflow(desk)
    step = _step(desk, workflow)
    task = desk.create(NewTask(step_id=step))[0]
    agent = HandAgent(desk)

    desk.send(m.StepAct(id=step, action="pause"), m.GroupActed)
    desk.send(WorkerUpdate(ids=[agent.id], step_id=step), Done, ADMIN)
    assert desk.schedule() == []
    again = desk.restarted()
    assert again.schedule() == []
    again.send(m.StepAct(id=step, action="resume"), m.GroupActed)
    HandAgent(again)
    assert [made.task_id for made in again.schedule()] == [task]


def test_suspending_and_resuming_a_workflow_holds_all_its_tasks(desk: Desk) -> None:
    workflow = _workflow(desk)
    step = _step(desk, workflow)
    first = desk.create(NewTask(step_id=step))[0]
    second = desk.create(NewTask(step_id=step, depends_on=(first,)))[0]
    assert _act(desk, "suspend", workflow.id).changed == 2
    assert desk.status(first, second) == "ZZ"
    later = desk.create(NewTask(step_id=step))[0]
    assert desk.status(later) == "Z"
    assert _status(desk, workflow.id) == "suspended"
    assert _act(desk, "resume", workflow.id).changed == 3
    assert desk.status(first, second, later) == "PWP"


def test_cancelling_a_workflow_takes_all_back_and_ends_it_for_good(desk: Desk) -> None:
    workflow = _workflow(desk)
    step = _step(desk, workflow)
    ids = desk.create(*[NewTask(step_id=step)] * 3)
    assert _act(desk, "cancel", workflow.id).changed == 3
    assert desk.status(*ids) == "XXX"
    assert _status(desk, workflow.id) == "canceled"
    for forbidden in (
        lambda: desk.create(NewTask(step_id=step)),
        lambda: _act(desk, "resume", workflow.id),
        lambda: _step(desk, workflow, "t"),
    ):
        with pytest.raises(ConflictError):
            forbidden()
    assert _act(desk, "cancel", workflow.id).changed == 0


def _finish(desk: Desk, step: int, agent: HandAgent, kind: str, **more) -> int:
    (made,) = desk.schedule()
    agent.start(made.task_id)
    agent.tell(made.task_id, kind, **more)
    return made.task_id


@pytest.fixture
def manned(desk: Desk) -> tuple[Desk, m.WorkflowRow, int, HandAgent]:

    workflow = _workflow(desk)
    step = _step(desk, workflow)
    agent = HandAgent(desk)
    desk.send(WorkerUpdate(ids=[agent.id], step_id=step), Done, ADMIN)
    return desk, workflow, step, agent


def test_a_workflow_is_over_when_all_succeeded_or_the_rest_waits_for_what_failed(manned) -> None:
    desk, workflow, step, agent = manned
    assert _status(desk, workflow.id) == "empty"
    first = desk.create(NewTask(step_id=step))[0]
    second = desk.create(NewTask(step_id=step, depends_on=(first,)))[0]
    waiting = m.WorkflowWait(id=workflow.id, at_most_s=0)
    assert not desk.send(waiting, m.WorkflowWaited).is_over
    with pytest.raises(AssertionError, match="parked"):
        desk.send(m.WorkflowWait(id=workflow.id, at_most_s=5), m.WorkflowWaited)
    assert _finish(desk, step, agent, "ended_badly", exit_status=3) == first
    over = desk.send(m.WorkflowWait(id=workflow.id, at_most_s=5), m.WorkflowWaited)
    assert (over.is_over, over.status, over.counts) == (True, "failed", {"F": 1, "W": 1})
    retried = desk.send(m.StepAct(id=step, action="retry"), m.GroupActed)
    assert (retried.changed, retried.remaining, len(retried.ids)) == (1, 0, 1)
    assert _status(desk, workflow.id) == "running"
    assert [_finish(desk, step, agent, "ended_well", exit_status=0) for _ in range(2)] == [retried.ids[0], second]
    assert _status(desk, workflow.id) == "succeeded"


def test_i_a_task_retried_in_an_open_workflow_is_inactive_like_a_new_one(desk: Desk) -> None:
    workflow = _workflow(desk, is_open=True)
    step = _step(desk, workflow)
    (task,) = desk.create(NewTask(step_id=step))
    desk.send(TaskAct(ids=[task], action="cancel"), TaskActed)
    (again,) = desk.send(TaskRetry(ids=[task]), TaskRetried).ids
    assert desk.status(again) == "I"
    _act(desk, "finalize", workflow.id)
    assert desk.status(again) == "P"


def test_nothing_of_a_suspended_workflow_becomes_pending(manned) -> None:
    desk, workflow, step, agent = manned
    desk.send(WorkerUpdate(ids=[agent.id], concurrency=3), Done, ADMIN)
    bad, good = desk.create(NewTask(step_id=step, retries=1), NewTask(step_id=step))
    desk.schedule()
    agent.start(bad)
    agent.start(good)
    agent.tell(bad, "exited_badly", exit_status=1)
    agent.tell(good, "exited_well", exit_status=0)
    assert desk.status(bad, good) == "VU"
    _act(desk, "suspend", workflow.id)
    (late,) = desk.create(NewTask(step_id=step, depends_on=(good,)))
    assert desk.status(late) == "W"
    agent.tell(bad, "uploaded")
    agent.tell(good, "uploaded")
    again = desk.show(bad).row.successor_id
    assert desk.status(bad, good, again, late) == "FSZZ"
    assert desk.schedule() == []
    _act(desk, "resume", workflow.id)
    assert desk.status(again, late) == "PP"


def test_nothing_of_a_canceled_workflow_is_retried(manned) -> None:
    desk, workflow, step, agent = manned
    first, second = desk.create(NewTask(step_id=step, retries=3), NewTask(step_id=step))
    desk.schedule()
    agent.start(first)
    agent.tell(first, "exited_badly", exit_status=1)
    _act(desk, "cancel", workflow.id)
    agent.tell(first, "uploaded")
    assert (desk.status(first, second), desk.show(first).row.successor_id) == ("FX", None)
    for task in (first, second):
        with pytest.raises(ConflictError, match="is canceled"):
            desk.send(TaskRetry(ids=[task]), TaskRetried)
    with pytest.raises(ConflictError, match="is canceled"):
        desk.send(m.StepAct(id=step, action="retry"), m.GroupActed)


def test_a_steps_retries_are_its_tasks(manned) -> None:
    desk, _, step, agent = manned
    desk.send(m.StepUpdate(id=step, retries=1), m.StepRow)
    first = desk.create(NewTask(step_id=step))[0]
    _finish(desk, step, agent, "ended_badly", exit_status=1)
    again = desk.show(first).row.successor_id
    assert desk.status(again) == "P"
    _finish(desk, step, agent, "ended_badly", exit_status=1)
    assert desk.status(again) == "F"


def test_step_stats_count_and_measure_and_total(manned) -> None:
    desk, workflow, step, agent = manned
    other = _step(desk, workflow, "t")
    desk.create(*[NewTask(step_id=step)] * 3)
    desk.create(NewTask(step_id=other))
    use = Use(cpu_s=2.0, peak_memory_bytes=100, downloaded_bytes=7)
    _finish(desk, step, agent, "ended_well", exit_status=0, use=use)
    _finish(desk, step, agent, "ended_badly", exit_status=1)
    rows = desk.send(m.StepStatsAsk(workflow_id=workflow.id, with_totals=True), m.StepStatsRows).rows
    assert [(row.id, row.name, row.counts) for row in rows] == [
        (step, "s", {"F": 1, "P": 1, "S": 1}),
        (other, "t", {"P": 1}),
        (0, "total", {"F": 1, "P": 2, "S": 1}),
    ]
    assert (rows[0].succeeded_s.count, rows[0].failed_s.count, rows[1].succeeded_s.count) == (1, 1, 0)
    assert (rows[2].cpu_s.most, rows[2].memory_bytes.mean, rows[2].downloaded_bytes) == (2.0, 100.0, 7)
    assert desk.send(m.StepStatsAsk(ids=[other]), m.StepStatsRows).rows[0].id == other


def test_workflow_repeat_makes_a_task_anew_with_other_content_and_more_to_wait_for(manned) -> None:
    desk, _, step, agent = manned
    first = desk.create(NewTask(step_id=step))[0]
    _finish(desk, step, agent, "ended_well", exit_status=0)
    second = desk.create(NewTask(step_id=step, depends_on=(first,)))[0]
    _finish(desk, step, agent, "ended_well", exit_status=0)
    more = desk.create(NewTask(step_id=step))[0]
    spec = TaskSpec(container="bare", command="echo other")
    made = desk.send(m.WorkflowRepeat(tasks=[m.Again(id=second, spec=spec, retries=2, depends_on=[first, more])]), m.TasksRepeated).ids[0]
    details = desk.show(made)
    assert (details.row.status, details.spec.command, details.retries_left, details.depends_on) == ("W", "echo other", 2, [first, more])
    assert (desk.show(second).row.successor_id, desk.show(second).spec.command) == (made, "true")
    _finish(desk, step, agent, "ended_well", exit_status=0)
    assert [each.task_id for each in desk.schedule()] == [made]
    with pytest.raises(ConflictError, match="with a worker"):
        desk.send(m.WorkflowRepeat(tasks=[m.Again(id=made, spec=spec)]), m.TasksRepeated)


def test_workflow_repeat_of_a_task_that_has_not_started_queues_it_with_its_new_needs(manned) -> None:
    desk, _, step, agent = manned
    task = desk.create(NewTask(step_id=step))[0]
    spec = TaskSpec(container="bare", command="true", cpus=4)
    made = desk.send(m.WorkflowRepeat(tasks=[m.Again(id=task, spec=spec)]), m.TasksRepeated).ids[0]
    assert desk.status(task, made) == "XP"
    assert [each.task_id for each in desk.schedule()] == [made]
    assert desk.broker.fleet.workers[agent.id].held[made].needs.cpus == 4


def test_names_are_ones_own_and_found_by_others_when_they_are_the_only_ones(desk: Desk) -> None:
    mine = _workflow(desk, "x")
    with pytest.raises(ConflictError, match="you have a workflow named 'x' already"):
        desk.send(m.WorkflowCreate(name="x"), m.WorkflowRow)
    shown = desk.send(m.WorkflowShow(name="x"), m.WorkflowDetails, BOB)
    assert shown.workflow.id == mine.id
    his = desk.send(m.WorkflowCreate(name="x"), m.WorkflowRow, BOB)
    assert desk.send(m.WorkflowShow(name="x"), m.WorkflowDetails, BOB).workflow.id == his.id
    with pytest.raises(ConflictError, match="several workflows"):
        desk.send(m.WorkflowShow(name="x"), m.WorkflowDetails, ADMIN)
    for wrong in ("", " x", "a/b", "17", "a\nb", "n" * 201):
        with pytest.raises(UsageError):
            desk.send(m.WorkflowCreate(name=wrong), m.WorkflowRow)
    with pytest.raises(NotFoundError):
        desk.send(m.WorkflowShow(name="nope"), m.WorkflowDetails)


def test_only_the_owner_or_an_admin_changes_a_workflow(desk: Desk) -> None:
    workflow = _workflow(desk)
    step = _step(desk, workflow)
    for message, reply in (
        (m.WorkflowAct(action="cancel", id=workflow.id), m.GroupActed),
        (m.StepCreate(name="t", workflow_id=workflow.id), m.StepRow),
        (m.StepAct(id=step, action="pause"), m.GroupActed),
        (m.StepDelete(id=step), m.GroupActed),
        (m.WorkflowDelete(id=workflow.id), m.GroupActed),
        (m.WorkflowUpdate(id=workflow.id, maximum_workers=3), m.WorkflowRow),
    ):
        with pytest.raises(ForbiddenError):
            desk.send(message, reply, BOB)
    assert desk.send(m.WorkflowUpdate(id=workflow.id, maximum_workers=3, new_name="y"), m.WorkflowRow, ADMIN).maximum_workers == 3
    assert desk.send(m.WorkflowUpdate(name="y", maximum_workers=0), m.WorkflowRow).maximum_workers is None


def test_deleting_needs_an_end_and_takes_tasks_attempts_and_steps(manned) -> None:
    desk, workflow, step, agent = manned
    first = desk.create(NewTask(step_id=step, retries=1))[0]
    with pytest.raises(ConflictError, match="1 task not ended yet"):
        desk.send(m.WorkflowDelete(id=workflow.id), m.GroupActed)
    with pytest.raises(ConflictError, match="1 task not ended yet"):
        desk.send(m.StepDelete(id=step), m.GroupActed)
    _finish(desk, step, agent, "ended_badly", exit_status=1)
    _finish(desk, step, agent, "ended_well", exit_status=0)
    desk.send(RecruiterCreate(step_id=step), RecruiterRow)
    gone = desk.send(m.WorkflowDelete(id=workflow.id), m.GroupActed)
    assert (gone.status, gone.changed, gone.remaining) == ("deleted", 2, 0)
    with pytest.raises(NotFoundError):
        desk.show(first)
    assert desk.send(m.WorkflowList(), m.WorkflowRows).rows == []
    assert desk.send(m.StepList(), m.StepRows).rows == []
    assert desk.send(RecruiterList(), RecruiterRows).rows == []
    plain = desk.create()[0]
    assert [made.task_id for made in desk.schedule()] == [plain], "the worker has no step now"
    assert agent.id in desk.broker.fleet.workers


def test_lists_have_pages_and_filters(desk: Desk) -> None:
    for name in ("map-1", "map_2", "call"):
        _workflow(desk, name)
    desk.send(m.WorkflowCreate(name="bobs"), m.WorkflowRow, BOB)
    names = lambda **filters: [row.name for row in desk.send(m.WorkflowList(**filters), m.WorkflowRows).rows]  # noqa: E731
    assert names() == ["bobs", "call", "map_2", "map-1"]
    assert names(limit=2, offset=1) == ["call", "map_2"]
    assert names(name="map_") == ["map_2"]
    assert names(name="m%1") == ["map-1"]
    assert names(user="bob") == ["bobs"]


def test_a_parked_wait_is_a_park(desk: Desk) -> None:
    workflow = _workflow(desk, is_open=True)
    now_s = monotonic_s()
    answer = handlers.wait(Reading(desk.store.writer, desk.now, desk.broker, ALICE, now_s, now_s), m.WorkflowWait(id=workflow.id))
    assert isinstance(answer, Park)
