"""Pilot jobs on a real Slurm: from the work to the workers and back, without a hand on it."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.lib.fleet import is_sleeping
from tests.lib.podman import as_user, can_run, give, open_way, ordinary_user
from tests.lib.services import IN_CI, SlurmService
from tests.lib.site import Site, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]
QUICK = {"janitor_period": "1s", "release_after": "1s"}


def tiny(service: SlurmService) -> dict[str, Any]:
    """A flavor small enough for eight at once."""
    return {"tiny": {"partition": service.partition, "cpus": 1, "mem": 0.1}}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str], slurm_service: SlurmService) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("slurm")
    main: dict[str, Any] = {
        "conf": slurm_service.conf,
        "work_dir": str(folder / "pilots"),
        "flavors": tiny(slurm_service),
        "cost": {"tiny": 0.01, "main": 1},
        "eviction": {"tiny": 3},
        "time": "10m",
    }
    with Site(folder, scitq_argv, sections={"providers": {"slurm": {"main": main}}}, worker=QUICK) as site:
        wait_until(lambda: "tiny" in site.ok("flavor list --limit 0 --filter eviction<=100").out, "the catalogue")
        try:
            yield site
        finally:
            clear(site, slurm_service)


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


class Ends:
    """Allocations of one minute, from the beginning of this module on, with tasks that stay until they are cut off.

    known: the agent knows the end. hung: the agent is stopped, and Slurm ends it. moved: the end is moved while it works.
    """

    def __init__(self, site: Site, service: SlurmService) -> None:
        self.site, self.service = site, service
        self.tasks: dict[str, int] = {}
        self.recruiters: dict[str, int] = {}
        self.steps: dict[str, int] = {}
        for name in ("known", "hung", "moved"):
            step = self.steps[name] = new_step(site, name)
            wanted = f"--filter provider~slurm.{name}:flavor~tiny --concurrency 2 --rounds 9 --max-workers 1"
            self.recruiters[name] = site.ok(f"recruiter create --step-id {step} {wanted}").id
            marker = self.marker(name)
            command = f"test -e {marker} || {{ echo $$ >{marker}.new; mv {marker}.new {marker}; exec sleep 600; }}"
            self.tasks[name] = site.create(command, f"--step-id {step} --shell sh --retry 0")
        self.tasks["longer than any"] = site.create("true", f"--step-id {self.steps['known']} --time-request 10m")
        for name in self.steps:
            wait_until(lambda name=name: self.marker(name).exists(), f"the start of {name}", 120)
        os.kill(self.agent("hung"), signal.SIGSTOP)
        self.slurm("scontrol", "update", f"JobName={self.worker('moved')['machine']}", "TimeLimit=1")
        wait_until(lambda: self.seconds_left("moved") < 60, "the agent's knowledge of its new end")
        self.tasks["longer than the rest"] = site.create("true", f"--step-id {self.steps['moved']} --time-request 2m")

    def marker(self, name: str) -> Path:
        return self.site.folder / f"{name}.pid"

    def newest(self, task: int) -> dict[str, Any]:
        """The row of the last try."""
        row: dict[str, Any] = self.site.show(task)["row"]
        return self.newest(row["successor_id"]) if row["successor_id"] else row

    def worker(self, name: str) -> dict[str, Any]:
        return next(row for row in self.site.workers() if row["step_id"] == self.steps[name])

    def seconds_left(self, name: str) -> float:
        return float(self.worker(name)["ends_ms"] / 1000 - time.time())

    def agent(self, name: str) -> int:
        """The pid of the agent that runs the step's worker: the oldest process with its machine's name among its words."""
        machine = self.worker(name)["machine"].encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if machine in words and b"--machine" in words:
                        started = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[19])
                        found.append((started, int(entry.name)))  # its keeper is younger, though its number may be smaller
        return min(found)[1]

    def slurm(self, *words: str) -> None:
        subprocess.run(words, env=os.environ | self.service.environment(), check=True, timeout=60, capture_output=True)


@pytest.fixture(scope="module", autouse=True)
def ends(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str], slurm_service: SlurmService) -> Iterator[Ends]:
    """Started before the first test of this module and looked at by the last ones: a minute is long."""
    folder = tmp_path_factory.mktemp("ends")
    common: dict[str, Any] = {"conf": slurm_service.conf, "work_dir": str(folder / "pilots"), "flavors": tiny(slurm_service)}
    providers = {"known": common | {"time": "1m"}, "hung": common | {"time": "1m"}, "moved": common | {"time": "10m"}}
    with Site(folder, scitq_argv, sections={"providers": {"slurm": providers}}, worker=QUICK) as site:
        wait_until(lambda: site.ok("flavor list --limit 0").out.count("tiny") == 3, "the catalogue")
        try:
            yield Ends(site, slurm_service)
        finally:
            clear(site, slurm_service)


def clear(site: Site, service: SlurmService) -> None:
    """Delete the site's workers, and wait for the end of their jobs."""
    for row in site.workers():
        site.run(f"worker delete --worker-id {row['id']}")
    wait_until(lambda: not queue(site, service), "no job is left")


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


def test_an_ordinary_users_server_runs_its_pilots_as_that_user(scitq_argv: list[str], slurm_service: SlurmService) -> None:
    # Not in pytest's folder, which every other run of pytest closes to other users.
    with tempfile.TemporaryDirectory(prefix="scitq-slurm-") as name, ordinary_user("scitqslurm") as user:
        folder = Path(name)
        argv = scitq_argv
        if len(argv) == 1:
            argv = [shutil.copy2(argv[0], folder / "scitq")]
        # A rootless podman, were one looked for, would leave a process of its own behind.
        bare = ["--runtime", "bare"]
        main = {"conf": slurm_service.conf, "work_dir": f"{name}/pilots", "flavors": tiny(slurm_service), "arguments": bare}
        file = folder / "who.yaml"
        file.write_text(WORKFLOW.replace("echo {number}", "echo {number} $(id -u)"))
        (folder / "pilots").mkdir()
        site = Site(
            folder / "site", [*as_user(user), *argv], sections={"providers": {"slurm": {"main": main}}}, worker=QUICK, is_started=False
        )
        give(folder, user)
        open_way(Path(slurm_service.conf))
        if not IN_CI and not can_run(user, [argv[0], "--version"]):
            pytest.skip(f"{argv[0]} lies where only its owner may go; try --exe")
        with site:
            site.start_server()
            site.login()
            wait_until(lambda: "tiny" in site.ok("flavor list --limit 0").out, "the catalogue")
            site.ok(f"workflow run {file}")
            wait_until(lambda: [row["status"] for row in site.tasks("--limit 0")] == ["S"] * 6, "all tasks S", 120)
            uid = str(pwd.getpwnam(user).pw_uid)
            assert {tuple(site.output(row["id"]).split()) for row in site.tasks("--limit 0")} == {(number, uid) for number in "123"}
            wait_until(lambda: not site.workers() and not queue(site, slurm_service), "all workers released", 120)
            assert not list(site.data.glob("providers/slurm.main/*.token"))
            wait_until(lambda: not list((folder / "pilots").iterdir()), "the pilots' folders are removed")


def test_a_task_cut_by_the_walltime_runs_again_without_paying_for_it(ends: Ends) -> None:
    # Slurm wakes a stopped agent before it kills it: then either says why.
    for name, why in (("known", r"\(walltime\)"), ("hung", r"\(walltime\)|evicted: timeout"), ("moved", r"\(walltime\)")):
        task = ends.tasks[name]
        wait_until(lambda task=task: ends.newest(task)["status"] == "S", f"the second try of {name}", 150)
        first = ends.site.show(task)["row"]
        assert first["status"] == "F"
        assert re.search(why, first["reason"]), first
        assert ends.newest(task)["id"] == first["successor_id"], "it was cut once"
        wait_until(lambda name=name: not is_sleeping(ends.marker(name)), f"the end of the first try of {name}", 90)


def test_an_allocation_gets_no_task_that_would_outlast_it(ends: Ends) -> None:
    shown = ends.site.show(ends.tasks["longer than any"])
    assert shown["row"]["status"] == "P"
    assert not {"A", "C", "R"} & {change["status"] for change in shown["changes"]}
    said = "no flavor that passes the filter can run its pending tasks, which ask for 600 seconds"
    wait_until(lambda: said in ends.site.ok(f"recruiter explain --recruiter-id {ends.recruiters['known']}").out, "the explanation")
    ends.site.wait_status(ends.tasks["longer than the rest"], "S", 150)
    row = ends.site.show(ends.tasks["longer than the rest"])["row"]
    assert row["attempt"] == 1
    assert row["worker_id"] != ends.site.show(ends.tasks["moved"])["row"]["worker_id"]
