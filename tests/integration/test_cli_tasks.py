"""What users do with tasks that run: contract CRE, HID, RTY, LOG and the exit of waits, with a real worker for bare tasks."""

from __future__ import annotations

import hashlib
import subprocess

import pytest
from tests.lib.site import Site, wait_until
from tests.lib.terminal import Terminal

pytestmark = pytest.mark.xdist_group("cli_tasks")


@pytest.fixture(scope="module")
def site(tmp_path_factory, scitq_argv):
    with Site(tmp_path_factory.mktemp("tasks"), scitq_argv) as site:
        site.agent(concurrency=4)
        yield site


def wait_and_read(site: Site, task: int) -> str:
    site.run(f"task wait --id {task}")
    return site.ok(f"task output --id {task}").out


def test_cre_05_the_hello_world_of_the_guide(site):
    task = site.create('echo "hello world"')
    assert site.wait_status(task, "SF") == "S"
    assert wait_and_read(site, task) == "hello world\n"


def test_cre_06_nothing_is_interpreted_without_a_shell(site):
    assert wait_and_read(site, site.create('echo "hello world"|tr "h" "H"')) == "hello world|tr h H\n"
    assert wait_and_read(site, site.create("echo '*' ~ '#' '$HOME' '>' '&&' ';'")) == "* ~ # $HOME > && ;\n"


def test_cre_07_a_shell_interprets(site):
    assert wait_and_read(site, site.create('echo "hello world"|tr "h" "H"', "--shell sh")) == "Hello world\n"


def test_cre_08_python(site):
    assert (
        wait_and_read(site, site.create("print('Hello world')\nprint('Python rules!')", "--shell python3"))
        == "Hello world\nPython rules!\n"
    )


def test_cre_10_long_commands(site):
    task = site.ok(
        ["task", "create", "--container", "bare", "--script", "-"], stdin="#!/bin/sh\n" + "# 0123456789abcdef\n" * 55_000 + "echo long\n"
    ).id
    assert wait_and_read(site, task) == "long\n"


def test_cre_11_the_exit_status_is_kept(site):
    tasks = {status: site.create(f"exit {status}", "--shell sh") for status in (0, 3, 127)}
    for status, task in tasks.items():
        assert site.wait_status(task, "SF") == ("S" if status == 0 else "F")
        assert site.show(task)["row"]["exit_status"] == status
    assert "no such program" in site.ok(f"task show --id {tasks[127]}").out


def test_a_task_finds_its_array_and_environment(site):
    words = ["task", "create", "--container", "bare", "--shell", "sh", "--env", "COLOUR=blue", "--each-line", "-", "--wait"]
    command = 'echo "$SCITQ_ARRAY_INDEX $SCITQ_ITEM $COLOUR $SCITQ_TASK_ID"'
    made = site.ok([*words, "--command", command], stdin="first\nsecond one\n")
    for index, (task, item) in enumerate(zip(made.ids, ("first", "second one"), strict=True), 1):
        assert site.output(task) == f"{index} {item} blue {task}\n"


def test_waits_say_how_it_ended(site):
    good, bad = site.create("true"), site.create("false")
    site.ok(f"task wait --id {good}")
    ran = site.fails(f"task wait --id {good},{bad}", 10)
    assert ran.out == ""
    assert str(bad) in ran.err
    slow = site.create("sleep 300")
    site.ok(f"task wait --any --id {good} --id {slow}")
    site.fails(f"task wait --id {slow} --timeout 0.2", 124)
    site.ok(f"task kill --id {slow}")
    site.fails(f"task wait --id {slow}", 10)
    assert site.show(slow)["row"]["status"] == "F"
    assert site.ok("task create --container bare --command true --wait").id > slow
    assert site.fails("task create --container bare --command false --wait", 10).id


def test_a_followed_wait_has_its_timeout(site):
    task = site.create("echo begun; sleep 300", "--shell sh")
    wait_until(lambda: "begun" in site.ok(f"task output --id {task}").out, "the first line")
    ran = site.fails(f"task wait --id {task} --follow --timeout 0.5s", 124)
    assert ran.out == "begun\n"
    site.ok(f"task kill --id {task}")
    assert site.fails(f"task wait --id {task} --follow --timeout 60s", 10).out.startswith("begun\n")
    assert "no --json" in site.fails(f"task wait --id {task} --follow --json", 2).err


def test_output_as_json(site):
    task = site.create("echo one; echo two >&2; printf 'é\\377'", "--shell sh")
    site.ok(f"task wait --id {task}")
    (shown,) = site.ok(f"task output --id {task} --json").json
    assert shown == {"id": task, "stdout": "one\né\ufffd", "stderr": "two\n", "notes": ""}
    (last,) = site.ok(f"task output --id {task} --json --tail 1").json
    assert last["stdout"] == "é\ufffd"


def test_waiting_shows_progress_on_a_terminal_only(site):
    task = site.create("true", "--hold")
    with Terminal([*site.argv, "task", "wait", "--id", str(task)], site.environment) as terminal:
        terminal.expect("0/1")
        site.ok(f"task resume --id {task}")
        assert terminal.end() == (0, "")
    assert site.ok(f"task wait --id {task}").err == ""


def test_log_01_both_streams_in_order(site):
    task = site.create("echo one; echo two >&2; echo three", "--shell sh")
    assert sorted(wait_and_read(site, task).splitlines()) == ["one", "three", "two"]
    assert site.ok(f"task output --id {task} --stdout").out == "one\nthree\n"
    assert site.ok(f"task output --id {task} --stderr").out == "two\n"
    task = site.create("for i in 1 2 3; do echo o$i; sleep 0.2; echo e$i >&2; sleep 0.2; done", "--shell sh")
    assert wait_and_read(site, task) == "o1\ne1\no2\ne2\no3\ne3\n"


def test_log_02_following_to_any_end(site):
    for command, status in (("echo a; sleep 1; echo b", "S"), ("echo a; sleep 1; echo b; exit 4", "F")):
        task = site.create(command, "--shell sh")
        assert site.ok(f"task output --id {task} --follow").out == "a\nb\n"
        assert site.status_of(task) == status
    task = site.create("echo begun; sleep 300", "--shell sh")
    following = site.start(f"task output --id {task} --follow")
    assert following.stdout is not None
    assert following.stdout.readline() == b"begun\n"
    site.ok(f"task kill --id {task}")
    following.communicate(timeout=60)
    assert following.returncode == 0
    assert site.fails(f"task wait --id {site.create('echo x; exit 5', '--shell sh')} --follow", 10).out == "x\n"


def test_log_03_odd_output(site):
    script = (
        "import sys, os\n"
        "out = sys.stdout.buffer\n"
        "out.write(b'x' * (1 << 20) + b'\\n')\n"
        "out.write(bytes(range(256)) + b'\\r' * 1000)\n"
        "for i in range(100000): out.write(b'%d\\n' % i)\n"
        "out.write(b'no newline')\n"
    )
    expected = b"x" * (1 << 20) + b"\n" + bytes(range(256)) + b"\r" * 1000 + b"".join(b"%d\n" % i for i in range(100000)) + b"no newline"
    task = site.create(script, "--shell python3")
    site.ok(f"task wait --id {task}")
    raw = site.ok(f"task output --id {task} --stdout").raw
    assert len(raw) == len(expected)
    assert hashlib.sha256(raw).digest() == hashlib.sha256(expected).digest()


def test_log_04_tail(site):
    task = site.create("for i in $(seq 100); do echo line $i; done", "--shell sh")
    site.ok(f"task wait --id {task}")
    assert site.ok(f"task output --id {task} --tail 2").out == "line 99\nline 100\n"
    assert site.ok(f"task output --id {task} --tail 0").out == ""
    assert len(site.ok(f"task output --id {task} --tail 1000").out.splitlines()) == 100


def test_log_05_a_log_outlives_the_server(site):
    task = site.create("echo kept")
    site.ok(f"task wait --id {task}")
    site.restart_server()
    assert site.ok(f"task output --id {task}").out == "kept\n"


def test_log_06_why_it_failed_before_running_is_shown(site):
    task = site.create("/no/such/program")
    assert site.wait_status(task, "SF") == "F"
    assert "/no/such/program" in site.ok(f"task output --id {task}").out + site.show(task)["row"]["reason"]


def test_log_08_the_exit_status_is_not_the_tasks(site):
    task = site.create("exit 9", "--shell sh")
    site.wait_status(task, "F")
    site.ok(f"task output --id {task}")


def test_hid_02_a_retry_hides_and_makes_anew(site):
    old = site.create("echo tried; exit 3", "--shell sh --name again")
    assert site.wait_status(old, "SF") == "F"
    before = site.show(old)
    new = site.ok(f"task retry --id {old}").id
    assert site.wait_status(new, "SF") == "F"
    after = site.show(old)
    assert (after["row"]["status"], after["row"]["exit_status"], after["changes"]) == ("F", 3, before["changes"])
    assert site.ok(f"task output --id {old}").out == "tried\n"
    assert [row["id"] for row in site.tasks("--name again")] == [new]
    assert {row["id"] for row in site.tasks("--name again --show-hidden")} == {old, new}


def test_rty_02_success_needs_force(site):
    task = site.create("true")
    site.wait_status(task, "S")
    refused = site.fails(f"task retry --id {task}", 6)
    assert "--force" in refused.err
    assert site.ok(f"task retry --id {task} --force").id > task


def test_rty_04_retries_stop_at_success_or_at_the_end(site, tmp_path):
    counter = tmp_path / "count"
    command = f'echo x >> {counter}; test "$(wc -l < {counter})" -ge 3'
    task = site.create(command, "--shell sh --retry 5 --name counted")
    site.ok(f"task wait --id {task}")
    assert counter.read_text() == "x\n" * 3
    chain = site.show(task)["chain"]
    assert len(chain) == 3
    assert [site.status_of(one) for one in chain] == ["F", "F", "S"]
    counter.unlink()
    task = site.create(f"echo x >> {counter}; exit 1", "--shell sh --retry 2")
    site.fails(f"task wait --id {task}", 10)
    assert counter.read_text() == "x\n" * 3
    task = site.create("exit 3", "--shell sh --retry 2 --retry-on exit:75")
    site.fails(f"task wait --id {task}", 10)
    assert len(site.show(task)["chain"]) == 1


def test_killing_stopping_freezing(site):
    task = site.create("trap 'echo asked; exit 7' TERM; echo up; while :; do sleep 0.1; done", "--shell sh")
    wait_until(lambda: "up" in site.ok(f"task output --id {task}").out, "the trap")
    site.ok(f"task suspend --id {task}")
    assert site.wait_status(task, "Z") == "Z"
    site.ok(f"task resume --id {task}")
    assert site.wait_status(task, "R") == "R"
    site.ok(f"task stop --id {task} --reason 'enough of it'")
    assert site.wait_status(task, "SF") == "F"
    assert "asked" in site.ok(f"task output --id {task}").out
    task = site.create("sleep 300")
    site.wait_status(task, "R")
    site.ok(f"task cancel --id {task}")
    assert site.wait_status(task, "FX") == "F"
    assert "kill" in site.show(task)["row"]["reason"] or "cancel" in site.show(task)["row"]["reason"]


def test_a_time_limit_ends_a_task(site):
    task = site.create("sleep 300", "--time-limit 1s")
    assert site.wait_status(task, "SF") == "F"
    assert "time limit" in site.show(task)["row"]["reason"]
    assert "want of memory" not in site.ok(f"task show --id {task}").out


def test_max_fails_cancels_the_rest_of_an_array(site):
    ran = site.fails(
        ["task", "create", "--container", "bare", "--command", "false", "--array", "1-200%2", "--max-fails", "3", "--wait"], 10
    )
    statuses = [row["status"] for row in site.tasks(f"--id {ran.ids[0]}-{ran.ids[-1]} --limit 0")]
    assert len(statuses) == 200
    assert set(statuses) == {"F", "X"}
    assert 3 <= statuses.count("F") < 50


def test_what_a_task_used_is_kept(site):
    task = site.create("x = bytearray(60 << 20); print(sum(range(2000000)))", "--shell python3")
    assert site.wait_status(task, "SF") == "S"
    shown = site.show(task)
    assert shown["use"]["cpu_s"] > 0
    assert shown["use"]["peak_memory_bytes"] > 60 << 20
    assert "R" in shown["state_ms"]
    assert [change["status"] for change in shown["changes"]][-1] == "S"


def test_the_peak_of_a_small_task_is_its_own_and_not_that_of_what_starts_it(site):
    small, tiny = site.create("sleep 3"), site.create("true")
    for task in (small, tiny):
        assert site.wait_status(task, "SF") == "S"
    assert 0 < site.show(small)["use"]["peak_memory_bytes"] < 16 << 20
    peak = site.show(tiny)["use"]["peak_memory_bytes"]
    assert peak is None or peak < 16 << 20
    assert ("not known" in site.ok(f"task show --id {tiny}").out) == (peak is None)


def test_greater_priority_goes_first(site):
    (worker,) = [row["id"] for row in site.workers() if row["status"] == "ready"]
    site.ok(f"worker update --worker-id {worker} --concurrency 1")
    site.ok(f"worker drain --worker-id {worker}")
    tasks = [site.create("true", f"--priority {priority}") for priority in (-5, 0, 5)]
    site.ok(f"worker resume --worker-id {worker}")
    site.ok(f"task wait --id {tasks[0]}-{tasks[-1]}")
    started = [site.show(task)["row"]["started_ms"] for task in tasks]
    assert started == sorted(started, reverse=True)
    site.ok(f"worker update --worker-id {worker} --concurrency 4")


def test_retry_on_takes_its_causes_alone(site):
    hungry = site.create("x = bytearray(300 << 20); import time; time.sleep(300)", "--shell python3 --mem 100MiB --retry 1 --retry-on oom")
    failing = site.create("exit 3", "--shell sh --retry 1 --retry-on oom,lost,upload")
    site.fails(f"task wait --id {hungry},{failing}", 10)
    assert "out of memory (limit 100 MiB)" in site.show(hungry)["row"]["reason"]
    assert len(site.show(hungry)["chain"]) == 2
    assert site.show(failing)["chain"] == [failing]


def test_a_task_that_fits_no_worker_says_so(site):
    task = site.create("true", "--cpus 5000")
    assert "needs 5000 cpus and the biggest worker without a step has" in site.ok(f"task explain --id {task}").out
    site.ok(f"task cancel --id {task}")
    task = site.create("true", "--gpus 1000")
    assert "1000 GPUs (has " in site.ok(f"task explain --id {task}").out
    site.ok(f"task cancel --id {task}")


def test_why_a_task_waits_behind_others(site):
    (worker,) = [row for row in site.workers() if row["status"] == "ready"]
    large = f"--mem {worker['hardware']['mem_gib'] * 0.6:.1f}"
    first = site.create("sleep 300", large)
    site.wait_status(first, "R")
    second = site.create("true", large)
    assert "leave room: agent0 has too little free for" in site.ok(f"task explain --id {second}").out
    site.ok(f"task cancel --id {second}")
    others = [site.create("sleep 300") for _ in range(3)]
    for task in others:
        site.wait_status(task, "R")
    waiting = [site.create("true") for _ in range(2)]
    told = site.ok(f"task explain --id {waiting[0]},{waiting[1]}").out.splitlines()
    assert [line.partition(": ")[2] for line in told] == [
        f"all slots of the worker without a step are taken, {n} ahead of it" for n in (0, 1)
    ]
    for task in (first, *others):
        site.ok(f"task kill --id {task}")
    for task in waiting:
        assert site.wait_status(task, "SF") == "S"


def test_workers_are_listed_changed_and_drained(site):
    (row,) = [row for row in site.workers() if row["status"] == "ready"]
    worker = row["id"]
    assert row["concurrency"] == 4
    assert row["hardware"]["cpus"] >= 1
    site.ok(f"worker update --worker-id {worker} --concurrency 2 --prefetch 1")
    wait_until(lambda: site.workers()[0]["prefetch"] == 1, "the new prefetch")
    assert "slots:" in site.ok(f"worker show --worker-id {worker}").out
    wait_until(lambda: site.ok(f"worker stats --worker-id {worker} --json").json[0]["stats"], "the worker's figures")
    assert site.ok(f"worker events --worker-id {worker} --json").json
    site.ok(f"worker drain --worker-id {worker}")
    task = site.create("true")
    assert "draining" in site.ok(f"task explain --id {task}").out
    assert site.status_of(task) == "P"
    site.ok(f"worker resume --worker-id {worker}")
    assert site.wait_status(task, "S") == "S"
    site.ok(f"worker update --worker-id {worker} --concurrency 4 --prefetch 0")
    site.fails("worker show --worker-id 999", 5)
    site.fails("worker drain --worker-id 999", 5)


def test_a_pipe_takes_output_as_it_comes(site):
    task = site.create("yes | head -c 3000000", "--shell sh")
    site.ok(f"task wait --id {task}")
    script = f"{' '.join(site.argv)} task output --id {task} | head -1"
    done = subprocess.run(["sh", "-c", script], env=site.environment, capture_output=True, check=False)
    assert done.stdout == b"y\n"
    assert done.stderr == b""
    assert site.ok(f"task output --id {task} --stdout").raw == b"y\n" * 1_500_000
