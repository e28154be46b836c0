"""The broker's rules about tasks, by its handlers on a real database."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from tests.lib.desk import ADMIN, ALICE, BOB, WORKER, Desk, HandAgent

from scitq.errors import ConflictError, ForbiddenError, NotFoundError, ScitqError, UsageError
from scitq.model import lifecycle
from scitq.model.lifecycle import FINAL, TABLE, TaskEvent, TaskStatus
from scitq.model.task import NewTask, TaskSpec, Use
from scitq.protocol.messages import agent as am
from scitq.protocol.messages import task as m
from scitq.protocol.messages.agent import AttemptEvent, LogChunk
from scitq.protocol.registry import Done


@pytest.mark.parametrize(("status", "event"), list(itertools.product(TaskStatus, TaskEvent)))
def test_st_01_every_pair_of_status_and_event_is_in_the_table_or_refused(status: TaskStatus, event: TaskEvent) -> None:
    if (status, event) in TABLE:
        assert lifecycle.after(status, event) is TABLE[status, event]
    else:
        with pytest.raises(ConflictError):
            lifecycle.after(status, event)


def test_st_01_nothing_leads_out_of_a_final_status_but_another_upload() -> None:
    leaving = {event for (status, event) in TABLE if status in FINAL}
    assert leaving == {TaskEvent.UPLOAD_AGAIN, TaskEvent.UPLOAD_AGAIN_BAD}


def test_st_01_every_status_can_be_reached_and_left() -> None:
    reached = {TaskStatus.INACTIVE, TaskStatus.WAITING, TaskStatus.PENDING}
    while True:
        further = reached | {target for (status, _), target in TABLE.items() if status in reached}
        if further == reached:
            break
        reached = further
    assert reached == set(TaskStatus)
    assert all(any(status is source for source, _ in TABLE) for status in set(TaskStatus) - {TaskStatus.SUCCEEDED, TaskStatus.CANCELED})


def test_cre_01_a_task_waits_in_p_for_a_worker(desk: Desk) -> None:
    (task_id,) = desk.create()
    assert desk.status(task_id) == "P"
    assert desk.schedule() == []
    HandAgent(desk)
    assert [made.task_id for made in desk.schedule()] == [task_id]
    assert desk.status(task_id) == "A"


def test_a_short_task_travels_in_one_report_and_its_journal_has_every_state(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create()
    desk.schedule()
    agent.tell(task_id, "accept", "fetch", "fetched", "start", "ended_well", exit_status=0, use=Use(cpu_s=0.5))
    shown = desk.show(task_id)
    assert [change.status for change in shown.changes] == ["P", "A", "C", "D", "O", "R", "S"]
    assert shown.row.exit_status == 0
    assert shown.use == Use(cpu_s=0.5)
    assert desk.broker.fleet.workers[agent.id].held == {}


@pytest.mark.parametrize(
    ("kinds", "letters"),
    [
        (["accept"], "C"),
        (["accept", "fetch"], "D"),
        (["accept", "fetch", "fetched"], "O"),
        (["accept", "fetch", "fetched", "start"], "R"),
        (["accept", "fetch", "fetched", "start", "exited_well"], "U"),
        (["accept", "fetch", "fetched", "start", "exited_badly"], "V"),
        (["accept", "fetch", "fetched", "start", "exited_well", "uploaded"], "S"),
        (["accept", "fetch", "fetched", "start", "exited_well", "upload_failed"], "F"),
        (["accept", "fetch", "fetched", "start", "exited_badly", "uploaded"], "F"),
        (["accept", "fetch", "fetched", "start", "freeze"], "Z"),
        (["accept", "skip"], "S"),
        (["accept", "fetch", "fail"], "F"),
        (["decline"], "P"),
    ],
)
def test_each_letter_by_the_events_of_an_agent(desk: Desk, kinds: list[str], letters: str) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create()
    desk.schedule()
    agent.tell(task_id, *kinds)
    assert desk.status(task_id) == letters


def test_the_reason_of_a_bad_end_outlives_its_upload(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create()
    desk.schedule()
    agent.start(task_id)
    agent.tell(task_id, "exited_badly", exit_status=3, reason="exit status 3", cause="exit")
    agent.tell(task_id, "uploaded")
    assert (desk.show(task_id).row.reason, desk.task(task_id).cause, desk.status(task_id)) == ("exit status 3", "exit", "F")


def test_st_01_a_late_report_of_an_old_attempt_is_stale_and_changes_nothing(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create()
    desk.schedule()
    old = desk.task(task_id).attempt
    agent.tell(task_id, "decline")
    assert desk.task(task_id).attempt == old + 1
    answer = agent.tell(task_id, "accept", "fetch", "fetched", "start", "ended_well", attempt=old)
    assert answer.stale == [(task_id, old)]
    assert desk.status(task_id) == "P"


def test_st_01_a_report_said_twice_changes_nothing_the_second_time(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create()
    desk.schedule()
    agent.start(task_id)
    agent.seq -= 1
    agent.start(task_id)
    agent.start(task_id)
    assert desk.status(task_id) == "R"
    assert len(desk.show(task_id).changes) == 6


def test_hid_02_a_retry_hides_the_old_and_makes_a_new_one_of_the_same_content(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create(NewTask(name="n", labels={"a": "b"}, priority=4), spec=TaskSpec(container="bare", command="false"))
    desk.schedule()
    agent.start(task_id)
    agent.tell(task_id, "ended_badly", exit_status=1, cause="exit")
    (new_id,) = desk.send(m.TaskRetry(ids=[task_id]), m.TaskRetried).ids
    old, new = desk.show(task_id), desk.show(new_id)
    assert (old.row.status, old.row.successor_id, old.row.exit_status) == ("F", new_id, 1)
    assert (new.row.status, new.row.predecessor_id, new.row.name, new.row.labels, new.row.priority) == ("P", task_id, "n", {"a": "b"}, 4)
    assert new.spec == old.spec
    assert new.chain == old.chain == [task_id, new_id]
    assert [row.id for row in desk.send(m.TaskList(), m.TaskRows).rows] == [new_id]
    assert [row.id for row in desk.send(m.TaskList(show_hidden=True), m.TaskRows).rows] == [new_id, task_id]
    with pytest.raises(ConflictError, match=f"as task {new_id}"):
        desk.send(m.TaskRetry(ids=[task_id]), m.TaskRetried)


def test_rty_02_only_failed_and_canceled_tasks_are_retried_and_succeeded_ones_by_force(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create()
    with pytest.raises(ConflictError, match="pending"):
        desk.send(m.TaskRetry(ids=[task_id]), m.TaskRetried)
    desk.schedule()
    agent.tell(task_id, "accept", "fetch", "fetched", "start", "ended_well")
    with pytest.raises(ConflictError, match="--force"):
        desk.send(m.TaskRetry(ids=[task_id]), m.TaskRetried)
    assert desk.send(m.TaskRetry(ids=[task_id], is_forced=True), m.TaskRetried).ids == [2]
    with pytest.raises(NotFoundError):
        desk.send(m.TaskRetry(ids=[99]), m.TaskRetried)


def fail(desk: Desk, agent: HandAgent, cause: str = "exit", exit_status: int = 1) -> int:
    """Run the next task to a bad end; its id."""
    (made,) = desk.schedule()
    agent.start(made.task_id)
    agent.tell(made.task_id, "ended_badly", exit_status=exit_status, cause=cause, reason="it failed")
    return made.task_id


def test_rty_04_a_task_is_retried_as_often_as_it_says_and_no_more(desk: Desk) -> None:
    agent = HandAgent(desk)
    desk.create(NewTask(retries=2))
    ids = [fail(desk, agent) for _ in range(3)]
    assert ids == [1, 2, 3]
    assert desk.schedule() == []
    assert desk.status(3) == "F"


@pytest.mark.parametrize(
    ("retry_on", "cause", "exit_status", "is_retried"),
    [
        ((), "exit", 1, True),
        (("exit:75",), "exit", 75, True),
        (("exit:75",), "exit", 1, False),
        (("exit",), "exit", 1, True),
        (("oom",), "oom", 137, True),
        (("oom",), "exit", 1, False),
        (("lost", "upload"), "upload", 0, True),
        ((), "killed", 137, False),
    ],
)
def test_retry_on_chooses_the_failures(desk: Desk, retry_on: tuple[str, ...], cause: str, exit_status: int, is_retried: bool) -> None:
    agent = HandAgent(desk)
    desk.create(NewTask(retries=1), spec=TaskSpec(container="bare", command="x", retry_on=retry_on))
    fail(desk, agent, cause, exit_status)
    assert bool(desk.schedule()) is is_retried


def test_dependencies_wait_for_success_and_those_on_any_end_for_the_end(desk: Desk) -> None:
    agent = HandAgent(desk)
    (first,) = desk.create()
    after_success, after_any = desk.create(NewTask(depends_on=(first,)), NewTask(after_any=(first,)))
    assert desk.status(after_success, after_any) == "WW"
    fail(desk, agent)
    assert desk.status(after_success, after_any) == "WP"
    assert f"task {first}" in desk.show(after_success).row.reason
    (again,) = desk.send(m.TaskRetry(ids=[first]), m.TaskRetried).ids
    assert desk.show(after_success).depends_on == [again]
    for made in desk.schedule():
        agent.tell(made.task_id, "accept", "fetch", "fetched", "start", "ended_well")
    for made in desk.schedule():
        agent.tell(made.task_id, "accept", "fetch", "fetched", "start", "ended_well")
    assert desk.status(again, after_any, after_success) == "SSP"
    assert desk.show(after_any).after_any == [again]


def test_dependencies_within_one_request_and_on_tasks_that_ended_before(desk: Desk) -> None:
    agent = HandAgent(desk)
    ids = desk.create(NewTask(), NewTask(depends_on_new=(0,)), NewTask(depends_on_new=(0, 1)))
    assert desk.status(*ids) == "PWW"
    for _ in ids:
        (made,) = desk.schedule()
        agent.tell(made.task_id, "accept", "fetch", "fetched", "start", "ended_well")
    assert desk.status(*ids) == "SSS"
    (later,) = desk.create(NewTask(depends_on=(ids[0],)))
    assert desk.status(later) == "P"


def test_keys_are_waited_for_within_a_request_and_from_before(desk: Desk) -> None:
    agent = HandAgent(desk)
    ids = desk.create(NewTask(key="a"), NewTask(key="b", depends_on_keys=("a",)))
    assert desk.status(*ids) == "PW"
    assert desk.create(NewTask(key="a"), NewTask(key="b", depends_on_keys=("a",))) == ids
    (later,) = desk.create(NewTask(after_any_keys=("b",), after_any=(ids[1],)))
    assert desk.show(later).after_any == [ids[1]]
    fail(desk, agent)
    again = desk.send(m.TaskRetry(ids=[ids[0]]), m.TaskRetried).ids[0]
    assert desk.create(NewTask(key="a"), NewTask(key="b", depends_on_keys=("a",))) == [again, ids[1]]
    with pytest.raises(NotFoundError, match="'nix'") as caught:
        desk.create(NewTask(), NewTask(depends_on_keys=("nix",)))
    assert caught.value.position == 1
    with pytest.raises(NotFoundError):
        desk.create(NewTask(depends_on_keys=("a",)), who=BOB)
    with pytest.raises(UsageError, match="itself"):
        desk.create(NewTask(key="c", depends_on_keys=("c",)))


def test_an_error_names_the_task_of_the_request(desk: Desk) -> None:
    desk.create(NewTask(key="k"))
    spec, bad = TaskSpec(container="bare", command="true"), TaskSpec(container="bare", command="true", inputs=("nope://a/b",))
    for tasks, position in (
        ([NewTask(), NewTask(step_id=99)], 1),
        ([NewTask(), NewTask(), NewTask(depends_on=(99,))], 2),
        ([NewTask(), NewTask(key="k", priority=3)], 1),
        ([NewTask(), NewTask(priority=10**9)], 1),
        ([NewTask(), NewTask(spec=1)], 1),
    ):
        for is_dry_run in (True, False):
            with pytest.raises(ScitqError) as caught:
                desk.send(m.TaskCreate(specs=[spec, bad] if tasks[-1].spec else [spec], tasks=tasks, is_dry_run=is_dry_run), m.TasksCreated)
            assert caught.value.position == position


def test_an_array_that_was_cut_off_is_gone_on_with(desk: Desk) -> None:
    spec = TaskSpec(container="bare", command="true")
    pieces = [[NewTask(key=f"k:{number}", array_index=number) for number in range(first, first + 2)] for first in (0, 2)]

    def send(piece: list[NewTask], **more: Any) -> m.TasksCreated:
        return desk.send(m.TaskCreate(specs=[spec], tasks=piece, **more), m.TasksCreated)

    begun = send(pieces[0], is_array=True, array_most_running=1)
    again = send(pieces[0], is_array=True, array_most_running=1)
    assert (again.ids, again.array_id) == (begun.ids, begun.array_id)
    rest = send(pieces[1], array_id=again.array_id)
    assert {desk.show(task_id).row.array_id for task_id in (*begun.ids, *rest.ids)} == {begun.array_id}


def test_a_failed_dependency_cancels_when_asked_and_so_down_the_line(desk: Desk) -> None:
    agent = HandAgent(desk)
    ids = desk.create(
        NewTask(),
        NewTask(depends_on_new=(0,), cancel_when_dependency_fails=True),
        NewTask(depends_on_new=(1,), cancel_when_dependency_fails=True),
    )
    fail(desk, agent)
    assert desk.status(*ids) == "FXX"


def test_a_task_that_will_be_retried_does_not_fail_those_that_wait(desk: Desk) -> None:
    agent = HandAgent(desk)
    ids = desk.create(NewTask(retries=1), NewTask(depends_on_new=(0,), cancel_when_dependency_fails=True))
    fail(desk, agent)
    assert desk.status(ids[1]) == "W"
    assert desk.show(ids[1]).depends_on == [3]


def test_st_01_an_end_never_lies_before_its_start(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create()
    desk.schedule()
    agent.tell(task_id, "accept", "fetch", "fetched", "start")
    agent.report(AttemptEvent(task_id, desk.task(task_id).attempt, "ended_well", 5000, exit_status=0))
    shown = desk.show(task_id)
    assert shown.row.started_ms == shown.row.ended_ms
    moments = [change.at_ms for change in shown.changes]
    assert moments == sorted(moments)


def test_cre_15_a_key_gives_the_task_already_made_and_other_content_is_a_conflict(desk: Desk) -> None:
    (task_id,) = desk.create(NewTask(key="k"))
    again = desk.send(m.TaskCreate(specs=[TaskSpec(container="bare", command="true")], tasks=[NewTask(key="k")]), m.TasksCreated)
    assert (again.ids, again.existing) == ([task_id], [0])
    with pytest.raises(ConflictError, match="other content"):
        desk.create(NewTask(key="k"), spec=TaskSpec(container="bare", command="false"))
    assert desk.create(NewTask(key="k"), spec=TaskSpec(container="bare", command="false"), who=BOB) == [task_id + 1]
    with pytest.raises(ConflictError, match="twice"):
        desk.create(NewTask(key="j"), NewTask(key="j"))
    assert len(desk.send(m.TaskList(), m.TaskRows).rows) == 2


def test_an_array_runs_no_more_at_once_than_it_may_and_stops_after_too_many_failures(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=10)
    ids = desk.create(*[NewTask(array_index=i) for i in range(6)], array_most_running=2, array_max_fails=2)
    assert [made.task_id for made in desk.schedule()] == ids[:2]
    for task_id in ids[:2]:
        agent.start(task_id)
    agent.tell(ids[0], "ended_badly", cause="exit")
    assert [made.task_id for made in desk.schedule()] == [ids[2]]
    agent.tell(ids[1], "ended_badly", cause="exit")
    assert desk.status(*ids) == "FFXXXX"
    assert ("cancel", ids[2]) in agent.orders()


def test_decision_9_only_the_owner_or_an_administrator_acts(desk: Desk) -> None:
    (task_id,) = desk.create()
    for message in (m.TaskAct(ids=[task_id], action="cancel"), m.TaskEdit(ids=[task_id], priority=1)):
        with pytest.raises(ForbiddenError):
            desk.send(message, m.TaskActed, BOB)
    assert desk.send(m.TaskList(), m.TaskRows, BOB).rows[0].id == task_id
    desk.send(m.TaskAct(ids=[task_id], action="cancel"), m.TaskActed, ADMIN)
    assert desk.status(task_id) == "X"


def test_suspend_and_resume_in_every_early_state(desk: Desk) -> None:
    agent = HandAgent(desk)
    first, second = desk.create(NewTask(), NewTask(depends_on_new=(0,)))
    desk.send(m.TaskAct(ids=[first, second], action="suspend"), m.TaskActed)
    assert desk.status(first, second) == "ZZ"
    assert desk.schedule() == []
    desk.send(m.TaskAct(ids=[first, second], action="resume"), m.TaskActed)
    assert desk.status(first, second) == "PW"
    desk.schedule()
    agent.tell(first, "accept", "fetch", "fetched")
    desk.send(m.TaskAct(ids=[first], action="suspend"), m.TaskActed)
    assert desk.status(first) == "Z"
    assert agent.orders() == [("cancel", first)]
    desk.send(m.TaskAct(ids=[first], action="resume"), m.TaskActed)
    desk.schedule()
    agent.start(first)
    desk.send(m.TaskAct(ids=[first], action="suspend"), m.TaskActed)
    assert (agent.orders(), desk.status(first)) == ([("freeze", first)], "R")
    agent.tell(first, "freeze")
    assert desk.status(first) == "Z"
    desk.send(m.TaskAct(ids=[first], action="resume"), m.TaskActed)
    assert agent.orders() == [("thaw", first)]
    agent.tell(first, "resume_running")
    assert desk.status(first) == "R"


def test_cancel_ends_what_has_not_started_at_once_and_kills_what_runs(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=2)
    first, second = desk.create(NewTask(), NewTask())
    desk.schedule()
    agent.start(first)
    desk.send(m.TaskAct(ids=[first, second], action="cancel"), m.TaskActed)
    assert desk.status(first, second) == "RX"
    assert agent.orders() == [("kill", first), ("cancel", second)]
    with pytest.raises(ConflictError):
        desk.send(m.TaskAct(ids=[second], action="cancel"), m.TaskActed)
    agent.report(held=[(first, 1)])
    assert agent.orders() == [("kill", first)], "an order is said again until it is carried out"


@pytest.mark.parametrize("cause", ["exit", "killed", "oom", "limit"])
def test_out_04_the_files_of_what_had_failed_before_can_be_uploaded_again_too(desk: Desk, cause: str) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create(spec=TaskSpec(container="bare", command="x", output="s3://b/o"))
    desk.schedule()
    agent.start(task_id)
    agent.tell(task_id, "exited_badly", cause=cause, reason="it failed", exit_status=0)
    agent.tell(task_id, "upload_failed", cause=cause, reason="upload: no such bucket (before that: it failed)")
    desk.send(m.TaskAct(ids=[task_id], action="upload"), m.TaskActed)
    assert (desk.status(task_id), agent.orders()) == ("V", [("upload", task_id)])
    agent.tell(task_id, "uploaded", cause=cause, reason="it failed")
    assert (desk.status(task_id), desk.show(task_id).row.reason, desk.task(task_id).cause) == ("F", "it failed", cause)
    with pytest.raises(ConflictError, match="without an upload that failed"):
        desk.send(m.TaskAct(ids=[task_id], action="upload"), m.TaskActed)


def test_out_04_kept_files_go_with_their_task_also_when_the_worker_is_away(desk: Desk) -> None:
    agent = HandAgent(desk)
    ids = desk.create(NewTask(), NewTask(), NewTask(), spec=TaskSpec(container="bare", command="x", output="s3://b/o"))
    for task_id in ids:
        desk.schedule()
        agent.start(task_id)
        agent.tell(task_id, "exited_well")
        agent.tell(task_id, "upload_failed", cause="upload", reason="upload: no such bucket")
    agent.orders()
    desk.send(m.TaskDelete(ids=[ids[0]]), Done)
    desk.send(m.TaskRetry(ids=[ids[1]]), m.TaskRetried)
    gone = {("forget", ids[0]), ("forget", ids[1])}
    assert set(agent.orders()) == gone
    held = [am.Held(task_id=task_id, attempt=1, status="U") for task_id in ids]
    desk.send(msgspec.structs.replace(agent.message, held=held), am.Registered, WORKER, agent.peer)
    assert set(agent.orders()) == gone


def test_an_upload_that_failed_can_be_tried_again_where_the_files_are(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create()
    desk.schedule()
    agent.start(task_id)
    agent.tell(task_id, "exited_well", exit_status=0)
    agent.tell(task_id, "upload_failed", cause="upload", reason="upload: no such bucket")
    assert desk.status(task_id) == "F"
    desk.send(m.TaskAct(ids=[task_id], action="upload"), m.TaskActed)
    assert (desk.status(task_id), agent.orders()) == ("U", [("upload", task_id)])
    agent.tell(task_id, "uploaded")
    assert desk.status(task_id) == "S"


def test_edit_changes_what_waits_and_never_what_was_sent(desk: Desk) -> None:
    _, second = desk.create(NewTask(), NewTask())
    desk.send(m.TaskEdit(ids=[second], priority=5, name="urgent", labels={"x": "y"}), Done)
    HandAgent(desk)
    assert [made.task_id for made in desk.schedule()] == [second]
    with pytest.raises(ConflictError, match="never changes"):
        desk.send(m.TaskEdit(ids=[second], priority=1), Done)
    assert [row.id for row in desk.send(m.TaskList(labels={"x": "y"}), m.TaskRows).rows] == [second]


def test_delete_removes_an_ended_task_and_its_id_is_not_used_again(desk: Desk) -> None:
    (task_id,) = desk.create()
    with pytest.raises(ConflictError):
        desk.send(m.TaskDelete(ids=[task_id]), Done)
    desk.send(m.TaskAct(ids=[task_id], action="cancel"), m.TaskActed)
    desk.send(m.TaskDelete(ids=[task_id]), Done)
    with pytest.raises(NotFoundError):
        desk.show(task_id)
    assert desk.create() == [task_id + 1]


def test_log_05_chunks_are_stored_once_whatever_comes_twice_or_early(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create()
    desk.schedule()
    agent.start(task_id)
    assert agent.report(logs=[LogChunk(task_id, 1, 0, b"abc")]).log_offsets == [(task_id, 1, 3)]
    assert agent.report(logs=[LogChunk(task_id, 1, 0, b"abcdef")]).log_offsets == [(task_id, 1, 6)]
    assert agent.report(logs=[LogChunk(task_id, 1, 9, b"later")]).log_offsets == [(task_id, 1, 6)]
    big = bytes(range(256)) * 1000
    assert agent.report(logs=[LogChunk(task_id, 1, 6, big)]).log_offsets == [(task_id, 1, 6 + len(big))]
    read = desk.send(m.TaskOutput(id=task_id, offset=0, most_bytes=10**7), m.TaskLog)
    assert read.data == b"abcdef" + big
    assert not read.is_ended


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"container": " "}, "container is empty"),
        ({"container": "-v /:/host alpine"}, "no name of a container image"),
        ({"container": "--privileged"}, "no name of a container image"),
        ({"container": "UPPER"}, "no name of a container image"),
        ({"container": "/a,b.sif"}, "no name of a container image"),
        ({"container": "/a/tool.img"}, "no name of a container image"),
        ({"command": " \n"}, "command is empty"),
        ({"command": "echo 'x"}, "can't be split"),
        ({"command": "a\0b"}, "NUL"),
        ({"inputs": ("nope://b/x",)}, "nope"),
        ({"output": "s3://b/*"}, r"\*"),
        ({"env": {"A-B": "x"}}, "no name of a variable"),
        ({"cpus": 0.0}, "above 0"),
        ({"retry_on": ("sunday",)}, "can't retry on"),
        ({"requests": {"licence": 0}}, "NAME=COUNT"),
    ],
)
def test_what_could_never_run_is_refused_at_creation(desk: Desk, spec: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        desk.create(spec=TaskSpec(**{"container": "alpine", "command": "true", **spec}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "image",
    ["alpine", "python:3.12", "reg:5000/a/b:tag", "localhost/x", "a@sha256:" + "0" * 64, "ghcr.io/o/p_q:v1", "bare", "/a b/tool-1.2.sif"],
)
def test_cre_12_names_of_images_are_taken(desk: Desk, image: str) -> None:
    assert desk.create(spec=TaskSpec(container=image, command="true"))


def test_lst_filters_combine_and_pages_are_disjoint(desk: Desk) -> None:
    for number in range(30):
        desk.create(NewTask(name=f"n{number}"), spec=TaskSpec(container="bare", command=f"echo a_{number} 100%"))
    pages = [row.id for offset in (0, 20, 40) for row in desk.send(m.TaskList(offset=offset), m.TaskRows).rows]
    assert pages == list(range(30, 0, -1))

    def found(**query: object) -> list[int]:
        return [row.id for row in desk.send(m.TaskList(limit=0, **query), m.TaskRows).rows]  # type: ignore[arg-type]

    assert found(command="a_3 ") == [4]
    assert found(command="a%3 ") == [24, 14, 4]
    assert found(command="A_29") == [30]
    assert found(command="aX3") == []
    assert found(name="n1", status="P", ids=[(1, 12, 1)]) == [12, 11, 2]
    assert found(status="RF") == []
    with pytest.raises(UsageError, match="suspended"):
        found(status="Q")


def test_cre_02_workers_take_only_the_tasks_of_their_step(desk: Desk) -> None:
    desk.store.writer.execute("INSERT INTO workflow (name, owner_id, status, created_ms) VALUES ('w', 2, 'ready', 0)")
    desk.store.writer.execute("INSERT INTO step (workflow_id, name, retries, created_ms) VALUES (1, 's', 2, 0)")
    without, with_step = desk.create(NewTask(), NewTask(step_id=1))
    assert desk.show(with_step).retries_left == 2
    agent = HandAgent(desk, step="1", concurrency=4)
    assert [made.task_id for made in desk.schedule()] == [with_step]
    agent.start(with_step)
    other = HandAgent(desk, "w2", concurrency=4)
    assert [made.task_id for made in desk.schedule()] == [without]
    assert other.id != agent.id


def test_srv_02_everything_is_there_after_a_restart(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=2)
    ids = desk.create(*[NewTask() for _ in range(4)])
    desk.schedule()
    agent.start(ids[0])
    again = desk.restarted()
    try:
        assert again.status(*ids) == "RAPP"
        assert len(again.broker.ready) == 2
        assert set(again.broker.fleet.workers[agent.id].held) == set(ids[:2])
        assert again.schedule() == [], "nothing is offered before the agent is back"
    finally:
        desk.store = again.store
        desk.broker = again.broker


def test_wait_counts_a_retried_task_by_its_newest_attempt(desk: Desk) -> None:
    agent = HandAgent(desk)
    (task_id,) = desk.create(NewTask(retries=1))
    fail(desk, agent)
    answer = desk.send(m.TaskWait(ranges=[(task_id, task_id, 1)], at_most_s=0), m.TaskWaited)
    assert (answer.is_over, answer.counts, answer.successors) == (False, {"P": 1}, {task_id: 2})
    fail(desk, agent)
    answer = desk.send(m.TaskWait(ranges=[(task_id, task_id, 1)], at_most_s=0), m.TaskWaited)
    assert (answer.is_over, answer.failed) == (True, [2])
    with pytest.raises(NotFoundError, match="no task 99"):
        desk.send(m.TaskWait(ranges=[(task_id, task_id, 1), (99, 99, 1)], at_most_s=0), m.TaskWaited)


def test_find_last_and_ranges(desk: Desk) -> None:
    desk.create(*[NewTask() for _ in range(9)])
    desk.create(who=BOB)

    def found(**query: object) -> list[int]:
        return desk.send(m.TaskFind(**query), m.TaskIds, ALICE).ids  # type: ignore[arg-type]

    assert found(is_last=True) == [9]
    assert found(ranges=[(1, 99, 4)]) == [1, 5, 9]
    assert found(ranges=[(3, 3, 1), (1, 1, 1)]) == [1, 3]
    with pytest.raises(NotFoundError, match="no task 42"):
        found(ranges=[(42, 42, 1)])
