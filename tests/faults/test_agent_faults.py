"""The agent killed, cut off, held up: its work goes on, nothing is lost, nothing runs twice (contract SRV-3, SRV-4, LOG-5)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib.relay import Relay
from tests.lib.site import Site, end, stopped, wait_until


@pytest.fixture
def site(tmp_path: Path, scitq_argv: list[str]) -> Iterator[Site]:
    with Site(tmp_path / "site", scitq_argv, settings={"worker_offline_after": "4s", "worker_lost_after": "120s"}) as made:
        yield made


def again(site: Site, number: int = 0, more: str = "") -> None:
    """Start the agent of that number again, in the same work folder."""
    words = f"agent --config {site.config} --work-dir {site.folder}/work{number} --concurrency 2 --name agent{number} {more}"
    with (site.folder / f"agent{number}.log").open("ab") as log:
        site.agents[number] = site.start(words, stdout=log, stderr=log, start_new_session=True)


def gated(site: Site, gate: Path) -> int:
    """A bare task that says `before`, waits for the gate, and says `after`."""
    task = site.create(f"echo before $$; echo ran >> {gate}.ran; while [ ! -e {gate} ]; do sleep 0.05; done; echo after", "--shell sh")
    site.wait_status(task, "R")
    wait_until(lambda: "before" in site.ok(f"task output --id {task}").out, "the first line")
    return task


def test_srv_03_a_task_outlives_its_agents_kill_9_and_is_adopted(site: Site, tmp_path: Path) -> None:
    agent = site.agent(concurrency=2)
    gate = tmp_path / "gate"
    task = gated(site, gate)
    agent.kill()
    agent.wait()
    again(site)
    second = site.create("echo second")
    site.wait_status(second, "S")
    assert site.status_of(task) == "R"
    gate.touch()
    site.wait_status(task, "S")
    assert site.output(task).splitlines()[1:] == ["after"]
    assert (tmp_path / "gate.ran").read_text() == "ran\n"


def test_srv_03_a_task_that_ends_while_its_agent_is_dead_is_reported_by_the_next(site: Site, tmp_path: Path) -> None:
    agent = site.agent(concurrency=2)
    gate = tmp_path / "gate"
    task = gated(site, gate)
    pid = int(site.ok(f"task output --id {task}").out.split()[1])
    agent.kill()
    agent.wait()
    gate.touch()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the task's process")
    again(site)
    site.wait_status(task, "S")
    assert site.output(task).splitlines()[1:] == ["after"]


@pytest.mark.parametrize("is_silent", [False, True], ids=["refused", "black hole"])
def test_srv_04_a_cut_harms_nothing(site: Site, tmp_path: Path, is_silent: bool) -> None:
    relay = Relay(site.port)
    try:
        agent = site.agent(concurrency=2, more=f"--server 127.0.0.1:{relay.port}", env={"SCITQ_SERVER_KEY": site.key})
        gate = tmp_path / "gate"
        task = gated(site, gate)
        relay.cut(is_silent=is_silent)
        gate.touch()
        wait_until(lambda: site.workers()[0]["status"] == "offline", "the worker shown offline")
        assert site.status_of(task) == "R"
        relay.mend()
        site.wait_status(task, "S", deadline_s=120)
        assert site.output(task).splitlines()[1:] == ["after"]
        assert (tmp_path / "gate.ran").read_text() == "ran\n"
        assert agent.poll() is None
    finally:
        relay.close()


def test_srv_04_a_worker_believed_dead_cannot_overwrite_the_new_attempt(tmp_path: Path, scitq_argv: list[str]) -> None:
    settings = {"worker_offline_after": "2s", "worker_lost_after": "4s"}
    with Site(tmp_path / "site", scitq_argv, settings=settings) as site:
        agent = site.agent()
        task = site.create("sleep 300", "--retry 1")
        site.wait_status(task, "R")
        with stopped(agent):
            wait_until(lambda: site.status_of(task) == "F", "the loss of the task")
            assert "worker lost" in site.show(task)["row"]["reason"]
            successor = site.show(task)["row"]["successor_id"]
            assert successor
            site.agent()
            site.wait_status(successor, "R")
        wait_until(lambda: {row["status"] for row in site.workers()} == {"ready"}, "the return of the first worker")
        wait_until(lambda: site.ok("worker list --json").json[0]["held"] == 0, "the old attempt forgotten")
        assert site.status_of(successor) == "R"
        assert site.status_of(task) == "F"
        site.ok(f"task kill --id {successor}")
        site.wait_status(successor, "F")


def test_wkl_02_a_killed_worker_is_shown_offline_and_its_unaccepted_tasks_go_to_others(site: Site) -> None:
    agent = site.agent(concurrency=1)
    with stopped(agent):
        task = site.create("echo hello")
        # Seconds pass between the two, less than a look may take on a busy machine.
        wait_until(lambda: "A" in [change["status"] for change in site.show(task)["changes"]], "the task given to it")
        wait_until(lambda: site.status_of(task) == "P", "the task taken back")
        site.agent()
        site.wait_status(task, "S")
    assert site.output(task) == "hello\n"


def test_an_agent_told_to_end_twice_ends_once_and_gives_its_tasks_back(site: Site) -> None:
    agent = site.agent(concurrency=1)
    task = site.create("sleep 300", "--retry 1")
    site.wait_status(task, "R")
    pid = agent.pid
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGTERM)
    assert agent.wait(60) == 0
    wait_until(lambda: site.status_of(task) == "F", "the interrupted task")
    assert site.show(task)["row"]["successor_id"]


def test_the_keepers_and_tasks_of_an_ended_agent_are_gone(site: Site, tmp_path: Path) -> None:
    agent = site.agent(concurrency=1)
    task = site.create(f"echo $$ > {tmp_path}/pid; exec sleep 301", "--shell sh")
    site.wait_status(task, "R")
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip(), "the pid")
    pid = int((tmp_path / "pid").read_text())
    end(agent)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the task")


def test_a_server_that_is_away_for_a_while_finds_everything_as_it_was(site: Site, tmp_path: Path) -> None:
    site.agent(concurrency=2)
    gate = tmp_path / "gate"
    task = gated(site, gate)
    site.stop_server()
    gate.touch()
    time.sleep(2)  # the length of the pause is what is tested
    site.start_server()
    site.wait_status(task, "S")
    assert site.output(task).splitlines()[1:] == ["after"]
