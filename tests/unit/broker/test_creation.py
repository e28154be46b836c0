"""Many tasks in one request: each is stored as it was asked, and they start in order."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from tests.lib.desk import Desk, HandAgent

from scitq.errors import ConflictError, ScitqError, UsageError
from scitq.model.task import NewTask, TaskSpec
from scitq.protocol.messages import task as m

MANY = 350
"""More than go into one statement of SQL, and no multiple of it."""


def spec(number: int) -> TaskSpec:
    own = {"env": {"NUMBER": str(number)}, "inputs": (f"s3://b/{number}",), "requests": {"licence": 1}} if number % 3 == 0 else {}
    return TaskSpec(container="bare", command=f"echo {number}", cpus=1 + number % 2, **own)


def test_each_of_many_tasks_is_stored_as_it_was_asked(desk: Desk) -> None:
    specs = [spec(number) for number in range(MANY)]
    new = [
        NewTask(
            spec=number, name=f"n{number}", labels={"lot": str(number), "all": "yes"} if number % 2 else {}, key=f"k{number}" if number % 5 else None,
            priority=number // 100, retries=number % 4, array_index=number, item=f"item {number}",
        )
        for number in range(MANY)
    ]  # fmt: skip
    ids = desk.send(m.TaskCreate(specs=specs, tasks=new), m.TasksCreated).ids
    assert ids == list(range(ids[0], ids[0] + MANY))
    for number, task_id in enumerate(ids):
        shown, asked = desk.show(task_id), new[number]
        assert shown.spec == specs[number]
        assert (shown.row.name, shown.row.labels, shown.key, shown.item) == (asked.name, asked.labels, asked.key, asked.item)
        assert (shown.row.priority, shown.retries_left, shown.row.array_index) == (asked.priority, asked.retries, number)
    for lot in (1, 99, MANY - 1):
        found = desk.send(m.TaskList(labels={"lot": str(lot)}), m.TaskRows).rows
        assert [row.id for row in found] == [ids[lot]]


def test_cre_15_old_and_new_keys_in_one_request_each_give_their_task(desk: Desk) -> None:
    def ask(numbers: range) -> m.TasksCreated:
        new = [NewTask(spec=place, key=f"k{number}") for place, number in enumerate(numbers)]
        return desk.send(m.TaskCreate(specs=[spec(number) for number in numbers], tasks=new), m.TasksCreated)

    first = ask(range(0, 2 * MANY, 2))
    second = ask(range(2 * MANY))
    assert second.existing == list(range(0, 2 * MANY, 2))
    assert second.ids[::2] == first.ids
    assert len(set(second.ids)) == 2 * MANY
    assert ask(range(2 * MANY)).ids == second.ids
    with pytest.raises(ConflictError, match="'k4' belongs to task"):
        desk.create(NewTask(key="k4"), spec=spec(5))


def test_tasks_start_by_priority_and_then_by_age_whatever_stands_between_them(desk: Desk) -> None:
    HandAgent(desk, concurrency=MANY, cpus=MANY)
    priorities = [number % 3 for number in range(MANY)]
    ids = desk.create(*[NewTask(priority=priority, is_held=number % 7 == 0) for number, priority in enumerate(priorities)])
    expected = sorted((-priorities[n], ids[n]) for n in range(MANY) if n % 7)
    started = [made.task_id for _ in range(3) for made in desk.schedule()]
    assert started == [task_id for _, task_id in expected]


def test_a_request_is_made_wholly_or_not_at_all(desk: Desk) -> None:
    for last in (
        NewTask(spec=1),
        NewTask(key="k0"),
        NewTask(depends_on=(10_000,)),
        NewTask(step_id=9),
        NewTask(labels={"": "x"}),
        NewTask(name="\0"),
    ):
        with pytest.raises(ScitqError):
            desk.create(*[NewTask(key=f"k{number}") for number in range(MANY)], last)
    assert desk.send(m.TaskList(), m.TaskRows).rows == []
    assert len(desk.broker.ready) == 0


@pytest.mark.parametrize(
    "odd",
    [
        {"command": ""}, {"command": " \t"}, {"command": "it's"}, {"command": "a\0b"}, {"command": "\ud800"}, {"container": " "}, {"cpus": -1},
        {"env": {"1A": "x"}}, {"env": {"A": "\0"}}, {"env": {"A": "x" * (1 << 17)}}, {"requests": {"a-b": 1}}, {"skip_if_exists": True},
        {"inputs": ("gs://b/x",)}, {"resources": ("s3://b/x|unzip",)}, {"output": "s3://b/../x"}, {"publish": ""}, {"shell": "sh 'x"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", [0, 99, 100, MANY - 1])
def test_one_bad_spec_among_many_good_ones_is_refused_by_its_place(desk: Desk, odd: dict[str, Any], place: int) -> None:
    specs = [spec(3 * number) if number != place else msgspec.structs.replace(spec(1), **odd) for number in range(MANY)]
    message = m.TaskCreate(specs=specs, tasks=[NewTask(spec=number) for number in range(MANY)])
    with pytest.raises(UsageError) as refused:
        desk.send(message, m.TasksCreated)
    assert refused.value.position == place


@pytest.mark.parametrize(
    "odd",
    [
        {"spec": MANY}, {"spec": -1}, {"name": "\0"}, {"name": "x" * 1025}, {"name": "é" * 513}, {"key": ""}, {"key": "\ud800"},
        {"labels": {"": "x"}}, {"labels": {"a": "x" * 1025}}, {"labels": {"a": "\0"}}, {"priority": 1 << 40}, {"retries": -1},
        {"depends_on_keys": ("\0",)}, {"depends_on_new": (MANY,)}, {"key": "own", "after_any_keys": ("own",)},
    ],
)  # fmt: skip
def test_one_bad_task_among_many_good_ones_is_refused_by_its_place(desk: Desk, odd: dict[str, Any]) -> None:
    place = MANY - 7
    usual = {"spec": 0, "name": "n", "labels": {"a": "b"}}
    new = [NewTask(**(usual | odd if number == place else usual)) for number in range(MANY)]
    with pytest.raises(UsageError) as refused:
        desk.send(m.TaskCreate(specs=[spec(number) for number in range(MANY)], tasks=new), m.TasksCreated)
    assert refused.value.position == place


def test_good_texts_that_are_no_ascii_are_taken_among_others(desk: Desk) -> None:
    specs = [TaskSpec(container="bare", command=f"echo é{number}", env={"A": "ü"}, inputs=("s3://b/é",)) for number in range(MANY)]
    ids = desk.send(m.TaskCreate(specs=specs, tasks=[NewTask(spec=n, name="ñ", key=f"ß{n}") for n in range(MANY)]), m.TasksCreated).ids
    assert desk.show(ids[7]).spec == specs[7]


def test_more_tasks_than_a_request_may_have_are_refused(desk: Desk) -> None:
    with pytest.raises(UsageError, match="at most 2000"):
        desk.create(*[NewTask()] * 2001)


def test_many_wait_for_one_and_the_stronger_kind_of_waiting_wins(desk: Desk) -> None:
    agent = HandAgent(desk)
    (first,) = desk.create()
    ids = desk.create(
        *[NewTask(depends_on=(first,)) for _ in range(MANY)],
        NewTask(after_any=(first, first)),
        NewTask(after_any=(first,), depends_on=(first,)),
    )
    assert desk.status(ids[0], ids[MANY - 1], *ids[-2:]) == "WWWW"
    assert (desk.show(ids[-2]).after_any, desk.show(ids[-1]).depends_on) == ([first], [first])
    desk.schedule()
    agent.start(first)
    agent.tell(first, "ended_well", exit_status=0)
    assert desk.status(ids[0], ids[MANY - 1], *ids[-2:]) == "PPPP"
