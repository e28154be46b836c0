"""Workers that come when there is work and go when there is none: real agents, started by the providers local and fake."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
from tests.lib.fleet import agents_of, is_sleeping
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
    command = f"test -e {marker} || {{ echo $$ >{marker}.new; mv {marker}.new {marker}; exec sleep 600; }}"
    task = site.create(command, f"--step-id {step} --shell sh")
    site.wait_status(task, "R")
    wait_until(marker.exists, "the task's start")
    (first,) = [row for row in site.workers() if row["step_id"] == step]
    (site.data / "providers" / "fake.cloud" / f"evict-{first['machine']}").touch()
    wait_until(lambda: tasks_of(site, step) == ["S"], "the second try")
    hidden = site.show(task)
    assert hidden["row"]["status"] == "F"
    assert "evicted" in hidden["row"]["reason"]
    assert not is_sleeping(marker)
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


def test_an_agent_that_is_killed_is_noticed_and_its_tasks_end_and_run_elsewhere(site: Site) -> None:
    step = new_step(site, "killed")
    number = site.ok(f"worker deploy --provider local.local --flavor local --step {step}").id
    marker = site.folder / "first-time"
    command = f"test -e {marker} || {{ echo $$ >{marker}.new; mv {marker}.new {marker}; exec sleep 600; }}"
    task = site.create(command, f"--step-id {step} --shell sh --retry 1")
    wait_until(marker.exists, "the task's start")
    machine = site.data / "providers" / "local.local" / site.workers()[0]["machine"]
    os.kill(int((machine / "pid").read_text().split()[0]), signal.SIGKILL)
    wait_until(lambda: not site.workers(), "the worker's end")
    assert site.ok(f"worker list --worker-id {number} --json").json[0]["status"] == "deleted"
    wait_until(lambda: not agents_of(site), "the end of its keeper")
    assert not is_sleeping(marker)
    assert "worker lost" in site.show(task)["row"]["reason"]
    site.ok(f"worker deploy --provider local.local --flavor local --step {step}")
    wait_until(lambda: tasks_of(site, step) == ["S"], "the second try")
    site.ok(f"worker delete --worker-id {site.workers()[0]['id']}")
    wait_until(lambda: not site.workers() and not agents_of(site), "no agent is left")


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
