"""Contract, section 10: each letter is seen, by the real command, with real workers."""

from __future__ import annotations

import http.server
import threading

import pytest
from tests.lib.site import Site, stopped, wait_until

pytestmark = pytest.mark.xdist_group("cli_states")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("states")


@pytest.fixture(scope="module")
def site(folder, scitq_argv):
    (folder / "store").mkdir()
    with Site(
        folder, scitq_argv, rclone={"store": {"type": "local", "root": str(folder / "store")}}, settings={"max_task_log": "1M"}
    ) as site:
        site.agent(concurrency=1, more="--prefetch 1")
        yield site


class Gate(http.server.ThreadingHTTPServer):
    """Gives `/file` when it is opened."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        gate = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "4")
                self.end_headers()

            def do_GET(self) -> None:
                gate.opened.wait(60)
                self.do_HEAD()
                self.wfile.write(b"data")

            def log_message(self, *_: object) -> None:
                """Silence."""

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def listed(site: Site, task: int, letter: str) -> bool:
    return task in site.ok(f"task list --quiet --status {letter} --limit 0").ids


def letters(site: Site, task: int) -> list[str]:
    """The states that a task went through."""
    return [change["status"] for change in site.show(task)["changes"]]


def test_d_a_slow_source(site):
    gate = Gate()
    try:
        task = site.create('cat "$INPUT/file"', f"--shell sh --input http://127.0.0.1:{gate.server_address[1]}/file")
        wait_until(lambda: listed(site, task, "D"), "D")
        gate.opened.set()
        assert site.wait_status(task, "SF") == "S"
    finally:
        gate.opened.set()
        gate.shutdown()
        gate.server_close()
    assert site.ok(f"task output --id {task}").out == "data"
    assert letters(site, task) == ["P", "A", "C", "D", "O", "R", "S"]


def test_o_prefetched_while_the_slots_are_full_and_r(site):
    running = site.create("sleep 300")
    wait_until(lambda: listed(site, running, "R"), "R")
    waiting = site.create("true")
    wait_until(lambda: listed(site, waiting, "O"), "O")
    third = site.create("true")
    assert listed(site, third, "P")
    site.ok(f"task kill --id {running}")
    assert site.wait_status(running, "SF") == "F"
    for task in (waiting, third):
        assert site.wait_status(task, "SF") == "S"


def test_u_v_s_f_uploads(site, folder):
    good = site.create('echo out > "$OUTPUT/o"', "--shell sh --output store://good")
    bad = site.create('echo out > "$OUTPUT/o"; exit 3', "--shell sh --output store://bad/")
    assert site.wait_status(good, "SF") == "S"
    assert site.wait_status(bad, "SF") == "F"
    assert letters(site, good)[-3:] == ["R", "U", "S"]
    assert letters(site, bad)[-3:] == ["R", "V", "F"]
    for name in ("good", "bad"):
        assert (folder / "store" / name / "o").read_text() == "out\n"
    assert listed(site, good, "S")
    assert listed(site, bad, "F")
    assert not listed(site, bad, "S")


def test_log_07_output_beyond_the_cap_is_dropped_with_a_note(site):
    task = site.create("yes | head -c 3000000; echo end >&2", "--shell sh")
    assert site.wait_status(task, "SF") == "S"
    assert len(site.ok(f"task output --id {task} --stdout").raw) <= 1_000_000
    assert "max_task_log" in site.ok(f"task output --id {task}").out


def test_w_then_p(site):
    first = site.create("true", "--hold")
    second = site.create("true", f"--depends-on {first}")
    assert listed(site, second, "W")
    site.ok(f"task resume --id {first}")
    assert site.wait_status(second, "SF") == "S"
    assert letters(site, second)[:2] == ["W", "P"]


def test_z_of_what_runs(site):
    task = site.create("i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo $i; sleep 0.1; done", "--shell sh")
    wait_until(lambda: "3" in site.ok(f"task output --id {task}").out, "some output")
    site.ok(f"task suspend --id {task}")
    wait_until(lambda: listed(site, task, "Z"), "Z")
    before = site.ok(f"task output --id {task}").out
    assert "40" not in before.split()
    site.ok(f"task resume --id {task}")
    assert site.wait_status(task, "SF") == "S"
    assert site.ok(f"task output --id {task}").out.split() == [str(i) for i in range(1, 41)]


def test_a_a_worker_that_does_not_answer_and_x(site):
    wait_until(lambda: all(row["status"] in "SFX" for row in site.tasks("--limit 0")), "an idle worker")
    with stopped(site.agents[0]):
        task = site.create("true")
        wait_until(lambda: listed(site, task, "A"), "A")
        assert site.ok("task list --worker-id 1 --status A --quiet").ids == [task]
        site.ok(f"task cancel --id {task}")
        assert listed(site, task, "X")
    after = site.create("true")
    assert site.wait_status(after, "SF") == "S"
    assert site.status_of(task) == "X"
