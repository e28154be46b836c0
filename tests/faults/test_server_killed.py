"""The server killed with -9 at any moment: nothing that was acknowledged is lost, nothing runs twice (contract SRV-2)."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from tests.lib.site import Site, wait_until


@pytest.mark.parametrize("pauses_ms", [(5, 40, 160), (15, 80, 320), (0, 25, 640)], ids=str)
def test_srv_02_batches_and_kills_lose_nothing_and_run_nothing_twice(
    tmp_path: Path, scitq_argv: list[str], pauses_ms: tuple[int, ...]
) -> None:
    ran = tmp_path / "ran"
    ran.mkdir()
    with Site(tmp_path / "site", scitq_argv) as site:
        site.agent(concurrency=4, more="--prefetch 4")
        acknowledged: list[int] = []
        for number, pause in enumerate(pauses_ms):
            lines = "".join(
                json.dumps(
                    {"container": "bare", "shell": "sh", "key": f"{number}-{i}", "command": f"echo $SCITQ_TASK_ID >> {ran}/{number}-{i}"}
                )
                + "\n"
                for i in range(40)
            )
            (tmp_path / "batch.jsonl").write_text(lines)
            words = ["task", "create", "--from-file", str(tmp_path / "batch.jsonl"), "--quiet"]
            process = site.start(words)
            time.sleep(pause / 1000)  # the moment of the crash is what varies here
            site.restart_server(signal.SIGKILL)
            out, _ = process.communicate(timeout=120)
            if process.returncode == 0:
                acknowledged += [int(line) for line in out.split()]
            again = site.ok(words)
            assert len(again.ids) == 40
            acknowledged += again.ids
        ids = sorted(set(acknowledged))
        assert len(ids) == 40 * len(pauses_ms), "a key made a second task"
        site.ok(["task", "wait", "--id", f"{ids[0]}-{ids[-1]}"], deadline_s=180)
        assert {row["status"] for row in site.tasks("--limit 0")} == {"S"}
        for file in sorted(ran.iterdir()):
            assert len(file.read_text().split()) == 1, f"{file.name} ran more than once"
        assert len(list(ran.iterdir())) == 40 * len(pauses_ms)


def test_srv_02_running_tasks_go_on_and_their_results_are_taken_after_the_restart(tmp_path: Path, scitq_argv: list[str]) -> None:
    gate = tmp_path / "gate"
    with Site(tmp_path / "site", scitq_argv) as site:
        site.agent(concurrency=2)
        task = site.create(f"echo before; while [ ! -e {gate} ]; do sleep 0.05; done; echo after", "--shell sh")
        site.wait_status(task, "R")
        wait_until(lambda: "before" in site.ok(f"task output --id {task}").out, "the first line")
        site.stop_server(signal.SIGKILL)
        gate.touch()
        site.start_server()
        site.wait_status(task, "S")
        assert site.output(task) == "before\nafter\n"
        assert site.show(task)["row"]["attempt"] == 1


def test_log_05_a_log_is_whole_and_not_doubled_when_the_server_is_killed_in_the_middle(tmp_path: Path, scitq_argv: list[str]) -> None:
    with Site(tmp_path / "site", scitq_argv) as site:
        site.agent()
        task = site.create("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; sleep 0.3; echo last", "--shell sh")
        for _ in range(3):
            site.restart_server(signal.SIGKILL)
        site.wait_status(task, "S")
        assert site.output(task) == "".join(f"line {i}\n" for i in range(3000)) + "last\n"


def test_a_graceful_stop_ends_with_zero_and_keeps_everything(tmp_path: Path, scitq_argv: list[str]) -> None:
    with Site(tmp_path / "site", scitq_argv) as site:
        site.agent()
        first = site.create("echo one")
        site.wait_status(first, "S")
        assert site.server is not None
        site.server.send_signal(signal.SIGTERM)
        site.server.send_signal(signal.SIGTERM)
        assert site.server.wait(30) == 0
        site.start_server()
        assert site.output(first) == "one\n"
        second = site.create("echo two")
        site.wait_status(second, "S")
        assert second == first + 1
