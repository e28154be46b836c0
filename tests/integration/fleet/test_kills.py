"""The server killed with -9 at each step of a deployment and of a deletion: every machine that is wanted is there, once, and no other."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.lib import dying_server
from tests.lib.fleet import agents_of
from tests.lib.site import Site, wait_until

PROVIDERS: dict[str, Any] = {
    "fake": {
        "main": {"agents": True, "flavors": {"small": {"cpus": 1, "cost": 1}}},
        "flaky": {"flavors": {"never": {"cpus": 1, "cost": 1}}, "fail_rate": 1},
    }
}
AROUND = ("before", "after")
DEPLOYMENT = [f"{side} {step}" for step in ("stored", "asked", "agent started", "made", "registered") for side in AROUND]
FAILED = [f"{side} {step}" for step in ("unwanted", "told to delete", "deleted") for side in AROUND]
DELETION = [f"{side} {step}" for step in ("unwanted", "told to delete", "agent ended", "deleted") for side in AROUND]


class Mortal(Site):
    """A site whose server dies at a step. `begin` is what is typed before; it is answered by the next life of the server."""

    def start_server(self) -> None:
        argv, self.argv = self.argv, [sys.executable, dying_server.__file__, str(self.folder)]
        try:
            super().start_server()
        finally:
            self.argv = argv

    def die_at(self, step: str, words: str) -> str:
        """Type a command, let the server die at `step` and live again; what the command said."""
        assert self.server is not None
        (self.folder / "reached").unlink(missing_ok=True)
        (self.folder / "step").write_text(step)
        command = self.start(words)
        wait_until(lambda: self.server and self.server.poll() is not None, f"the end of the server {step}")
        assert (self.folder / "reached").read_text() == step
        self.start_server()
        out, err = command.communicate(timeout=60)
        assert command.returncode == 0, (step, err)
        return out.decode()

    def cloud(self, name: str = "main") -> dict[str, Any]:
        file = self.data / "providers" / f"fake.{name}" / "cloud.json"
        return json.loads(file.read_text()) if file.is_file() else {}

    def machines(self) -> list[str]:
        """What the cloud bills now."""
        return sorted(name for name, facts in self.cloud().items() if facts["deleted_s"] is None)

    def open_jobs(self) -> list[dict[str, Any]]:
        return [job for job in self.ok("job list --json").json if job["status"] in {"queued", "running"}]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortal]:
    folder = tmp_path_factory.mktemp("mortal")
    quick = {"janitor_period": "1s", "installing_timeout": "2m", "idle_timeout": "10m", "never_worked_timeout": "10m"}
    with Mortal(folder, sections={"providers": PROVIDERS}, worker=quick) as site:
        wait_until(lambda: len(site.ok("flavor list --json --filter provider~fake%").json) == 2, "the catalogue")
        try:
            yield site
        finally:
            remove_all(site)


def remove_all(site: Mortal) -> None:
    for row in site.workers():
        site.run(f"worker delete --worker-id {row['id']}")
    wait_until(lambda: not site.workers() and not site.machines() and not agents_of(site), "nothing is left")


def is_ready(site: Mortal, worker: int) -> bool:
    return [(row["id"], row["status"]) for row in site.workers()] == [(worker, "ready")]


@pytest.mark.xdist_group("fleet-kills-1")
@pytest.mark.parametrize("step", DEPLOYMENT)
def test_a_server_killed_in_a_deployment_makes_one_machine(site: Mortal, step: str) -> None:
    bills = len(site.cloud())
    worker = int(site.die_at(step, "worker deploy --provider fake.main --flavor small"))
    wait_until(lambda: is_ready(site, worker) and not site.open_jobs(), "the worker's readiness")
    (row,) = site.workers()
    assert site.machines() == [row["machine"]]
    assert len(site.cloud()) == bills + 1, "made twice"
    assert len(agents_of(site)) == 2, "an agent and its keeper"
    remove_all(site)


@pytest.mark.xdist_group("fleet-kills-1")
@pytest.mark.parametrize("step", FAILED)
def test_a_server_killed_in_a_deployment_that_fails_leaves_none(site: Mortal, step: str) -> None:
    site.die_at(step, "worker deploy --provider fake.flaky --flavor never")
    wait_until(lambda: [row["status"] for row in site.workers()] == ["failed"] and not site.open_jobs(), "the failure")
    assert site.cloud("flaky") == {}
    (row,) = site.workers()
    assert "could not be allocated" in row["reason"]
    remove_all(site)


@pytest.mark.xdist_group("fleet-kills-2")
@pytest.mark.parametrize("step", DELETION)
def test_a_server_killed_in_a_deletion_leaves_no_machine(site: Mortal, step: str) -> None:
    worker = site.ok("worker deploy --provider fake.main --flavor small").id
    wait_until(lambda: is_ready(site, worker), "the worker's readiness")
    site.die_at(step, f"worker delete --worker-id {worker}")
    wait_until(lambda: not site.workers() and not site.open_jobs(), "the end of the worker")
    assert site.machines() == []
    assert agents_of(site) == []
