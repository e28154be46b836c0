"""What is left of agents that were killed: containers belong to their engine, and the server ends those of machines that it had made."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib.services import DockerService
from tests.lib.site import Site, wait_until

pytestmark = pytest.mark.docker


@pytest.fixture
def site(tmp_path: Path, scitq_argv: list[str], docker_service: DockerService) -> Iterator[Site]:
    assert docker_service.images
    with Site(tmp_path / "site", scitq_argv, worker={"janitor_period": "1s"}) as site:
        wait_until(lambda: site.ok("flavor list --json").json, "the catalogue")
        yield site


def containers(docker: DockerService, work: Path) -> list[str]:
    uid = (work / "agent.uid").read_text().strip()
    return docker.command("ps", "-q", "--filter", f"label=scitq.agent={uid}").split()


def test_containers_of_a_killed_local_agent_end_and_those_of_others_go_on(site: Site, docker_service: DockerService) -> None:
    site.agent()
    (by_hand,) = site.workers()
    own, task = (site.ok("task create --container alpine --command 'sleep 600'").id for _ in range(2))
    running = wait_until(lambda: containers(docker_service, site.folder / "work0"), "the container of the agent started by hand")
    number = site.ok("worker deploy --provider local.local --flavor local").id
    work = wait_until(lambda: list(site.data.glob("providers/local.local/*/work/agent.uid")), "the deployed agent")[0].parent
    wait_until(lambda: containers(docker_service, work), "its container")
    uid = (work / "agent.uid").read_text().strip()
    os.kill(int((work.parent / "pid").read_text().split()[0]), signal.SIGKILL)
    wait_until(lambda: docker_service.command("ps", "-aq", "--filter", f"label=scitq.agent={uid}") == "", "the end of its container")
    site.wait_status(task, "F")
    wait_until(lambda: not work.exists(), "the end of its folder")
    assert site.ok(f"worker list --worker-id {number} --json").json[0]["status"] == "deleted"
    assert containers(docker_service, site.folder / "work0") == running
    assert site.status_of(own) == "R"
    assert [row["id"] for row in site.workers()] == [by_hand["id"]]
    site.ok(f"worker delete --worker-id {by_hand['id']}")
    wait_until(lambda: not containers(docker_service, site.folder / "work0"), "the end of the other container")


def test_an_agents_folder_is_cleared_once_it_is_dead_and_never_before(site: Site, docker_service: DockerService) -> None:
    agent = site.agent()
    work = site.folder / "work0"
    task = site.ok("task create --container alpine --command 'sleep 600'").id
    running = wait_until(lambda: containers(docker_service, work), "the container")
    site.wait_status(task, "R")
    clear = ["agent", "--clear", "--work-dir", str(work)]
    assert "its containers are its own" in site.fails(clear, 6).err
    assert containers(docker_service, work) == running
    agent.kill()
    agent.wait()
    wait_until(lambda: site.run(clear).status == 0, "the keeper's end")
    assert containers(docker_service, work) == []
    site.ok(["agent", "--clear", "--work-dir", str(site.folder / "never-used")])
