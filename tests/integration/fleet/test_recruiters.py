"""Workers that come when there is work and go when there is none: real agents, started by the providers local and fake."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.lib.site import Site, wait_until

pytestmark = pytest.mark.xdist_group("fleet-recruiters")
QUICK = {"janitor_period": "1s", "release_after": "1s", "idle_timeout": "2m", "installing_timeout": "1m"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str]) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("recruit")
    providers: dict[str, Any] = {
        "local": {"local": {"grace": "5s", "cpus": 4}},
        "fake": {
            "cloud": {"agents": True, "flavors": {"spot": {"cpus": 4, "mem": 4, "cost": 1}}, "limits": {"workers": 3}},
            "never": {"fail_rate": 1, "flavors": {"doomed": {"cpus": 1, "cost": 0.1}}},
        },
    }
    with Site(folder, scitq_argv, sections={"providers": providers}, worker=QUICK) as site:
        wait_until(lambda: len(site.ok("flavor list --json").json) == 3, "the catalogue")
        try:
            yield site
        finally:
            for row in site.workers():
                site.run(f"worker delete --worker-id {row['id']}")
            wait_until(lambda: not agents_of(site), "no agent is left")


def agents_of(site: Site) -> list[int]:
    """The pids of living agents that the server's providers started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                is_zombie = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            except OSError:
                continue
            if b"agent" in words and any(word.startswith(bytes(site.data)) for word in words) and not is_zombie:
                found.append(int(entry.name))
    return sorted(found)


def new_step(site: Site, name: str) -> int:
    """A step of a workflow of its own, ready to run."""
    workflow = site.ok(f"workflow create --name {name}").id
    site.ok(f"workflow finalize --workflow-id {workflow}")
    return site.ok(f"step create --workflow-id {workflow} --name work").id


def many(site: Site, step: int, command: str, count: int) -> None:
    site.ok(["task", "create", "--container", "bare", "--command", command, "--step-id", str(step), "--array", f"1-{count}"])


def tasks_of(site: Site, step: int) -> list[str]:
    return [row["status"] for row in site.tasks(f"--step-id {step} --limit 0")]


def live_workers(site: Site) -> list[dict[str, Any]]:
    return [row for row in site.workers() if row["status"] != "failed"]


def test_workers_come_with_the_work_and_go_after_it(site: Site) -> None:
    step = new_step(site, "comes-and-goes")
    recruiter = site.ok(f"recruiter create --step-id {step} --filter provider~local.local --concurrency 2 --max-workers 2 --rounds 2").id
    assert site.workers() == []
    many(site, step, "true", 8)
    wait_until(lambda: tasks_of(site, step) == ["S"] * 8, "all tasks S")
    wait_until(lambda: not site.workers() and not agents_of(site), "all workers released")
    kinds = {row["kind"] for row in site.ok("worker events --limit 0 --json").json}
    assert {"deploy", "ready", "delete", "deleted"} <= kinds
    assert "no open task" in site.ok(f"recruiter explain --recruiter-id {recruiter}").out
    deleted = [row for row in site.ok("worker list --show-deleted --json").json if row["step_id"] == step]
    assert 1 <= len(deleted) <= 2


def test_a_task_of_an_evicted_recruited_worker_runs_again_without_retries(site: Site) -> None:
    step = new_step(site, "evicted")
    marker = site.folder / "second-time"
    site.ok(f"recruiter create --step-id {step} --filter provider~fake.cloud")
    task = site.create(f"sh -c 'test -e {marker} || {{ touch {marker}; sleep 600; }}'", f"--step-id {step}")
    site.wait_status(task, "R")
    wait_until(marker.exists, "the task's start")
    (first,) = [row for row in site.workers() if row["step_id"] == step]
    (site.data / "providers" / "fake.cloud" / f"evict-{first['machine']}").touch()
    wait_until(lambda: tasks_of(site, step) == ["S"], "the second try")
    hidden = site.show(task)
    assert hidden["row"]["status"] == "F"
    assert "evicted" in hidden["row"]["reason"]
    assert hidden["row"]["successor_id"]
    wait_until(lambda: not site.workers(), "all workers released")


def test_dep_08_and_09_concurrency_and_prefetch_of_deployed_workers(site: Site) -> None:
    step = new_step(site, "dep")
    pair = site.ok(f"worker deploy --provider local.local --flavor local --count 2 --step {step} --concurrency 4").ids
    gate = site.folder / "gate-8"
    many(site, step, f"sh -c 'until test -e {gate}; do sleep 0.1; done'", 10)
    wait_until(lambda: tasks_of(site, step).count("R") == 8, "eight tasks R")
    held = [row["running"] for row in site.workers() if row["id"] in pair]
    assert held == [4, 4]
    gate.touch()
    wait_until(lambda: tasks_of(site, step) == ["S"] * 10, "all tasks S")
    site.ok(f"worker delete --worker-id {pair[0]} --worker-id {pair[1]}")
    alone = new_step(site, "dep-prefetch")
    number = site.ok(f"worker deploy --provider local.local --flavor local --step {alone} --prefetch 1").id
    gate = site.folder / "gate-9"
    many(site, alone, f"sh -c 'until test -e {gate}; do sleep 0.1; done'", 3)
    wait_until(lambda: sorted(tasks_of(site, alone)) == ["O", "P", "R"], "R, O, P")
    site.ok(f"worker delete --worker-id {number}")
    wait_until(lambda: sorted(tasks_of(site, alone)) == ["F", "P", "P"], "DEL-2: running F, waiting back to P")
    wait_until(lambda: not site.workers() and not agents_of(site), "no agent is left")


def test_agents_and_their_tasks_outlive_a_killed_server(site: Site) -> None:
    step = new_step(site, "outlives")
    number = site.ok(f"worker deploy --provider local.local --flavor local --step {step}").id
    gate = site.folder / "gate-outlives"
    task = site.create(f"sh -c 'until test -e {gate}; do sleep 0.1; done'", f"--step-id {step}")
    site.wait_status(task, "R")
    before = agents_of(site)
    site.restart_server(signal.SIGKILL)
    wait_until(lambda: [row["status"] for row in site.workers()] == ["ready"], "the worker's return")
    assert agents_of(site) == before
    gate.touch()
    site.wait_status(task, "S")
    site.ok(f"worker delete --worker-id {number}")
    wait_until(lambda: not site.workers() and not agents_of(site), "no agent is left")


def test_an_agent_that_is_killed_is_noticed_and_its_machine_forgotten(site: Site) -> None:
    number = site.ok("worker deploy --provider local.local --flavor local").id
    wait_until(lambda: [row["status"] for row in site.workers()] == ["ready"], "the worker")
    os.kill(agents_of(site)[0], signal.SIGKILL)
    wait_until(lambda: not site.workers(), "the worker's end", 90)
    assert site.ok(f"worker list --worker-id {number} --json").json[0]["status"] == "deleted"


def test_failed_deployments_back_off_and_say_so(site: Site) -> None:
    step = new_step(site, "doomed")
    number = site.ok(f"recruiter create --step-id {step} --filter provider~fake.never --max-workers 1").id
    task = site.create("true", f"--step-id {step}")

    def explained() -> str:
        return site.ok(f"recruiter explain --recruiter-id {number}").out

    wait_until(lambda: "could not be allocated" in explained(), "the provider's words")
    wait_until(lambda: "after a failed deployment" in explained() or "set aside" in explained(), "the back-off")
    made = json.loads((site.data / "providers" / "fake.never" / "cloud.json").read_text())
    assert made == {}
    site.ok(f"task cancel --id {task}")
    site.ok(f"recruiter delete --recruiter-id {number}")
    wait_until(lambda: not site.workers(), "failed recruits are forgotten")


def test_updates_and_permissions_of_recruiters(site: Site) -> None:
    step = new_step(site, "rules")
    number = site.ok(f"recruiter create --step-id {step} --filter 'cpu>1000' --cpus-per-task 2 --rank 3").id
    row = site.ok(f"recruiter list --step-id {step} --json").json[0]
    assert (row["id"], row["rank"], row["concurrency"], row["cpus_per_task"], row["filter"]) == (number, 3, None, 2, "cpu>1000")
    site.ok(f"recruiter update --recruiter-id {number} --concurrency 3")
    row = site.ok(f"recruiter show --recruiter-id {number} --json").json[0]
    assert (row["concurrency"], row["cpus_per_task"]) == (3, None)
    site.fails(f"recruiter create --step-id {step} --concurrency 1 --cpus-per-task 2", 2)
    site.fails(f"recruiter create --step-id {step} --filter 'cpu>>1'", 2)
    site.fails("recruiter create --step-id 9999", 5)
    other = site.shell("mallory")
    other.fails(f"recruiter update --recruiter-id {number} --rank 1", 7)
    other.fails(f"recruiter delete --recruiter-id {number}", 7)
    other.fails(f"recruiter create --step-id {step}", 7)
    task = site.create("true", f"--step-id {step}")
    wait_until(lambda: "no flavor" in site.ok(f"recruiter explain --recruiter-id {number}").out, "the explanation")
    assert not site.workers()
    site.ok(f"task cancel --id {task}")
    site.ok(f"recruiter delete --recruiter-id {number}")
    site.fails(f"recruiter show --recruiter-id {number}", 5)


def test_a_server_killed_at_any_moment_of_deployments_leaks_nothing(tmp_path: Path, scitq_argv: list[str]) -> None:
    file = tmp_path / "server" / "providers" / "fake.main" / "cloud.json"

    def alive() -> list[str]:
        return sorted(name for name, facts in json.loads(file.read_text()).items() if facts["deleted_s"] is None)

    def has_open_jobs() -> bool:
        return any(job["status"] in {"queued", "running"} for job in site.ok("job list --json").json)

    with Site(tmp_path, scitq_argv, sections={"providers": {"fake": {"main": {"latency": "0.4s"}}}}, worker=QUICK) as site:
        wait_until(lambda: site.ok("flavor list --filter provider~fake% --json").json, "the catalogue")
        # The provider's call takes 0.4 s: kills before it, in its midst, as it ends, and after.
        for moment_s in (0.0, 0.2, 0.38, 0.42, 0.7):
            ids = site.ok("worker deploy --provider fake.main --flavor small --count 2").ids
            time.sleep(moment_s)
            site.restart_server(signal.SIGKILL)
            wait_until(lambda: not has_open_jobs(), "no job is open")
            rows = site.workers()
            assert [row["id"] for row in rows] == ids
            assert alive() == sorted(row["machine"] for row in rows)
            site.ok(f"worker delete --worker-id {ids[0]} --worker-id {ids[1]}")
            time.sleep(moment_s)
            site.restart_server(signal.SIGKILL)
            wait_until(lambda: not alive() and not site.workers(), "nothing is left")
        assert len(json.loads(file.read_text())) == 10
