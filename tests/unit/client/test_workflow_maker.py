"""Going on with a workflow: what is made anew, what stays; the plan's side and the broker's, without a wire between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.lib.desk import ADMIN, ALICE, Desk, HandAgent
from tests.unit.model.template.sources import Files

from scitq.broker.fleet import open_up
from scitq.client.workflow_maker import Made, make
from scitq.errors import ConflictError, UsageError
from scitq.model.task import NewTask
from scitq.model.template.compile import compile_plan, load
from scitq.protocol.messages.task import TaskAct, TaskActed, TaskList, TaskRows
from scitq.protocol.messages.worker import WorkerUpdate
from scitq.protocol.messages.workflow import StepCreate, StepRow, WorkflowCreate, WorkflowList, WorkflowRepeat, WorkflowRow, WorkflowRows
from scitq.protocol.registry import Done, Reply, Request

FILE = """
name: w
container: bare
workspace: s3://bucket/work
worker_pool: {provider: local.local, max: 2}
iterate: {name: s, values: "{params.samples}"}
params: {samples: "A,B", greeting: hello}
steps:
  - {name: map, command: "echo {params.greeting} {s}", retry: 1}
  - {name: all, grouped: true, inputs: map, command: cat}
"""


class Line:
    """A connection that hands messages to the desk itself."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def call(self, message: Request, reply: type[Reply], **_: Any) -> Any:
        return self._desk.send(message, reply, ALICE)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "server")
    open_up(desk.broker)
    return desk


def run(desk: Desk, *, goes_on: bool = True, text: str = FILE, **given: str) -> Made:
    plan = compile_plan(load(text, "w.yaml"), given, "w", Files(), "w.yaml")
    return make(Line(desk), plan, text, goes_on=goes_on, with_recruiters=True)  # type: ignore[arg-type]


def letters(desk: Desk) -> dict[str, str]:
    return {row.name: row.status for row in desk.send(TaskList(limit=0), TaskRows).rows}


def finish(desk: Desk, agent: HandAgent, step: int, **how: str) -> None:
    """Have the agent do all that the step has, ending each as `how` says by the item, else well."""
    desk.send(WorkerUpdate(ids=[agent.id], step_id=step), Done, ADMIN)
    while made := desk.schedule():
        for entry in made:
            agent.start(entry.task_id)
            kind = how.get(entry.item or "", "ended_well")
            agent.tell(entry.task_id, kind, exit_status=0 if kind == "ended_well" else 1)


def test_a_plan_becomes_steps_tasks_recruiters_and_starts(desk: Desk) -> None:
    made = run(desk)
    assert (list(made.steps), len(made.created), made.retried, made.kept, made.recruiters) == (["map", "all"], 3, [], 0, 2)
    assert letters(desk) == {"map.A": "P", "map.B": "P", "all": "W"}
    assert desk.show(made.created[0]).retries_left == 1
    assert desk.show(made.created[2]).depends_on == made.created[:2]
    again = run(desk)
    assert (again.id, again.created, again.retried, again.kept, again.recruiters) == (made.id, [], [], 3, 0)
    with pytest.raises(ConflictError, match="--continue"):
        run(desk, goes_on=False)


def test_failed_and_canceled_tasks_are_made_anew_with_what_the_file_says_now_and_succeeded_ones_stay(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=4)
    made = run(desk, samples="A,B,C")
    desk.send(TaskAct(ids=[made.created[2]], action="cancel"), TaskActed)
    finish(desk, agent, made.steps["map"], B="ended_badly")
    assert letters(desk) == {"map.A": "S", "map.B": "F", "map.C": "X", "all": "W"}
    again = run(desk, samples="A,B,C", greeting="bye")
    assert (again.created, len(again.retried), again.kept) == ([], 2, 2)
    assert [desk.show(number).spec.command for number in again.retried] == ["echo bye B", "echo bye C"]
    assert desk.show(made.created[0]).spec.command == "echo hello A"
    assert desk.show(made.created[3]).depends_on == [made.created[0], *again.retried]
    finish(desk, agent, made.steps["map"])
    assert letters(desk) == {"map.A": "S", "map.B": "S", "map.C": "S", "all": "P"}


def test_a_gathering_task_is_made_anew_for_new_items_when_it_had_succeeded_and_when_it_had_not_started(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=4)
    made = run(desk)
    earlier = run(desk, samples="A,B,C")
    assert (len(earlier.created), len(earlier.retried), earlier.kept) == (1, 1, 2)
    for step in made.steps.values():
        finish(desk, agent, step)
    assert set(letters(desk).values()) == {"S"}
    later = run(desk, samples="A,B,C,D")
    assert (len(later.created), len(later.retried), later.kept) == (1, 1, 3)
    fresh = desk.show(later.retried[0])
    assert (fresh.row.status, len(fresh.spec.inputs), fresh.depends_on) == ("W", 4, [*made.created[:2], *earlier.created, *later.created])
    assert fresh.row.predecessor_id == earlier.retried[0]


def test_a_gathering_task_that_is_with_a_worker_is_told_and_left(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=4)
    made = run(desk)
    finish(desk, agent, made.steps["map"])
    desk.send(WorkerUpdate(ids=[agent.id], step_id=made.steps["all"]), Done, ADMIN)
    (entry,) = desk.schedule()
    agent.start(entry.task_id)
    again = run(desk, samples="A,B,C")
    assert (len(again.created), again.retried, again.busy) == (1, [], [made.created[2]])


def test_nothing_is_made_when_the_server_does_not_know_a_storage(desk: Desk) -> None:
    with pytest.raises(UsageError, match="no storage is named 'gs'"):
        run(desk, text=FILE.replace("s3://", "gs://"))
    assert desk.send(WorkflowList(), WorkflowRows).rows == []


def test_a_task_that_has_not_started_and_reads_otherwise_now_is_made_anew(desk: Desk) -> None:
    agent = HandAgent(desk)
    made = run(desk)
    desk.send(WorkerUpdate(ids=[agent.id], step_id=made.steps["map"]), Done, ADMIN)
    (entry,) = desk.schedule()
    again = run(desk, greeting="bye")
    assert (again.created, len(again.retried), again.kept, again.busy) == ([], 1, 2, [])
    assert desk.show(again.retried[0]).spec.command == "echo bye B"
    assert desk.show(entry.task_id).spec.command == "echo hello A"
    assert desk.show(made.created[2]).depends_on == [entry.task_id, *again.retried]


def test_a_task_that_starts_while_it_is_looked_at_is_looked_at_again(desk: Desk) -> None:
    agent = HandAgent(desk)
    made = run(desk)
    desk.send(WorkerUpdate(ids=[agent.id], step_id=made.steps["map"]), Done, ADMIN)

    class Late(Line):
        def call(self, message: Request, reply: type[Reply], **more: Any) -> Any:
            if isinstance(message, WorkflowRepeat):
                desk.schedule()
            return super().call(message, reply, **more)

    plan = compile_plan(load(FILE, "w.yaml"), {"greeting": "bye"}, "w", Files(), "w.yaml")
    again = make(Late(desk), plan, FILE, goes_on=True, with_recruiters=True)  # type: ignore[arg-type]
    assert (len(again.retried), again.kept) == (1, 2)
    assert desk.show(again.retried[0]).spec.command == "echo bye B"


def test_nothing_is_made_when_there_is_no_such_provider(desk: Desk) -> None:
    wrong = FILE.replace("local.local", "nobody.none")
    with pytest.raises(UsageError, match=r"a recruiter of 'nobody.none', but the providers are local.local"):
        run(desk, text=wrong)
    assert desk.send(WorkflowList(), WorkflowRows).rows == []
    plan = compile_plan(load(wrong, "w.yaml"), {}, "w", Files(), "w.yaml")
    assert make(Line(desk), plan, wrong, goes_on=False, with_recruiters=False).recruiters == 0  # type: ignore[arg-type]


def test_what_failed_in_a_workflow_that_was_left_open_is_made_anew_and_starts_with_the_rest(desk: Desk) -> None:
    made = run(desk)
    row = desk.send(WorkflowCreate(name="open"), WorkflowRow)
    step = desk.send(StepCreate(name="map", workflow_id=row.id), StepRow).id
    (task,) = desk.create(NewTask(name="map.A", step_id=step))
    desk.send(TaskAct(ids=[task], action="cancel"), TaskActed)
    plan = compile_plan(load(FILE, "w.yaml"), {}, "open", Files(), "w.yaml")
    again = make(Line(desk), plan, FILE, goes_on=True, with_recruiters=False)  # type: ignore[arg-type]
    assert (len(again.created), len(again.retried)) == (2, 1)
    assert desk.status(*again.retried, *again.created) == "PPW"
    assert made.id != again.id


ORDERED = """
name: w
container: bare
iterate: {name: s, values: "{params.samples}"}
params: {samples: "A,B"}
steps:
  - {name: map, command: "echo {s}"}
  - {name: all, grouped: true, depends: map, command: "true"}
"""


def test_a_task_that_has_not_started_waits_for_the_items_of_the_file_that_there_are_now(desk: Desk) -> None:
    agent = HandAgent(desk, concurrency=4)
    made = run(desk, text=ORDERED)
    more = run(desk, text=ORDERED, samples="A,B,C")
    assert (len(more.created), len(more.retried), more.kept) == (1, 1, 2)
    assert desk.show(more.retried[0]).depends_on == [*made.created[:2], *more.created]
    finish(desk, agent, made.steps["map"], B="ended_badly")
    assert letters(desk) == {"map.A": "S", "map.B": "F", "map.C": "S", "all": "W"}
    fewer = run(desk, text=ORDERED, samples="A,C")
    assert (fewer.created, len(fewer.retried), fewer.kept) == ([], 1, 2)
    assert desk.show(fewer.retried[0]).depends_on == [made.created[0], *more.created]
    assert desk.status(*fewer.retried) == "P"
    assert run(desk, text=ORDERED, samples="A,C").retried == []
    finish(desk, agent, made.steps["all"])
    assert letters(desk)["all"] == "S"
