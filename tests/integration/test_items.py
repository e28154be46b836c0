"""Items of the contract that have no other test with the real command: what never changes, what leaves a trace, what is complete."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from tests.lib.raw import RawPeer
from tests.lib.site import Site, stopped, wait_until

from scitq.protocol import envelope
from scitq.protocol.messages.agent import AgentOffer, AgentRegister, AgentReport, AttemptEvent, Hardware, Reported

pytestmark = pytest.mark.xdist_group("items")

ENDS = {"ended_well": 0, "ended_badly": 1, "exited_badly": 1}
PROVIDERS: dict[str, Any] = {"fake": {"main": {"flavors": {"small": {"cpus": 2, "cost": 1}}, "update_period": "1s"}}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str]) -> Iterator[Site]:
    settings = {"worker_offline_after": "2s", "worker_lost_after": "4s"}
    with Site(tmp_path_factory.mktemp("items"), scitq_argv, settings=settings, sections={"providers": PROVIDERS}) as made:
        made.agent(concurrency=2)
        yield made


def test_hid_01_a_task_that_was_sent_to_a_worker_never_changes(site: Site) -> None:
    task = site.create("sleep 300", "--name first --label a=b")
    site.wait_status(task, "R")
    before = site.show(task)
    for change in ("--priority 9", "--name other", "--label c=d", "--retry 3"):
        assert "R" in site.fails(f"task edit --id {task} {change}", 6).err
    assert (site.show(task)["row"], site.show(task)["spec"]) == (before["row"], before["spec"])
    site.ok(f"task kill --id {task}")
    site.wait_status(task, "F")
    site.fails(f"task edit --id {task} --name other", 6)


def test_hid_03_rty_01_lists_show_the_latest_and_hidden_output_is_kept(site: Site) -> None:
    old = site.create("echo $SCITQ_TASK_ID; exit 3", "--shell sh --name latest")
    site.wait_status(old, "F")
    retried = site.ok(f"task retry --id {old}")
    new = int(retried.out)
    assert retried.out == f"{new}\n"
    site.wait_status(new, "F")
    assert [row["id"] for row in site.tasks("--name latest")] == [new]
    assert [site.output(task) for task in (old, new)] == [f"{old}\n", f"{new}\n"]


def test_lst_09_rty_06_hidden_attempts_name_their_successors_and_the_chain_outlives_a_restart(site: Site) -> None:
    first = site.create("false", "--retry 2 --name chained")
    site.fails(f"task wait --id {first}", 10)
    rows = {row["id"]: row for row in site.tasks("--name chained --show-hidden")}
    walked, one = [], first
    while one is not None:
        walked.append(one)
        one = rows[one]["successor_id"]
    assert len(walked) == 3
    assert [rows[task]["predecessor_id"] for task in walked] == [None, *walked[:2]]
    assert [row["id"] for row in site.tasks("--name chained")] == walked[-1:]
    shown = site.ok("task list --name chained --show-hidden").out.splitlines()
    assert all(any(line.split()[0] == str(task) and str(after) in line for line in shown) for task, after in itertools.pairwise(walked))
    site.restart_server()
    assert [site.show(task)["chain"] for task in walked] == [walked] * 3


def test_hid_05_nothing_is_retried_by_itself_unless_it_says_so(site: Site) -> None:
    plain, twice = site.create("false"), site.create("false", "--retry 1")
    site.fails(f"task wait --id {plain},{twice}", 10)
    assert site.show(plain)["chain"] in ([], [plain])
    assert len(site.show(twice)["chain"]) == 2


def test_hid_04_stt_04_a_lost_worker_leaves_a_trace_and_its_figures_show_their_age(site: Site) -> None:
    agent = site.agent(more="--name goes-away")
    worker = next(row["id"] for row in site.workers() if row["name"] == "goes-away")
    step = site.ok(f"step create --workflow-id {site.ok('workflow create --name away').id} --name away").id
    site.ok("workflow finalize --workflow-name away")
    site.ok(f"worker update --worker-id {worker} --step-id {step}")
    task = site.create("sleep 300", f"--step-id {step}")
    site.wait_status(task, "R")
    wait_until(lambda: site.ok(f"worker stats --worker-id {worker} --json").json[0]["stats"], "figures")
    with stopped(agent):
        site.wait_status(task, "F")
        figures = site.ok(f"worker stats --worker-id {worker} --json").json[0]
        assert (figures["status"], bool(figures["stats"])) == ("offline", True)
        assert figures["age_ms"] >= 4000
        assert (
            " ago" in site.ok(f"worker stats --worker-id {worker}").out
            or "age" in site.ok(f"worker stats --worker-id {worker}").out.lower()
        )
        lost = site.show(task)
        assert lost["row"]["reason"].startswith("worker lost")
        assert lost["row"]["worker_id"] == worker
        assert [(change["status"], change["worker_id"]) for change in lost["changes"]][-1] == ("F", worker)
        assert any(
            str(task) in event["detail"] or "lost" in event["kind"] for event in site.ok(f"worker events --worker-id {worker} --json").json
        )
    wait_until(lambda: {row["status"] for row in site.workers()} == {"ready"}, "its return")
    site.ok(f"worker delete --worker-id {worker}")
    agent.wait(60)
    site.agents.remove(agent)


def test_st_01_each_change_is_journaled_with_its_time_worker_and_reason(site: Site) -> None:
    task = site.create("exit 3", "--shell sh")
    site.wait_status(task, "F")
    changes = site.show(task)["changes"]
    letters = [change["status"] for change in changes]
    assert (letters[0], letters[-1]) == ("P", "F")
    assert "A" in letters
    times = [change["at_ms"] for change in changes]
    assert times == sorted(times)
    assert changes[-1]["reason"]
    assert {change["worker_id"] for change in changes[1:]} == {site.show(task)["row"]["worker_id"]}


def test_st_01_late_and_repeated_messages_of_a_worker_move_nothing_backwards(site: Site) -> None:
    """A worker that speaks for itself: it says the end of a task, and then all sorts of things that came before."""
    workers = [row["id"] for row in site.workers()]
    site.ok(["worker", "drain", *[word for worker in workers for word in ("--worker-id", str(worker))]])
    token = (site.data / "worker.token").read_text().strip()
    with RawPeer(site.port, site.key) as peer:
        hardware = Hardware(cpus=4, mem_gib=4, disk_gb=10)
        body = AgentRegister(uid="itself", name="itself", host="h", hardware=hardware, runtimes=["bare"], concurrency=1)
        assert peer.ask("agent.register", token, body).kind == "ok"
        task = site.create("true")
        while (message := peer.receive()).kind != "agent.offer":
            pass
        (offered,) = envelope.read_body(message.body, AgentOffer).tasks
        assert offered.task_id == task

        def say(seq: int, *events: str, attempt: int = offered.attempt) -> Reported:
            sent = [AttemptEvent(task, attempt, event, 0, ENDS.get(event)) for event in events]
            return envelope.read_body(peer.ask("agent.report", token, AgentReport(seq=seq, events=sent)).body, Reported)

        say(1, "accept", "fetch", "exited_badly", "fetched", "start", "ended_well")
        ended = site.show(task)
        assert (ended["row"]["status"], ended["row"]["exit_status"]) == ("S", 0)
        say(1, "accept", "fetch", "fetched", "start", "ended_well")
        for seq, events in enumerate((("start",), ("ended_badly",), ("exited_badly", "upload_failed"), ("decline",), ("freeze",)), 2):
            say(seq, *events)
        assert (task, offered.attempt + 1) in say(9, "start", attempt=offered.attempt + 1).stale
        after = site.show(task)
        assert (after["row"], after["changes"]) == (ended["row"], ended["changes"])
        assert peer.ask("agent.goodbye", token, {"reason": "done"}).kind == "ok"
    site.ok(["worker", "resume", *[word for worker in workers for word in ("--worker-id", str(worker))]])


def test_st_02_the_end_is_seen_only_when_every_line_is_stored(site: Site) -> None:
    for number in range(5):
        task = site.create(f"seq 1 20000; echo the end; exit {number % 2}", "--shell sh")
        site.wait_status(task, "SF")
        assert site.ok(f"task output --id {task}").out == "".join(f"{line}\n" for line in range(1, 20001)) + "the end\n"


def test_stt_03_rates_of_the_last_interval_without_loops_and_overlays(site: Site) -> None:
    stats = wait_until(lambda: site.ok("worker stats --worker-id 1 --json").json[0]["stats"], "figures")
    assert 0 < stats["interval_s"] < 30
    assert 0 <= stats["cpu_percent"] <= 100
    assert 0 <= stats["iowait_percent"] <= 100
    assert 0 < stats["memory_used_bytes"] < stats["memory_total_bytes"] <= psutil.virtual_memory().total
    devices = {part.mountpoint: (part.fstype, part.device) for part in psutil.disk_partitions(all=True)}
    assert stats["disks"]
    for place, used, total in stats["disks"]:
        assert 0 <= used <= total
        kind, device = devices.get(place, ("", ""))
        assert kind not in {"overlay", "squashfs"}
        assert not device.startswith("/dev/loop")


def test_wkl_03_a_hand_started_agent_registers_itself_with_a_measured_flavor(site: Site) -> None:
    row = site.ok("worker list --worker-id 1 --json").json[0]
    assert (row["name"], row["status"], row["provider"]) == ("agent0", "ready", "local.local")
    assert 1 <= row["hardware"]["cpus"] <= (os.cpu_count() or 1)
    assert 0 < row["hardware"]["mem_gib"] <= psutil.virtual_memory().total / 2**30 + 0.1
    assert row["hardware"]["disk_gb"] > 0
    assert row["flavor"]


def test_flv_10_the_catalogue_is_read_again_on_its_period(site: Site) -> None:
    def updated_ms() -> int:
        return next(row["updated_ms"] or 0 for row in site.ok("provider list --json").json if row["name"] == "fake.main")

    first = wait_until(updated_ms, "the first reading")
    wait_until(lambda: updated_ms() > first, "the next reading")
