"""Each of the fourteen letters, seen in `task list` (contract, section 10)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.lib.relay import Relay
from tests.lib.services import S3Service
from tests.lib.site import Site, stopped


class HeldSource:
    """A web server that answers when it is let go."""

    def __init__(self) -> None:
        gate = self.gate = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                gate.wait(120)
                self.send_response(200)
                self.send_header("Content-Length", "4")
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(b"data")

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.uri = f"http://127.0.0.1:{self.server.server_address[1]}/input.dat"

    def close(self) -> None:
        self.gate.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def source() -> Iterator[HeldSource]:
    made = HeldSource()
    yield made
    made.close()


def seen(site: Site, letter: str, task: int) -> bool:
    """Whether `task list --status` shows the task under this letter."""
    return task in [row["id"] for row in site.tasks(f"--status {letter} --limit 0")]


def test_st_w_p_a_c_d_o_r_s_f_z_x_on_one_worker(tmp_path: Path, scitq_argv: list[str], source: HeldSource) -> None:
    gate = tmp_path / "gate"
    with Site(tmp_path / "site", scitq_argv, settings={"worker_offline_after": "60s"}) as site:
        pending = site.create(f"while [ ! -e {gate} ]; do sleep 0.05; done", "--shell sh")
        assert seen(site, "P", pending)
        waiting = site.create("true", f"--depends-on {pending}")
        assert seen(site, "W", waiting)
        canceled = site.create("true")
        site.ok(f"task cancel --id {canceled}")
        assert seen(site, "X", canceled)
        suspended = site.create("true")
        site.ok(f"task suspend --id {suspended}")
        assert seen(site, "Z", suspended)
        agent = site.agent(concurrency=1, more="--prefetch 5")
        site.wait_status(pending, "R")
        assert seen(site, "R", pending)
        on_hold = site.create("true")
        site.wait_status(on_hold, "O")
        assert seen(site, "O", on_hold)
        fetching = [site.create("cat $INPUT/input.dat", f"--shell sh --input {source.uri}") for _ in range(3)]
        for task in fetching[:2]:
            site.wait_status(task, "D")
        site.wait_status(fetching[2], "C")
        assert seen(site, "C", fetching[2])
        assert seen(site, "D", fetching[0])
        with stopped(agent):
            assigned = site.create("true")
            site.wait_status(assigned, "A")
            assert seen(site, "A", assigned)
        source.gate.set()
        gate.touch()
        for task in (pending, waiting, on_hold, assigned, *fetching):
            site.wait_status(task, "S")
        assert site.output(fetching[2]) == "data"
        failed = site.create("false")
        site.wait_status(failed, "F")
        assert seen(site, "F", failed)
        frozen = site.create("sleep 300")
        site.wait_status(frozen, "R")
        site.ok(f"task suspend --id {frozen}")
        site.wait_status(frozen, "Z")
        site.ok(f"task kill --id {frozen}")
        site.wait_status(frozen, "F")


@pytest.mark.s3
def test_st_u_and_v_during_a_slow_upload(tmp_path: Path, scitq_argv: list[str], s3_service: S3Service) -> None:
    host, _, port = s3_service.endpoint.rpartition(":")
    cable = Relay(int(port))
    bucket = s3_service.new_bucket("slow")
    settings = s3_service.rclone() | {"endpoint": f"{host}:{cable.port}"}
    try:
        with Site(tmp_path / "site", scitq_argv, rclone={"s3": settings}) as site:
            site.agent(concurrency=2)
            cable.cut(is_silent=True)
            good = site.create("echo x > $OUTPUT/x", f"--shell sh --output s3://{bucket}/good")
            bad = site.create("echo x > $OUTPUT/x; false", f"--shell sh --output s3://{bucket}/bad")
            site.wait_status(good, "U")
            site.wait_status(bad, "V")
            assert seen(site, "U", good)
            assert seen(site, "V", bad)
            cable.mend()
            site.wait_status(good, "S", deadline_s=150)
            site.wait_status(bad, "F", deadline_s=150)
            assert site.show(bad)["row"]["reason"] == "exit status 1"
    finally:
        cable.close()


def test_st_i_a_task_of_a_workflow_that_is_not_finalized(tmp_path: Path, scitq_argv: list[str]) -> None:
    with Site(tmp_path / "site", scitq_argv) as site:
        site.ok("workflow create --name w")
        step = site.ok("step create --workflow-name w --name s --json").json
        number = step[0]["id"] if isinstance(step, list) else step["id"]
        first = site.create("true", f"--step {number}")
        second = site.create("true", f"--step-id {number} --depends-on {first}")
        assert seen(site, "I", first)
        assert seen(site, "I", second)
        site.ok("workflow finalize --name w")
        assert seen(site, "P", first)
        assert seen(site, "W", second)
        assert {row["id"] for row in site.tasks(f"--step-id {number}")} == {first, second}
        assert {row["id"] for row in site.tasks("--workflow-id 1")} == {first, second}
