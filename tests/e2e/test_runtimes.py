"""`scitq agent --runtime`: which runtime `auto` takes where some are absent or broken, and what a named one that is missing says."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from tests.lib.podman import Podman
from tests.lib.services import ApptainerService, DockerService
from tests.lib.site import Site, end, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("runtimes")]


class Machine:
    """A site, and environments of agents in which runtimes are absent, broken or there."""

    def __init__(self, site: Site, podman: Podman, apptainer: ApptainerService) -> None:
        self.site, self._podman, self._apptainer = site, podman, apptainer
        self._folder = site.folder / "path"
        self._folder.mkdir()
        self._number = 0

    def environment(self, *there: str) -> dict[str, str | None]:
        """Only the runtimes of `there` answer; `podman-broken` is one that is installed and can't work."""
        self._number += 1
        folder = self._folder / str(self._number)
        folder.mkdir()
        found: dict[str, str | None] = {"CONTAINER_HOST": None, "XDG_RUNTIME_DIR": str(folder)}
        if "docker" not in there:
            found["DOCKER_HOST"] = f"unix://{folder}/nobody.sock"  # the engine is down; the command may be there
        if {"podman", "podman-broken"} & set(there):
            (folder / "podman").symlink_to(str(shutil.which("podman")))
            found |= self._podman.environment
        if "podman-broken" in there:
            places = f'runroot = "{folder}/run"\ngraphroot = "{folder}/data"\n'
            (folder / "storage.conf").write_text(f'[storage]\ndriver = "nosuchdriver"\n{places}')
            found["CONTAINERS_STORAGE_CONF"] = str(folder / "storage.conf")
        path = [str(folder)]
        if "apptainer" in there:
            path.append(self._apptainer.folder)
        # what runtimes need themselves, without the runtimes
        tools = folder / "tools"
        tools.mkdir()
        for name in ("runc", "conmon", "unshare", "mount", "newuidmap", "newgidmap", "iptables"):
            if program := shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin"):
                (tools / name).symlink_to(program)
        return found | {"PATH": os.pathsep.join([*path, str(tools)])}

    @contextlib.contextmanager
    def agent(self, runtime: str, *there: str) -> Iterator[dict[str, Any]]:
        """An agent where only those answer; the row of its worker."""
        environment = self.environment(*there)
        name = f"w{self._number}"
        words = f"--runtime {runtime} --name {name}"
        agent = self.site.agent(more=words, env=environment)  # type: ignore[arg-type] # None takes a variable away
        try:
            (row,) = [row for row in self.site.workers() if row["name"] == name]
            yield row | {"log": self.site.agent_log(len(self.site.agents) - 1)}
        finally:
            end(agent)

    def refused(self, words: str, *there: str) -> str:
        """What an agent says that ends at once."""
        environment = self.environment(*there)
        work = self.site.folder / f"refused{self._number}"
        ran = self.site.run(f"agent --config {self.site.config} --work-dir {work} {words}", env=environment)
        assert ran.status == 1, ran
        return ran.err


@pytest.fixture(scope="module")
def machine(
    tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str], docker_service: DockerService, apptainer_service: ApptainerService
) -> Iterator[Machine]:
    assert docker_service.images
    folder = tmp_path_factory.mktemp("runtimes")
    podman = Podman(folder / "podman")
    try:
        with Site(folder / "site", scitq_argv) as site:
            yield Machine(site, podman, apptainer_service)
    finally:
        podman.remove()


@pytest.mark.parametrize(
    ("there", "taken", "passed_over"),
    [
        (("docker", "podman", "apptainer"), "docker", []),
        (("podman", "apptainer"), "podman", ["docker does not answer"]),
        (("podman-broken", "apptainer"), "apptainer", ["docker does not answer", "nosuchdriver"]),
        (("apptainer",), "apptainer", ["docker does not answer", "podman is not installed"]),
    ],
    ids=["all", "docker is down", "podman is broken", "apptainer alone"],
)
def test_auto_takes_the_first_that_answers_and_tells_why(
    machine: Machine, there: tuple[str, ...], taken: str, passed_over: list[str]
) -> None:
    with machine.agent("auto", *there) as row:
        assert row["runtimes"] == ["bare", taken]
        assert f"bare, {taken}" in machine.site.ok(f"worker show --id {row['id']}").out
        assert f"containers run by {taken}" in row["log"]
        for words in passed_over:
            assert words in row["log"]


@pytest.mark.parametrize(
    ("runtime", "said"),
    [("docker", "docker does not answer"), ("podman", "podman is not installed"), ("apptainer", "apptainer is not installed")],
)
def test_a_named_one_that_is_missing_is_an_error(machine: Machine, runtime: str, said: str) -> None:
    others = {"docker", "podman", "apptainer"} - {runtime}
    words = machine.refused(f"--runtime {runtime}", *others)
    assert f"--runtime {runtime}: {said}" in words
    assert "scitq doctor" in words


def test_a_podman_that_can_not_work_is_told_in_its_own_words(machine: Machine) -> None:
    assert "nosuchdriver" in machine.refused("--runtime podman", "podman-broken")


def test_a_worker_that_could_run_nothing_does_not_start(machine: Machine) -> None:
    assert "could run nothing" in machine.refused("--runtime bare --no-bare", "docker")
    assert "could run nothing" in machine.refused("--no-bare")


def test_without_any_only_bare_tasks_are_taken(machine: Machine) -> None:
    site = machine.site
    with machine.agent("auto") as row:
        assert row["runtimes"] == ["bare"]
        assert "no container runtime answers" in row["log"]
        waits = site.create("true", container="alpine")
        runs = site.create("/bin/echo ran")
        assert site.wait_status(runs, "SF") == "S"
        assert site.status_of(waits) == "P"
        planned = site.ok("task create --dry-run --container alpine --command true").out
        assert "has no container runtime" in planned
    with machine.agent("docker", "docker"):
        wait_until(lambda: site.status_of(waits) == "S", "the task with an image")
