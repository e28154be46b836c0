"""How the end of an attempt is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from scitq.agent.attempt import Attempt, Phase, explain, load, restored, save
from scitq.agent.executors.base import Ended
from scitq.agent.folders import TaskFolders
from scitq.agent.slots import Slots
from scitq.model.task import TaskSpec, Use
from scitq.protocol.messages.agent import Assignment, Hardware


def attempt(task_id: int = 1, folder: Path = Path("/w"), priority: int = 0, **spec) -> Attempt:
    asked = Assignment(task_id=task_id, attempt=1, spec=TaskSpec(container="bare", command="x", **spec), priority=priority)
    return Attempt(asked, TaskFolders(folder))


def concluded(status: int | None, wish: str = "", **ended) -> Attempt:
    made = attempt(mem_gib=2)
    made.wish, made.wish_reason = wish, "killed by alice" if wish == "kill" else ""
    made.conclude(Ended(made.key, status, **ended))
    return made


def test_cre_11_success_is_status_0():
    assert concluded(0).succeeded
    assert not concluded(1).succeeded


@pytest.mark.parametrize(
    ("made", "cause", "words"),
    [
        (lambda: concluded(3), "exit", "exit status 3"),
        (lambda: concluded(126), "exit", "not executable"),
        (lambda: concluded(127), "exit", "command not found"),
        (lambda: concluded(125), "exit", "runtime"),
        (lambda: concluded(137), "exit", "not by scitq"),
        (lambda: concluded(139), "exit", "SIGSEGV"),
        (lambda: concluded(137, "kill"), "killed", "killed by alice"),
        (lambda: concluded(0, "kill"), "killed", "killed by alice"),
        (lambda: concluded(143, "stop"), "killed", "stopped"),
        (lambda: concluded(137, "limit"), "limit", "time limit"),
        (lambda: concluded(137, cause="oom"), "oom", "out of memory (limit 2.0 GiB)"),
        (lambda: concluded(None, cause="start", error="no such program"), "start", "no such program"),
    ],
)
def test_cre_11_ends_are_told_apart(made, cause, words):
    found = made()
    assert found.cause == cause
    assert words in found.reason
    assert not found.succeeded


def test_a_task_that_is_stopped_and_ends_well_has_succeeded():
    assert concluded(0, "stop").succeeded


def test_every_status_is_explained():
    for status in [None, *range(256)]:
        assert str(status) in explain(status, None) or status is None


def test_a_journal_gives_the_attempt_back(tmp_path):
    made = attempt(folder=tmp_path, output="s://b/o/")
    made.resource, made.has_lease, made.use, made.exit_status, made.reason = tmp_path / "r", True, Use(cpu_s=1.5), 3, "exit status 3"
    save(made, "exited", "docker", 12, b"\x03\0\0\0\x01n", 6)
    saved = load(made.folders)
    again = restored(saved, made.folders)
    assert (saved.stage, saved.runtime, saved.at_ms, saved.log_bytes) == ("exited", "docker", 12, 6)
    assert (again.assignment, again.resource, again.has_lease, again.use) == (made.assignment, made.resource, True, made.use)
    made.folders.state.write_text("{")
    assert load(made.folders) is None


def test_one_that_waits_no_longer_gets_no_slot():
    slots = Slots(Hardware(cpus=4, mem_gib=8, disk_gb=10))
    gone, stays = attempt(1), attempt(2)
    slots.wait(gone)
    slots.wait(stays)
    slots.drop(gone)
    assert slots.take() is stays


def test_the_letters_are_those_of_the_server():
    made = attempt()
    letters = []
    for phase in Phase:
        made.phase = phase
        letters.append(made.letter)
    assert letters == ["C", "D", "O", "O", "R", "U", "V", "R"]
