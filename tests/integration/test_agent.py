"""A real agent and a real server: what becomes of tasks when the agent is killed, ends or is told to do something."""

from __future__ import annotations

import signal
import subprocess

import pytest
from tests.lib.site import Site, end, wait_until

pytestmark = pytest.mark.xdist_group("agent")


@pytest.fixture(scope="module")
def site(tmp_path_factory, scitq_argv):
    with Site(tmp_path_factory.mktemp("agent"), scitq_argv, worker={"file_roots": ["/"]}) as site:
        start(site)
        yield site


def start(site: Site, name: str = "first", *, concurrency: int = 4, is_waited_for: bool = True) -> subprocess.Popen[bytes]:
    """An agent whose folder stays the same over restarts."""
    words = ["agent", "--config", str(site.config), "--work-dir", str(site.folder / name), "--name", name, "--runtime", "bare"]
    with (site.folder / f"{name}.log").open("ab") as log:
        process = site.start([*words, "--concurrency", str(concurrency)], stdout=log, stderr=log, start_new_session=True)
    site.agents.append(process)
    if is_waited_for:
        wait_until(lambda: [row for row in site.workers() if row["name"] == name and row["status"] == "ready"], f"the worker {name}")
    return process


def printed(site: Site, task: int) -> str:
    """What there is by now."""
    return site.ok(f"task output --id {task}").out


def gated(folder) -> str:
    return f"echo one; echo err >&2; while test ! -e {folder}/go; do sleep 0.05; done; echo two; exit 3"


def test_srv_03_tasks_outlive_an_agent_that_is_killed(site, tmp_path):
    runs = site.create(gated(tmp_path), "--shell sh")
    wait_until(lambda: "one" in printed(site, runs), "the first line")
    site.agents[-1].send_signal(signal.SIGKILL)
    site.agents[-1].wait()
    (tmp_path / "go").touch()
    start(site)
    assert site.wait_status(runs, "SF") == "F"
    assert sorted(printed(site, runs).split()) == ["err", "one", "two"]
    shown = site.show(runs)["row"]
    assert shown["exit_status"] == 3
    assert shown["attempt"] == 1


def test_srv_03_an_upload_that_was_cut_is_done_by_the_next_agent(site, tmp_path):
    output = tmp_path / "out"
    task = site.create(
        f"echo result > $OUTPUT/r.txt; echo more; while test ! -e {tmp_path}/go; do sleep 0.05; done",
        ["--shell", "sh", "--output", f"file://{output}/"],
    )
    wait_until(lambda: "more" in printed(site, task), "the first line")
    site.agents[-1].send_signal(signal.SIGKILL)
    site.agents[-1].wait()
    (tmp_path / "go").touch()
    start(site)
    assert site.wait_status(task, "SF") == "S", site.show(task)
    assert (output / "r.txt").read_text() == "result\n"


def test_a_second_agent_in_the_same_folder_is_refused(site):
    process = start(site, is_waited_for=False)
    assert process.wait(60) == 6
    assert "--work-dir" in (site.folder / "first.log").read_text()
    site.agents.remove(process)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("--step-id 99", 5, "there is no step 99"),
        ("--step " + "9" * 20, 5, "there is no step"),
        ("--step \u00b2", 5, "there is no step"),
        ("--concurrency 100000", 2, "concurrency lies between"),
    ],
)
def test_an_agent_that_asks_for_what_can_not_be_ends(site, tmp_path, words, status, said):
    ran = site.run(f"agent --config {site.config} --work-dir {tmp_path / 'work'} --runtime bare {words}")
    assert ran.status == status, ran
    assert said in ran.err


def test_a_kill_names_who_did_it_and_a_stop_lets_a_task_end_well(site):
    killed = site.create("sleep 600")
    stopped = site.create("trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.1; done", "--shell sh")
    site.wait_status(killed, "R")
    wait_until(lambda: "up" in printed(site, stopped), "the first line")
    site.ok(f"task kill --id {killed}")
    site.ok(f"task stop --id {stopped}")
    assert site.wait_status(killed, "SF") == "F"
    assert "admin" in site.show(killed)["row"]["reason"] or "kill" in site.show(killed)["row"]["reason"]
    assert site.wait_status(stopped, "SF") == "S"
    assert printed(site, stopped).startswith("up\n")
    assert printed(site, stopped).endswith("bye\n")


def test_out_03_a_time_limit_ends_a_task_and_its_output_is_uploaded(site, tmp_path):
    task = site.create("echo part > $OUTPUT/part; sleep 600", ["--shell", "sh", "--time-limit", "1s", "--output", f"file://{tmp_path}/o"])
    assert site.wait_status(task, "SF") == "F"
    assert site.show(task)["row"]["reason"] == "time limit"
    assert (tmp_path / "o/part").read_text() == "part\n"


def test_a_suspended_task_stands_still_until_it_is_resumed(site, tmp_path):
    task = site.create(gated(tmp_path), "--shell sh")
    wait_until(lambda: "one" in printed(site, task), "the first line")
    site.ok(f"task suspend --id {task}")
    site.wait_status(task, "Z")
    (tmp_path / "go").touch()
    assert "two" not in printed(site, task)
    site.ok(f"task resume --id {task}")
    assert site.wait_status(task, "SF") == "F"
    assert "two" in printed(site, task)


def test_out_04_files_of_a_failed_upload_are_kept_and_sent_again_also_by_the_next_agent(site, tmp_path):
    target = tmp_path / "target"
    target.write_text("a file where the folder should be")
    task = site.create("echo precious > $OUTPUT/p", ["--shell", "sh", "--output", f"file://{target}/"])
    assert site.wait_status(task, "SF") == "F"
    assert site.show(task)["row"]["reason"].startswith("upload")
    end(site.agents[-1], signal.SIGKILL)
    start(site)
    target.unlink()
    site.ok(f"task upload --id {task}")
    assert site.wait_status(task, "S") == "S"
    assert (target / "p").read_text() == "precious\n"


def test_log_06_why_a_task_did_not_run_is_in_its_log(site):
    task = site.create("nosuchprogram --flag")
    assert site.wait_status(task, "SF") == "F"
    assert "nosuchprogram" in printed(site, task)


def test_stt_05_figures_are_fresh(site):
    worker = site.workers()[0]["id"]
    [row] = wait_until(lambda: site.ok(f"worker stats --worker-id {worker} --json").json, "figures")
    assert row


def test_a_graceful_end_hands_back_what_has_not_started(site):
    process = start(site, "second", concurrency=1)
    first = site.agents[0] if site.agents[0].poll() is None else site.agents[-2]
    worker = next(row["id"] for row in site.workers() if row["name"] == "first" and row["status"] == "ready")
    site.ok(f"worker drain --worker-id {worker}")
    runs = site.create("sleep 600")
    site.wait_status(runs, "R")
    waits = site.create("true")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert site.wait_status(runs, "F") == "F"
    assert "worker lost" in site.show(runs)["row"]["reason"]
    assert site.status_of(waits) == "P"
    site.ok(f"worker resume --worker-id {worker}")
    assert site.wait_status(waits, "S") == "S"
    assert first.poll() is None
