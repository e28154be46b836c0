"""Which attempt starts next on a worker."""

from __future__ import annotations

from pathlib import Path

from scitq.agent.attempt import Attempt
from scitq.agent.folders import TaskFolders
from scitq.agent.slots import Slots
from scitq.model.task import TaskSpec
from scitq.protocol.messages.agent import Assignment, Hardware


def attempt(number: int, *, priority: int = 0, **asked: float) -> Attempt:
    spec = TaskSpec(container="bare", command="true", **asked)  # type: ignore[arg-type]
    return Attempt(Assignment(task_id=number, attempt=1, spec=spec, priority=priority), TaskFolders(Path("/nowhere")))


def slots(concurrency: int, gpus: int = 0) -> Slots:
    made = Slots(Hardware(cpus=4, mem_gib=8, disk_gb=10, gpus=gpus))
    made.concurrency = concurrency
    return made


def test_by_priority_then_by_arrival_and_no_more_than_the_concurrency() -> None:
    queue = slots(2)
    first, second, urgent = attempt(1), attempt(2), attempt(3, priority=1)
    for one in (first, second, urgent):
        queue.wait(one)
    assert [queue.take(), queue.take(), queue.take()] == [urgent, first, None]
    queue.drop(urgent)
    assert queue.take() is second


def test_what_is_asked_for_must_be_free_before_a_prefetched_task_starts() -> None:
    queue = slots(8)
    big, other, small = attempt(1, cpus=3), attempt(2, cpus=3), attempt(3, mem_gib=6)
    for one in (big, other, small):
        queue.wait(one)
    assert queue.take() is big
    assert queue.take() is None, "the queue's order is kept"
    queue.drop(big)
    assert [queue.take(), queue.take()] == [other, small]


def test_a_task_alone_starts_even_when_it_asks_for_more_than_there_is() -> None:
    queue = slots(2)
    huge = attempt(1, mem_gib=100)
    queue.wait(huge)
    assert queue.take() is huge


def test_gpus_are_given_out_one_by_one() -> None:
    queue = slots(8, gpus=3)
    for one in (attempt(1, gpus=2), attempt(2, gpus=2)):
        queue.wait(one)
    first = queue.take()
    assert first is not None
    assert first.gpus == (0, 1)
    assert queue.take() is None
    queue.drop(first)
    second = queue.take()
    assert second is not None
    assert second.gpus == (0, 1)
