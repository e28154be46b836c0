"""What Slurm says of jobs, and what becomes of its words (on a real Slurm, but for limits that need its database)."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.lib.services import SlurmService
from tests.lib.site import Site, wait_until

from scitq.broker.providers.base import Bootstrap, FlavorUnusableError, Machine, MachineRequest, MachineState, ProviderContext, QuotaError
from scitq.broker.providers.slurm import SlurmProvider
from scitq.errors import ProviderError

pytestmark = [pytest.mark.slurm, pytest.mark.xdist_group("slurm")]
MARK = f"scitq-{secrets.token_hex(4)}-"
Open = Callable[..., SlurmProvider]


def flavors(service: SlurmService) -> dict[str, Any]:
    part = {"partition": service.partition}
    return {"tiny": part | {"cpus": 1, "mem": 0.1}, "wide": part | {"cpus": 999}, "fat": part | {"cpus": 1, "mem": 9999}}


@pytest.fixture
def opened(tmp_path: Path, slurm_service: SlurmService) -> Iterator[Open]:
    """A driver with some options more; its jobs are cancelled at the end."""
    made: list[SlurmProvider] = []

    def open_it(**options: Any) -> SlurmProvider:
        common = {"conf": slurm_service.conf, "work_dir": str(tmp_path / "work"), "flavors": flavors(slurm_service), "time": "10m"}
        made.append(SlurmProvider("slurm.test", common | options, ProviderContext(mark=MARK, folder=tmp_path / "shared")))
        return made[-1]

    yield open_it
    for provider in made:
        for machine in provider.find() if provider._bin == "" else []:
            provider.delete(machine.name)


def request(provider: SlurmProvider, name: str, tmp_path: Path, flavor: str = "tiny", body: str = "exec sleep 600") -> MachineRequest:
    """A job whose agent is a script."""
    agent = tmp_path / f"agent-{name}"
    agent.write_text(f"#!/bin/sh\n{body}\n")
    agent.chmod(0o755)
    chosen = next(each for each in provider.list_flavors() if each.name == flavor)
    bootstrap = Bootstrap(server="127.0.0.1:1", server_key="k" * 40, token="a-secret-token", executable=(str(agent),))
    return MachineRequest(name=MARK + name, flavor=chosen, region=chosen.region, bootstrap=bootstrap)


def seen(provider: SlurmProvider, name: str, state: MachineState) -> Machine:
    """The machine, once it is in this state."""

    def look() -> list[Machine]:
        return [machine for machine in provider.find({MARK + name}) if machine.state is state]

    found: Machine = wait_until(look, f"{name} {state}")[0]
    return found


def slurm(service: SlurmService, *words: str) -> None:
    subprocess.run(words, env=os.environ | service.environment(), check=True, timeout=60, capture_output=True)


def test_a_waiting_job_is_shown_with_slurms_reason_and_a_running_one_with_its_time(
    opened: Open, tmp_path: Path, slurm_service: SlurmService
) -> None:
    provider = opened(sbatch=["--hold"])
    made = provider.create(request(provider, "held", tmp_path))
    waiting = seen(provider, "held", MachineState.QUEUED)
    assert (waiting.provider_id, waiting.message, waiting.seconds_left, waiting.is_hopeless) == (
        made.provider_id, "pending (JobHeldUser)", None, False,
    )  # fmt: skip
    slurm(slurm_service, "scontrol", "release", made.provider_id)
    running = seen(provider, "held", MachineState.RUNNING)
    assert running.addresses == (slurm_service.node,)
    assert running.seconds_left is not None
    assert 500 < running.seconds_left <= 600


def test_a_job_that_somebody_cancelled_was_taken_away(opened: Open, tmp_path: Path, slurm_service: SlurmService) -> None:
    provider = opened()
    job = provider.create(request(provider, "cancelled", tmp_path)).provider_id
    seen(provider, "cancelled", MachineState.RUNNING)
    slurm(slurm_service, "scancel", job)
    gone = seen(provider, "cancelled", MachineState.GONE)
    assert gone.is_evicted
    assert gone.message == "cancelled"


def test_a_job_whose_node_failed_was_taken_away(opened: Open, tmp_path: Path, slurm_service: SlurmService) -> None:
    provider = opened()
    provider.create(request(provider, "node", tmp_path))
    seen(provider, "node", MachineState.RUNNING)
    node = f"NodeName={slurm_service.node}"
    slurm(slurm_service, "scontrol", "update", node, "State=DOWN", "Reason=test")
    try:
        gone = seen(provider, "node", MachineState.GONE)
        assert gone.is_evicted
        assert gone.message.startswith("node_fail")
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):  # a node that has come back by itself is not resumed
            slurm(slurm_service, "scontrol", "update", node, "State=RESUME")
        wait_until(provider.list_flavors, "the node's return")


def test_an_agent_that_failed_was_not_taken_away_and_its_last_words_are_kept(opened: Open, tmp_path: Path) -> None:
    provider = opened()
    provider.create(request(provider, "failed", tmp_path, body="echo no room here >&2; exit 3"))
    gone = seen(provider, "failed", MachineState.GONE)
    assert not gone.is_evicted
    assert gone.message == "failed (NonZeroExitCode): no room here"


def test_what_slurm_takes_but_can_never_start_is_hopeless(opened: Open, tmp_path: Path) -> None:
    provider = opened()
    provider.create(request(provider, "wide", tmp_path, flavor="wide"))
    wait_until(lambda: seen(provider, "wide", MachineState.QUEUED).is_hopeless, "Slurm's verdict")
    assert "PartitionConfig" in seen(provider, "wide", MachineState.QUEUED).message


def test_what_slurm_refuses_for_good_is_an_unusable_flavor(opened: Open, tmp_path: Path) -> None:
    provider = opened()
    with pytest.raises(FlavorUnusableError, match="Requested node configuration is not available"):
        provider.create(request(provider, "fat", tmp_path, flavor="fat"))
    assert all(machine.state is MachineState.GONE for machine in provider.find({MARK + "fat"}))


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", QuotaError),
        ("QOSMaxSubmitJobPerUserLimit", QuotaError),
        ("Batch job submission failed: Invalid account or account/partition combination specified", FlavorUnusableError),
        ("Batch job submission failed: Socket timed out on send/recv operation", ProviderError),
    ],
)
def test_refusals_by_limits_are_told_apart(
    opened: Open, tmp_path: Path, slurm_service: SlurmService, words: str, kind: type[ProviderError]
) -> None:
    """These need Slurm's database, or a lame controller: sbatch is a script that says what the real one would."""
    real = opened()
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(f'#!/bin/sh\necho "sbatch: error: {words}" >&2\nexit 1\n')
    (folder / "sbatch").chmod(0o755)
    for name in ("sinfo", "squeue"):
        (folder / name).write_text(f'#!/bin/sh\nexec {name} "$@"\n')
        (folder / name).chmod(0o755)
    provider = opened(bin=str(folder))
    with pytest.raises(ProviderError) as caught:
        provider.create(request(real, "limit", tmp_path))
    assert type(caught.value) is kind
    assert words in caught.value.message


def test_without_a_controller_is_an_error_and_no_empty_answer(tmp_path: Path, slurm_service: SlurmService) -> None:
    lines = Path(slurm_service.conf).read_text().splitlines()
    conf = tmp_path / "slurm.conf"
    conf.write_text("\n".join("SlurmctldPort=1" if line.startswith("SlurmctldPort=") else line for line in lines) + "\nMessageTimeout=2\n")
    provider = SlurmProvider("slurm.test", {"conf": str(conf)}, ProviderContext(mark=MARK, folder=tmp_path))
    for call in (provider.find, provider.list_flavors, provider.check):
        with pytest.raises(ProviderError):
            call()


def test_slurms_words_are_those_of_workers_and_jobs(tmp_path: Path, scitq_argv: list[str], slurm_service: SlurmService) -> None:
    held = {"conf": slurm_service.conf, "sbatch": ["--hold"], "flavors": flavors(slurm_service)}
    main = {"conf": slurm_service.conf, "flavors": flavors(slurm_service)}
    quick = {"janitor_period": "1s"}
    with Site(tmp_path, scitq_argv, sections={"providers": {"slurm": {"main": main, "held": held}}}, worker=quick) as site:
        wait_until(lambda: site.ok("flavor list --limit 0").out.count("tiny") == 2, "the catalogue")

        def worker(number: int) -> dict[str, Any]:
            row: dict[str, Any] = site.ok(f"worker list --worker-id {number} --json").json[0]
            return row

        waits = site.ok("worker deploy --provider slurm.held --flavor tiny").id
        hopeless = site.ok("worker deploy --provider slurm.main --flavor wide").id
        refused = site.ok("worker deploy --provider slurm.main --flavor fat").id
        wait_until(lambda: worker(refused)["status"] == "failed", "the refusal")
        (job,) = site.ok(f"job list --worker-id {refused} --status failed --json").json
        assert (job["kind"], job["status"]) == ("create", "failed")
        assert "Requested node configuration is not available" in job["error"]
        wait_until(lambda: worker(hopeless)["status"] == "failed", "the verdict")
        assert "PartitionConfig" in worker(hopeless)["reason"]
        wait_until(lambda: worker(waits)["reason"] == "pending (JobHeldUser)", "the reason")
        assert worker(waits)["status"] == "installing"
        assert "JobHeldUser" in site.ok(f"worker show --worker-id {waits}").out
        aside = {
            row["name"]: row["aside_reason"] for row in site.ok("flavor list --limit 0 --json").json if row["provider"] == "slurm.main"
        }
        assert "PartitionConfig" in aside["wide"]
        assert "not available" in aside["fat"]
        site.ok(f"worker delete --worker-id {waits} --worker-id {hopeless} --worker-id {refused}")
        wait_until(lambda: not site.workers(), "nothing is left")
