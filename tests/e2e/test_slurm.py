"""Pilot jobs on a real Slurm: from the work to the workers and back, without a hand on it."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.lib.services import SlurmService
from tests.lib.site import Site, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str], slurm_service: SlurmService) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("slurm")
    main: dict[str, Any] = {
        "conf": slurm_service.conf,
        "work_dir": str(folder / "pilots"),
        "flavors": {"tiny": {"partition": slurm_service.partition, "cpus": 1, "mem": 0.1}},
        "cost": {"tiny": 0.01, "main": 1},
        "eviction": {"tiny": 3},
        "time": "10m",
    }
    quick = {"janitor_period": "1s", "release_after": "1s"}
    with Site(folder, scitq_argv, sections={"providers": {"slurm": {"main": main}}}, worker=quick) as site:
        wait_until(lambda: "tiny" in site.ok("flavor list --limit 0 --filter eviction<=100").out, "the catalogue")
        try:
            yield site
        finally:
            for row in site.workers():
                site.run(f"worker delete --worker-id {row['id']}")
            wait_until(lambda: not queue(site, slurm_service), "no job is left")


def queue(site: Site, service: SlurmService) -> dict[str, str]:
    """Living pilot jobs of this site's server: state by machine name."""
    env = os.environ | {"SLURM_CONF": str(service.conf)}
    shown = subprocess.run(["squeue", "-h", "-o", "%j|%T|%o"], env=env, capture_output=True, text=True, timeout=60, check=True).stdout
    known = {row["machine"] for row in site.ok("worker list --show-deleted --json").json}
    found = dict(line.split("|")[:2] for line in shown.splitlines())
    return {name: state for name, state in found.items() if name in known}


def new_step(site: Site, name: str) -> int:
    workflow = site.ok(f"workflow create --name {name}").id
    site.ok(f"workflow finalize --workflow-id {workflow}")
    return site.ok(f"step create --workflow-id {workflow} --name work").id


def states(site: Site, step: int) -> list[str]:
    return sorted(row["status"] for row in site.tasks(f"--step-id {step} --limit 0"))


def test_flavors_come_from_partitions_with_cost_and_eviction(site: Site, slurm_service: SlurmService) -> None:
    rows = {row["name"]: row for row in site.ok("flavor list --limit 0 --filter provider~slurm.main:eviction<=100 --json").json}
    assert rows[slurm_service.partition]["cpu"] >= 1
    assert (rows["main"]["cost"], rows["main"]["eviction"]) == (1, 0)
    assert (rows["tiny"]["cpu"], rows["tiny"]["cost"], rows["tiny"]["eviction"]) == (1, 0.01, 3)
    assert " UP" in site.ok("provider check --provider slurm.main").out


def test_a_dry_run_shows_the_script_and_submits_nothing(site: Site, slurm_service: SlurmService) -> None:
    shown = site.ok("worker deploy --provider slurm.main --flavor main --count 4 --time-limit 90m --dry-run").out
    assert shown.startswith("#!/bin/sh")
    assert f"#SBATCH --partition={slurm_service.partition}" in shown
    assert "#SBATCH --time=0-01:30:00" in shown
    assert re.search(r"#SBATCH --job-name=scitq-[0-9a-f]+-\d+", shown)
    assert " agent --server" in shown
    token = next(site.data.glob("worker.token")).read_text()
    assert token not in shown
    assert site.workers() == []
    subprocess.run(["sh", "-n"], input=shown, text=True, check=True, timeout=60)


def test_from_the_work_to_all_workers_released(site: Site, slurm_service: SlurmService) -> None:
    step = new_step(site, "by-itself")
    site.ok(f"recruiter create --step-id {step} --filter provider~slurm.main:flavor~tiny --max-workers 2")
    site.ok(["task", "create", "--container", "bare", "--command", "sh -c 'sleep 1'", "--step-id", str(step), "--array", "1-4"])
    wait_until(lambda: states(site, step) == ["S"] * 4, "all tasks S", 120)
    wait_until(lambda: not site.workers() and not queue(site, slurm_service), "all workers released", 120)
    made = [row for row in site.ok("worker list --show-deleted --json").json if row["step_id"] == step]
    assert 1 <= len(made) <= 2
    assert all(row["ends_ms"] for row in made if row["seen_ms"])
    assert not list((site.data / "providers" / "slurm.main").glob("*.token"))


def test_queued_allocations_that_are_no_longer_needed_are_cancelled(site: Site, slurm_service: SlurmService) -> None:
    step = new_step(site, "too-many")
    # More than the node has CPUs: the rest stays in Slurm's queue.
    site.ok(f"recruiter create --step-id {step} --filter provider~slurm.main:flavor~tiny")
    ids = site.ok(["task", "create", "--container", "bare", "--command", "sleep 600", "--step-id", str(step), "--array", "1-12"]).ids
    wait_until(lambda: "PENDING" in queue(site, slurm_service).values() and "R" in states(site, step), "a queued pilot", 120)
    pending = [row["id"] for row in site.tasks(f"--step-id {step} --limit 0") if row["status"] == "P"]
    site.ok(["task", "cancel", *[word for each in pending for word in ("--id", str(each))]])
    wait_until(lambda: "PENDING" not in queue(site, slurm_service).values(), "the queued pilots' end", 120)
    assert queue(site, slurm_service)
    site.ok(["task", "kill", *[word for each in ids if each not in pending for word in ("--id", str(each))]])
    wait_until(lambda: not site.workers() and not queue(site, slurm_service), "all workers released", 120)


def test_blocked_tasks_ask_for_no_allocation(site: Site, slurm_service: SlurmService) -> None:
    step = new_step(site, "blocked")
    first = site.create("true")
    site.ok(f"recruiter create --step-id {step} --filter provider~slurm.main:flavor~tiny")
    recruiter = site.ok(f"recruiter list --step-id {step} --json").json[0]["id"]
    waiting = site.create("true", f"--step-id {step} --depends-on {first}")
    wait_until(lambda: "never causes a deployment" in site.ok(f"recruiter explain --recruiter-id {recruiter}").out, "the explanation")
    assert site.workers() == []
    site.ok(f"task cancel --id {waiting} --id {first}")


def test_a_cancelled_pilot_is_noticed_and_its_task_runs_again(site: Site, slurm_service: SlurmService) -> None:
    step = new_step(site, "cancelled")
    marker = Path(site.folder) / "second"
    site.ok(f"recruiter create --step-id {step} --filter provider~slurm.main:flavor~tiny")
    command = f"sh -c 'test -e {marker} || {{ touch {marker}; sleep 600; }}'"
    task = site.create(command, f"--step-id {step} --retry 1")
    site.wait_status(task, "R", 120)
    wait_until(marker.exists, "the start")
    (machine,) = queue(site, slurm_service)
    subprocess.run(["scancel", f"--name={machine}"], env=os.environ | {"SLURM_CONF": str(slurm_service.conf)}, check=True, timeout=60)
    wait_until(lambda: states(site, step) == ["S"], "the second try", 120)
    wait_until(lambda: not site.workers() and not queue(site, slurm_service), "all workers released", 120)


WORKFLOW = """
name: squares
worker_pool: {provider: slurm.main, flavor: tiny, max: 2}
steps:
  - name: one
    container: bare
    each: {number: [1, 2, 3]}
    command: sh -c 'echo {number}'
  - name: two
    container: bare
    each: {number: [1, 2, 3]}
    command: sh -c 'echo {number}'
    depends: one
"""


def test_a_workflow_from_a_file_runs_on_slurm_without_a_hand_on_it(site: Site, slurm_service: SlurmService) -> None:
    file = site.folder / "squares.yaml"
    file.write_text(WORKFLOW)
    ran = site.ok(f"workflow run {file} --json").json
    number = ran["id"] if isinstance(ran, dict) else ran[0]["id"]
    site.ok(f"workflow wait --id {number} --timeout 150s", deadline_s=170)
    rows = site.tasks(f"--workflow-id {number} --limit 0")
    assert [row["status"] for row in rows] == ["S"] * 6
    wait_until(lambda: not site.workers() and not queue(site, slurm_service), "all workers released", 120)
