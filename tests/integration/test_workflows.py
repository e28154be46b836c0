"""Workflows with a real server, the command line and a bare agent; the examples of docs/workflows.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.lib.site import Ran, Site, wait_until

PAGE = Path(__file__).resolve().parents[2] / "docs/workflows.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str]) -> Iterator[Site]:
    """A server without workers: the recruiters of the workflows start them on this machine."""
    folder = tmp_path_factory.mktemp("workflows")
    (folder / "store/bucket").mkdir(parents=True)
    with Site(folder, scitq_argv, rclone={"data": {"type": "local", "root": str(folder / "store")}}) as made:
        try:
            yield made
        finally:
            recruited = [str(worker["id"]) for worker in made.workers() if worker["machine"]]
            made.run(f"worker delete --worker-id {','.join(recruited)}")
            wait_until(lambda: not any(worker["machine"] for worker in made.workers()), "the end of the recruited workers")


@pytest.fixture(scope="module")
def worker(site: Site) -> int:
    """A worker of no step, started by hand."""
    before = {row["id"] for row in site.workers()}
    site.agent()
    (found,) = {row["id"] for row in site.workers()} - before
    return int(found)


@pytest.fixture(scope="module")
def bucket(site: Site) -> Path:
    return site.folder / "store/bucket"


def example(site: Site, name: str) -> Path:
    """One of the worked examples, as it stands on the page."""
    found = re.search(rf"```yaml\n(# file: {re.escape(name)}\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert found, name
    file = site.folder / name
    file.write_text(found[1])
    return file


def rows(site: Site, number: int, more: str = "") -> list[dict[str, Any]]:
    return site.tasks(f"--workflow-id {number} --limit 0 --oldest-first {more}")


def letters(site: Site, number: int) -> dict[str, str]:
    return {row["name"]: row["status"] for row in rows(site, number)}


def finish(site: Site, number: int, status: int = 0) -> None:
    """Wait for the end of a workflow, which the exit status tells."""
    waited = site.run(f"workflow wait --id {number} --timeout 120s", deadline_s=180)
    assert waited.status == status, (waited, letters(site, number), site.ok("recruiter list").out, site.ok("worker list").out)


def run(site: Site, file: Path, *more: str) -> Ran:
    return site.ok(["workflow", "run", str(file), "--json", *more], deadline_s=180)


def outputs(site: Site, number: int, step: str) -> list[str]:
    return [site.output(row["id"]).strip() for row in rows(site, number) if row["name"].split(".")[0] == step]


def test_the_first_example_goes_over_a_list(site: Site) -> None:
    file = example(site, "greet.yaml")
    made = run(site, file, "--param", "people=Ada,Grace,Barbara").json
    assert (made["name"], len(made["created"]), made["recruiters"]) == ("greet", 4, 2)
    finish(site, made["id"])
    assert outputs(site, made["id"], "hello") == ["Hello Ada", "Hello Grace", "Hello Barbara"]
    assert outputs(site, made["id"], "count") == ["said hello to 3 people, namely Ada,Grace,Barbara"]
    assert site.ok(f"workflow show --id {made['id']} --json").json["workflow"]["status"] == "succeeded"
    stats = site.ok("step stats --workflow-name greet --totals --json").json
    assert [(row["name"], row["counts"], row["succeeded_s"]["count"]) for row in stats] == [
        ("hello", {"S": 3}, 3),
        ("count", {"S": 1}, 1),
        ("total", {"S": 4}, 4),
    ]
    assert site.ok("workflow show --name greet --template").out.strip() == file.read_text().strip()
    begun = site.ok("workflow create --name greet-loud").id  # as a run that was interrupted leaves it: open
    loud = run(site, file, "--param", "loud=yes", "--name", "greet-loud", "--continue").json
    assert loud["id"] == begun
    finish(site, loud["id"])
    assert outputs(site, loud["id"], "shout") == ["ADA", "GRACE"]


def test_the_second_example_maps_samples_and_continues_with_new_ones(site: Site, bucket: Path) -> None:
    file = example(site, "reads.yaml")
    (bucket / "raw").mkdir()

    def sample(name: str, lines: int) -> None:
        for end in (1, 2):
            (bucket / f"raw/{name}_{end}.txt").write_text("# head\n" + "x\n" * lines)

    sample("A", 2)
    sample("B", 5)
    params = ["--param", "reads=data://bucket/raw", "--param", "results=data://bucket/results"]
    planned = run(site, file, *params, "--dry-run").json
    assert [task["name"] for task in planned["tasks"]] == ["clean.A", "clean.B", "count.A", "count.B", "report"]
    assert planned["tasks"][2]["depends_on"] == ["clean.A"]
    assert site.run("workflow show --name reads").status == 5
    made = run(site, file, *params).json
    finish(site, made["id"])
    report = bucket / "results/final/report/report.txt"
    assert report.read_text().splitlines() == ["A 4", "B 10", "A is clean", "B is clean"]
    again = run(site, file, *params, "--continue").json
    assert (again["id"], again["created"], again["retried"], again["kept"]) == (made["id"], [], [], 5)
    sample("C", 1)
    more = run(site, file, *params, "--continue").json
    assert (len(more["created"]), len(more["retried"]), more["kept"]) == (2, 1, 4)
    finish(site, made["id"])
    assert report.read_text().splitlines() == ["A 4", "B 10", "C 2", "A is clean", "B is clean", "C is clean"]
    assert len(rows(site, made["id"], "--show-hidden")) == 8


def test_the_third_example_has_several_dimensions_and_accepts_a_failure(site: Site, bucket: Path) -> None:
    made = run(site, example(site, "grid.yaml"), "--param", "work=data://bucket/grid").json
    assert made["name"] == "grid.first"
    assert len(rows(site, made["id"])) == 2 + 9 + 3 + 1 + 2
    finish(site, made["id"], 10)
    folder = bucket / "grid/grid.first/summary"
    assert (folder / "a/a.summary").read_text() == "FIRST-010 a 30\nFIRST-020 a 60\n"
    assert (folder / "b/b.summary").read_text() == "FIRST-030 b 90\n"
    assert letters(site, made["id"])["doubtful"] == "F"
    other = run(site, example(site, "grid.yaml"), "--param", "work=data://bucket/grid", "--param", "run=second", "--dry-run").json
    assert (other["name"], "doubtful" in {task["step"] for task in other["tasks"]}) == ("grid.second", False)


def test_continue_retries_what_failed_with_what_the_file_says_now(site: Site) -> None:
    file = site.folder / "fix.yaml"
    text = "name: fix\ncontainer: bare\nworker_pool: {provider: local.local, max: 1}\nsteps:\n"
    text += "  - {name: a, command: sh -c 'exit 3'}\n  - {name: b, depends: a, command: echo done}\n"
    file.write_text(text)
    made = run(site, file).json
    finish(site, made["id"], 10)
    assert letters(site, made["id"]) == {"a": "F", "b": "W"}
    refused = site.fails(["workflow", "run", str(file)], 6)
    assert "--continue" in refused.err
    file.write_text(text.replace("exit 3", "exit 0"))
    again = run(site, file, "--continue").json
    assert (len(again["retried"]), again["kept"]) == (1, 1)
    finish(site, made["id"])
    assert letters(site, made["id"]) == {"a": "S", "b": "S"}


def test_nothing_is_made_of_a_file_with_mistakes(site: Site) -> None:
    file = site.folder / "bad.yaml"
    file.write_text("name: bad\nsteps:\n  - name: a\n    container: bare\n    command: echo {params.x}\n    inputs: nowhere://bucket/x\n")
    failed = site.fails(["workflow", "run", str(file)], 2)
    assert f"{file}:5: there is no parameter 'x'" in failed.err
    file.write_text(file.read_text().replace("{params.x}", "hi"))
    assert "nowhere" in site.fails(["workflow", "run", str(file)], 2).err
    file.write_text("name: bad\nsteps:\n  - name: a\n    container: --privileged\n    command: ls\n")
    assert f"{file}:3: the task a: '--privileged' is no name of a container image" in site.fails(["workflow", "run", str(file)], 2).err
    file.write_text("name: bad\niterate: {name: s, uri: data://bucket/nothing/}\ncontainer: bare\nsteps:\n  - {name: a, command: ls}\n")
    assert f"{file}:2: " in site.fails(["workflow", "run", str(file)], 2).err
    file.write_bytes(b"name: bad\nsteps: # caf\xe9\n")
    assert f"{file}:2: no UTF-8 text" in site.fails(["workflow", "run", str(file)], 2).err
    text = "name: bad\ncontainer: bare\nsteps:\n  - {name: a, command: ls, retry: 1001}\n"
    assert "-:4: retry must be" in site.fails("workflow run -", 2, stdin=text).err
    text = "name: bad\ncontainer: bare\nsteps:\n  - {name: a, command: ls, worker_pool: {provider: nobody.none}}\n"
    assert "'nobody.none'" in site.fails("workflow run -", 2, stdin=text).err
    assert "can't name a workflow" in site.fails(["workflow", "run", "-", "--name", ""], 2, stdin=text).err
    assert site.ok("workflow list --name bad --json").json == []
    assert site.ok("workflow run - --dry-run --quiet", stdin=text).out.split() == ["a"]


def test_parameters_are_shown_and_read_from_files(site: Site) -> None:
    file = example(site, "reads.yaml")
    shown = site.ok(["workflow", "run", str(file), "--params", "--json"], env={"SCITQ_SERVER": "127.0.0.1:1"}).json
    assert [(param["name"], param["is_required"]) for param in shown] == [("reads", True), ("results", True)]
    missing = site.fails(["workflow", "run", str(file)], 2)
    assert "the parameter reads is required" in missing.err
    assert "the parameter results is required" in missing.err
    (site.folder / "people.txt").write_text("Zoe\nYann\n")
    listed = site.ok(
        ["workflow", "run", str(example(site, "greet.yaml")), "--param", f"people=@{site.folder / 'people.txt'}", "--dry-run", "--quiet"]
    )
    assert listed.out.split() == ["hello.Zoe", "hello.Yann", "count"]


def test_i_a_workflow_made_by_hand_starts_when_it_is_finalized(site: Site, worker: int) -> None:
    number = site.ok("workflow create --name by-hand --maximum-workers 3").id
    step = site.ok("step create --workflow-name by-hand --name one --retry 1").id
    assert site.fails("step create --workflow-id 99999 --name one", 5)
    assert site.fails("step create --workflow-name by-hand --name one", 6)
    first = site.create("false", f"--step {step}")
    second = site.create("echo two", f"--step-id {step} --depends-on {first}")
    assert [site.status_of(first), site.status_of(second)] == ["I", "I"]
    assert [row["id"] for row in site.tasks(f"--step {step}")] == [second, first]
    assert site.fails(f"workflow wait --id {number} --timeout 0.1s", 124)
    site.ok("workflow finalize --name by-hand")
    assert [site.status_of(first), site.status_of(second)] == ["P", "W"]
    site.ok("workflow suspend --name by-hand")
    assert [site.status_of(first), site.status_of(second)] == ["Z", "Z"]
    site.ok("workflow resume --name by-hand")
    site.ok("step pause --workflow-name by-hand --name one")
    assert site.ok(f"step show --step {step} --json").json["is_paused"] is True
    site.ok(f"step resume --step-id {step}")
    site.ok(f"worker update --worker-id {worker} --step-id {step}")
    finish(site, number, 10)
    assert site.ok(f"step stats --step {step} --json").json[0]["retried"] == 1
    site.ok(f"step pause --step-id {step}")
    retried = site.ok(f"step retry --step {step}").id
    assert site.status_of(retried) == "P"
    site.ok("workflow cancel --name by-hand")
    assert [site.status_of(retried), site.status_of(second)] == ["X", "X"]
    finish(site, number, 10)
    site.ok("workflow delete --name by-hand")
    site.fails(f"step show --step {step}", 5)
    site.fails(f"task show --id {first}", 5)
    assert "by-hand" not in site.ok("workflow list").out


def test_cre_02_a_worker_takes_only_tasks_of_its_step_and_no_step_is_a_group_of_its_own(site: Site, worker: int) -> None:
    site.ok("workflow create --name groups")
    site.ok("workflow finalize --name groups")
    first, second = (site.ok(f"step create --workflow-name groups --name {name}").id for name in ("a", "b"))
    site.ok(f"worker update --worker-id {worker} --step {first}")
    loose = site.create("echo loose")
    of_second = site.create("echo second", f"--step {second}")
    of_first = [site.create("echo first", f"--step {first}") for _ in range(2)]
    for task in of_first:
        site.wait_status(task, "S")
    assert [site.status_of(task) for task in (loose, of_second)] == ["P", "P"]
    site.ok(f"worker update --worker-id {worker} --step-id {second}")
    site.wait_status(of_second, "S")
    assert site.status_of(loose) == "P"
    site.ok(f"worker update --worker-id {worker} --step 0")
    site.wait_status(loose, "S")


def test_lst_05_and_06_tasks_are_listed_by_worker_by_step_and_by_workflow(site: Site, worker: int) -> None:
    number = site.ok("workflow create --name lists").id
    site.ok("workflow finalize --name lists")
    first, second = (site.ok(f"step create --workflow-name lists --name {name}").id for name in ("a", "b"))
    site.ok(f"worker update --worker-id {worker} --step {first}")
    done = site.create("echo done", f"--step {first}")
    site.wait_status(done, "S")
    gate = site.folder / "gate-lists"
    running = site.create(f"sh -c 'until test -e {gate}; do sleep 0.1; done'", f"--step {first}")
    site.wait_status(running, "R")
    pending = site.create("echo pending", f"--step {first}")
    other = site.create("echo other", f"--step {second}")

    def listed(more: str) -> list[int]:
        return site.ok(f"task list --quiet --limit 0 {more}").ids

    assert listed(f"--worker-id {worker} --workflow-id {number}") == [running, done]
    assert listed(f"--worker-id {worker} --status R") == [running]
    assert listed(f"--step-id {first}") == [pending, running, done]
    assert listed(f"--step {second}") == [other]
    assert listed(f"--workflow-id {number}") == [other, pending, running, done]
    assert listed(f"--workflow-id {number} --status P --step {first}") == [pending]
    assert listed("--worker-id 99999") == []
    gate.touch()
    site.wait_status(pending, "S")
    assert listed(f"--worker-id {worker} --step {first}") == [pending, running, done]
    site.ok(f"worker update --worker-id {worker} --step 0")
