"""A whole worker with `--runtime podman`: root's, and an ordinary user's (contract SRV-3, CRE-11, OUT-3, LOG-1, RES-3)."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib.podman import Podman, give, needs_to_run_as, ordinary_user, podman
from tests.lib.services import DockerService
from tests.lib.site import Site, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("podman-agent")]


class Worker:
    """A site with one worker, whose agent is started again after a kill."""

    def __init__(self, site: Site, podman: Podman, store: Path) -> None:
        self.site, self.podman, self.store = site, podman, store
        self.work = podman.folder / "work"
        self._argv = list(site.argv)
        self._token = podman.folder / "token"
        self._token.write_text(site.ok("user token create --worker --name podman").out)
        self._token.chmod(0o600)
        if podman.user:
            give(self._token, podman.user)
        self.start()

    def start(self) -> None:
        """Start the agent; its podman service is its own."""
        words = f"agent --token-file {self._token} --work-dir {self.work} --name podman --runtime podman --concurrency 2"
        self.site.argv = self.podman.words(*self._argv)
        try:
            with (self.site.folder / "agent.log").open("ab") as log:
                environment = self.podman.environment | {"CONTAINER_HOST": None}
                agent = self.site.start(words, stdout=log, stderr=log, env=environment, cwd=self.podman.folder, start_new_session=True)
        finally:
            self.site.argv = self._argv
        self.site.agents[:] = [agent]

    def is_ready(self) -> bool:
        (agent,) = self.site.agents
        assert agent.poll() is None, (self.site.folder / "agent.log").read_text()
        return [row["status"] for row in self.site.workers()] == ["ready"]

    def run(self, command: str, *more: str, status: str) -> int:
        """A task in `alpine` that ends in `status`; its number."""
        task = self.site.ok(["task", "create", "--container", "alpine", "--shell", "sh", "--command", command, *more]).id
        self.site.wait_status(task, "SFX", deadline_s=120)
        shown = self.site.show(task)
        assert shown["row"]["status"] == status, (shown, self.site.output(task))
        return int(task)

    def containers(self) -> list[str]:
        return self.podman.command("ps", "-aq", "--filter", "label=scitq.task").split()


@pytest.fixture(scope="module", params=["root", "user"])
def worker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str], docker_service: DockerService
) -> Iterator[Worker]:
    folder = tmp_path_factory.mktemp(f"podman-{request.param}")
    store = folder / "store"
    (store / "b").mkdir(parents=True)
    (store / "b/in.txt").write_text("input\n")
    (store / "b/tool").write_text("#!/bin/sh\necho tool of $1\n")
    with contextlib.ExitStack() as stack:
        user = stack.enter_context(ordinary_user("scitqpodman")) if request.param == "user" else None
        if user:
            needs_to_run_as(user, scitq_argv)
            give(store, user)
        own = stack.enter_context(podman(folder / "podman", docker_service, user))
        # `none` works for everybody; what an ordinary user's network needs is told in docs/agent.md
        rclone = {"store": {"type": "local", "root": str(store)}}
        site = stack.enter_context(Site(folder / "site", scitq_argv, rclone=rclone, worker={"network": "none"}))
        made = Worker(site, own, store)
        wait_until(made.is_ready, "the worker")
        yield made


def test_a_task_with_input_resource_output_and_log(worker: Worker) -> None:
    command = "cat /input/in.txt; /resource/tool podman; echo err >&2; id -u; touch /resource/x 2>/dev/null || echo read-only; "
    command += "mkdir /output/closed; echo result > /output/closed/file; chmod 600 /output/closed/file; chmod 555 /output/closed"
    task = worker.run(
        command, "--input", "store://b/in.txt", "--resource", "store://b/tool", "--output", "store://out/", "--cpus", "1", "--mem", "0.25",
        status="S",
    )  # fmt: skip
    assert worker.site.ok(f"task output --id {task} --stdout").out == "input\ntool of podman\n0\nread-only\n"
    assert worker.site.ok(f"task output --id {task} --stderr").out == "err\n"
    assert [file.read_text() for file in (worker.store / "out").rglob("file")] == ["result\n"]
    use = worker.site.show(task)["use"]
    assert use["peak_memory_bytes"] is None or use["peak_memory_bytes"] > 0
    wait_until(lambda: not worker.containers(), "the removal of the container")
    wait_until(lambda: not list((worker.work / "tasks").iterdir()), "the removal of the task's folder")


def test_cre_11_the_exit_status_and_what_was_written_before_it(worker: Worker) -> None:
    task = worker.run("echo part > /output/part; exit 7", "--output", "store://failed/", status="F")
    assert worker.site.show(task)["row"]["exit_status"] == 7
    assert [file.read_text() for file in (worker.store / "failed").rglob("part")] == ["part\n"]


def test_cre_11_out_of_memory_is_told_apart(worker: Worker) -> None:
    task = worker.run("x=$(head -c 300000000 /dev/zero | tr '\\0' x); sleep 600", "--mem", "0.06", status="F")
    assert "memory" in worker.site.show(task)["row"]["reason"]


def test_a_task_is_suspended_resumed_and_cancelled(worker: Worker) -> None:
    site = worker.site
    task = site.create("echo up; sleep 600", "--shell sh", container="alpine")
    wait_until(lambda: "up" in site.ok(f"task output --id {task}").out, "the first line")
    site.ok(f"task suspend --id {task}")
    site.wait_status(task, "Z")
    site.ok(f"task resume --id {task}")
    site.wait_status(task, "R")
    site.ok(f"task cancel --id {task}")
    site.wait_status(task, "F")
    wait_until(lambda: not worker.containers(), "the removal of the container")


def test_an_image_that_is_nowhere_is_named(worker: Worker) -> None:
    task = worker.site.create("true", container="localhost:1/no/such:image")
    worker.site.wait_status(task, "F")
    assert "localhost:1/no/such" in worker.site.output(task)


def test_srv_03_containers_outlive_a_killed_agent_and_are_adopted(worker: Worker) -> None:
    """One goes on and one ends while no agent is there."""
    site = worker.site
    tasks = [
        site.create(f"echo before; while test ! -e /output/{gate}; do sleep 0.1; done; echo after; exit {status}", "--shell sh",
                    container="alpine")
        for gate, status in (("first", 0), ("second", 3))
    ]  # fmt: skip
    for task in tasks:
        wait_until(lambda task=task: "before" in site.ok(f"task output --id {task}").out, "the first line")
    (agent,) = site.agents
    agent.kill()
    agent.wait()
    outputs = [worker.work / "tasks" / f"{task}-1" / "output" for task in tasks]
    (outputs[0] / "first").touch()
    wait_until(lambda: worker.podman.command("ps", "-q", "--filter", "label=scitq.task").count("\n") == 1, "the end of one container")
    worker.start()
    site.wait_status(tasks[0], "S")
    assert site.status_of(tasks[1]) == "R"
    (outputs[1] / "second").touch()
    site.wait_status(tasks[1], "F")
    assert [site.output(task) for task in tasks] == ["before\nafter\n"] * 2
    assert site.show(tasks[1])["row"]["exit_status"] == 3
    wait_until(lambda: not worker.containers(), "the removal of the containers")


def test_the_service_of_podman_ends_with_the_agent(worker: Worker) -> None:
    """Last of the module."""
    (agent,) = worker.site.agents
    assert services_of(worker.work)
    agent.kill()
    agent.wait()
    wait_until(lambda: not services_of(worker.work), "the end of podman's service")


def services_of(work: Path) -> list[str]:
    """Processes `podman system service` with a socket in `work`, or in a short folder made for it."""
    listed = subprocess.run(["ps", "-e", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in listed if "system service" in line and (str(work) in line or str(work.parent / "tmp") in line)]
