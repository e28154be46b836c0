"""Hand-started workers that are deleted, drained and changed while they work (contract DEL-1 to DEL-3, WKL-1, STT-1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib.site import Site, wait_until


@pytest.fixture
def site(tmp_path: Path, scitq_argv: list[str]) -> Iterator[Site]:
    with Site(tmp_path / "site", scitq_argv) as made:
        yield made


def test_del_02_del_03_a_deleted_hand_started_agent_ends_and_its_tasks_do_too(site: Site) -> None:
    agent = site.agent(concurrency=1, more="--prefetch 1")
    running = site.create("sleep 300")
    site.wait_status(running, "R")
    waiting = site.create("echo later")
    site.wait_status(waiting, "O")
    worker = site.workers()[0]["id"]
    site.ok(f"worker delete --worker-id {worker}")
    site.wait_status(running, "F")
    site.wait_status(waiting, "P")
    assert agent.wait(60) is not None
    assert site.workers() == []
    again = site.run(f"worker delete --worker-id {worker}")
    assert again.status in {0, 5}
    site.agent()
    site.wait_status(waiting, "S")
    assert [row["id"] for row in site.workers()] != [worker]


def test_wkl_01_what_a_user_changed_outlives_a_reconnection(site: Site) -> None:
    site.agent(concurrency=1)
    site.ok("worker update --worker-id 1 --concurrency 3 --prefetch 2")
    site.restart_server()
    wait_until(lambda: site.workers()[0]["status"] == "ready", "the worker back")
    row = site.workers()[0]
    assert (row["concurrency"], row["prefetch"], row["name"], row["provider"]) == (3, 2, "agent0", "local.local")
    assert {"id", "status", "addresses", "flavor", "region"} <= set(row)
    tasks = [site.create("sleep 300") for _ in range(3)]
    for task in tasks:
        site.wait_status(task, "R")


def test_stt_01_stt_02_live_figures_in_the_order_asked(site: Site) -> None:
    site.agent()
    site.agent()
    wait_until(lambda: all(row["stats"] for row in site.ok("worker stats --worker-id 1 --worker-id 2 --json").json), "figures of both")
    rows = site.ok("worker stats --worker-id 2 --worker-id 1 --json").json
    assert [row["id"] for row in rows] == [2, 1]
    wanted = {
        "cpu_percent",
        "memory_used_bytes",
        "load_1",
        "iowait_percent",
        "disks",
        "disk_read_bytes_s",
        "disk_write_bytes_s",
        "net_in_bytes_s",
    }
    assert wanted <= set(rows[0]["stats"])
    assert rows[0]["stats"]["disks"]
    assert not any("overlay" in disk[0] or "/docker/" in disk[0] for disk in rows[0]["stats"]["disks"])
    site.agents[0].kill()
    wait_until(lambda: site.ok("worker stats --worker-id 1 --json").json[0]["age_ms"] > 5000, "figures that show their age")
