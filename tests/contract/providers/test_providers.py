"""The driver contract, over every provider: idempotent by the name, exact about what is there, honest when it can't know."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.lib import crashing_driver
from tests.lib.site import SOURCE, wait_until

from scitq.broker.providers.base import Bootstrap, FlavorUnusableError, Machine, MachineRequest, MachineState, Provider
from scitq.broker.providers.registry import open_providers
from scitq.errors import ProviderError
from scitq.model.flavor import Flavor

MARK = f"scitq-{secrets.token_hex(4)}-"
"""Of this process alone: providers look at the whole machine, where other tests run too."""
LIVING = {MachineState.QUEUED, MachineState.STARTING, MachineState.RUNNING}


@dataclass
class Bench:
    """A provider, and how to make it anew as a restarted server would."""

    name: str
    options: dict[str, Any]
    folder: Path
    agent: tuple[str, ...]

    def open(self) -> Provider:
        kind, config = self.name.split(".")
        return open_providers({kind: {config: self.options}}, MARK, self.folder / "providers")[self.name]

    def crash(self, call: str, request: MachineRequest, moment: int) -> bool:
        """Let another process make the call and end with kill -9 at that moment; False when the call was over before."""
        kind, config = self.name.split(".")
        told = {
            "section": {kind: {config: self.options}},
            "mark": MARK,
            "folder": str(self.folder / "providers"),
            "provider": self.name,
            "call": call,
            "moment": moment,
            "request": msgspec.to_builtins(request),
        }
        argv = [sys.executable, crashing_driver.__file__]
        environment = os.environ | {"PYTHONPATH": str(SOURCE)}
        ended = subprocess.run(argv, input=json.dumps(told), text=True, env=environment, check=False, timeout=60).returncode
        assert ended in {0, -signal.SIGKILL}
        return ended != 0

    def request(self, provider: Provider, name: str, flavor: Flavor | None = None) -> MachineRequest:
        chosen = flavor or provider.list_flavors()[0]
        bootstrap = Bootstrap(server="127.0.0.1:1", server_key="k" * 40, token="a-secret-token", executable=self.agent)
        return MachineRequest(name=MARK + name, flavor=chosen, region=chosen.region, bootstrap=bootstrap, time_limit_s=600)


def stand_in(folder: Path, body: str = "import time; time.sleep(600)") -> tuple[str, ...]:
    """A program in the place of scitq, since providers only start it: it takes any arguments and does `body`."""
    script = folder / "stand_in.py"
    script.write_text(body + "\n")
    return (sys.executable, str(script))


def options_of(kind: str, request: pytest.FixtureRequest, folder: Path) -> dict[str, Any]:
    if kind == "slurm":
        service = request.getfixturevalue("slurm_service")
        sizes = {"tiny": {"partition": service.partition, "cpus": 1, "mem": 0.1}}
        return {"conf": service.conf, "folder": str(folder / "shared"), "work_dir": str(folder / "work"), "flavors": sizes, "time": "10m"}
    return {"grace": "2s"} if kind == "local" else {}


@pytest.fixture(params=["local", "fake", pytest.param("slurm", marks=[pytest.mark.slurm, pytest.mark.xdist_group("slurm")])])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    kind: str = request.param
    bench = Bench(f"{kind}.test", options_of(kind, request, tmp_path), tmp_path, stand_in(tmp_path))
    yield bench
    provider = bench.open()
    for machine in provider.find():
        provider.delete(machine.name)


def living(provider: Provider, *names: str) -> list[Machine]:
    wanted = [MARK + name for name in names] or None
    return [machine for machine in provider.find(wanted) if machine.state in LIVING]


def test_it_says_that_it_answers(bench: Bench) -> None:
    assert bench.open().check()


def test_flavors_are_complete_and_its_own(bench: Bench) -> None:
    provider = bench.open()
    found = provider.list_flavors()
    assert found
    for flavor in found:
        assert flavor.provider == bench.name
        assert flavor.region
        assert flavor.name
        assert flavor.cpus > 0
        assert flavor.cost is None or flavor.cost >= 0
    assert any(flavor.region == provider.default_region for flavor in found)


def test_create_find_delete(bench: Bench) -> None:
    provider = bench.open()
    assert provider.create(bench.request(provider, "one")).state in LIVING
    assert [machine.name for machine in living(provider)] == [MARK + "one"]
    assert living(provider, "two") == []
    provider.delete(MARK + "one")
    wait_until(lambda: not living(provider), "its end")


def test_create_of_what_is_there_makes_nothing_more(bench: Bench) -> None:
    provider = bench.open()
    request = bench.request(provider, "one")
    provider.create(request)
    first = wait_until(lambda: living(provider, "one"), "the machine")[0].provider_id
    provider.create(request)
    bench.open().create(request)
    assert [machine.provider_id for machine in living(bench.open())] == [first]


def test_delete_of_what_is_absent_is_done(bench: Bench) -> None:
    provider = bench.open()
    provider.delete(MARK + "never-was")
    provider.create(bench.request(provider, "one"))
    provider.delete(MARK + "one")
    provider.delete(MARK + "one")
    wait_until(lambda: not living(provider), "its end")


def test_machines_are_found_by_a_server_that_was_started_anew(bench: Bench) -> None:
    provider = bench.open()
    for name in ("one", "two"):
        provider.create(bench.request(provider, name))
    again = bench.open()
    assert [machine.name for machine in living(again)] == [MARK + "one", MARK + "two"]
    again.delete(MARK + "one")
    wait_until(lambda: [machine.name for machine in living(again)] == [MARK + "two"], "the end of one")


def test_machines_of_another_server_are_not_seen(bench: Bench) -> None:
    provider = bench.open()
    provider.create(bench.request(provider, "one"))
    kind, config = bench.name.split(".")
    other = open_providers({kind: {config: bench.options}}, "scitq-other-", bench.folder / "providers")[bench.name]
    assert other.find() == []


def test_a_dry_run_makes_nothing_and_shows_no_secret(bench: Bench) -> None:
    provider = bench.open()
    script = provider.script(bench.request(provider, "one"))
    assert MARK + "one" in script
    assert "a-secret-token" not in script
    assert living(provider) == []


def test_a_create_that_was_cut_off_anywhere_makes_one_machine_when_it_is_done_again(bench: Bench) -> None:
    provider = bench.open()
    moment = 0
    while True:
        request = bench.request(provider, f"cut-{moment}")
        is_cut = bench.crash("create", request, moment)
        again = bench.open()
        again.create(request)
        name = f"cut-{moment}"
        (machine,) = wait_until(lambda again=again, name=name: living(again, name), "the machine")
        bench.open().create(request)
        assert [each.provider_id for each in living(again)] == [machine.provider_id], f"moment {moment}"
        again.delete(request.name)
        wait_until(lambda again=again: not living(again), f"its end, moment {moment}")
        if not is_cut:
            break
        moment += 1
    assert moment >= 2, "no moment was met"


def test_a_delete_that_was_cut_off_anywhere_ends_the_machine_when_it_is_done_again(bench: Bench) -> None:
    provider = bench.open()
    moment = 0
    while True:
        request = bench.request(provider, f"cut-{moment}")
        provider.create(request)
        is_cut = bench.crash("delete", request, moment)
        bench.open().delete(request.name)
        wait_until(lambda: not living(provider), f"its end, moment {moment}")
        assert not [file for file in bench.folder.rglob(f"{request.name}*") if file.suffix != ".log"], f"moment {moment}"
        if not is_cut:
            break
        moment += 1
    assert moment >= 2, "no moment was met"


def test_a_machine_that_ended_can_be_made_again_under_its_name(bench: Bench) -> None:
    provider = bench.open()
    request = bench.request(provider, "one")
    provider.create(request)
    provider.delete(request.name)
    wait_until(lambda: not living(provider), "its end")
    assert provider.create(request).state in LIVING
    assert wait_until(lambda: living(provider, "one"), "the machine")


def test_a_flavor_that_is_not_offered_is_unusable(bench: Bench) -> None:
    provider = bench.open()
    flavor = Flavor(provider=bench.name, region=provider.default_region, name="nonsense", cpus=1, mem_gib=1)
    with pytest.raises(FlavorUnusableError) as caught:
        provider.create(bench.request(provider, "one", flavor))
    assert "nonsense" in caught.value.message
    assert living(provider) == []


def test_local_token_is_private_and_not_in_argv(tmp_path: Path) -> None:
    bench = Bench("local.test", {"grace": "2s"}, tmp_path, stand_in(tmp_path))
    provider = bench.open()
    machine = provider.create(bench.request(provider, "one"))
    try:
        token = next((tmp_path / "providers").rglob("token"))
        assert token.stat().st_mode & 0o777 == 0o600
        assert token.read_text() == "a-secret-token"
        wait_until(lambda: b"stand_in" in Path(f"/proc/{machine.provider_id}/cmdline").read_bytes(), "the program")
        assert b"a-secret-token" not in Path(f"/proc/{machine.provider_id}/cmdline").read_bytes()
    finally:
        provider.delete(MARK + "one")


def test_local_agent_that_ends_by_itself_is_gone_with_its_last_words(tmp_path: Path) -> None:
    bench = Bench("local.test", {}, tmp_path, stand_in(tmp_path, "raise SystemExit('no room here')"))
    provider = bench.open()
    provider.create(bench.request(provider, "one"))
    wait_until(lambda: not living(provider), "its end")
    (gone,) = provider.find()
    assert gone.state is MachineState.GONE
    assert "no room here" in gone.message
    provider.delete(MARK + "one")
    assert living(provider) == []


def test_local_agent_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    body = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    bench = Bench("local.test", {"grace": "0.2s"}, tmp_path, stand_in(tmp_path, body))
    provider = bench.open()
    provider.create(bench.request(provider, "one"))
    provider.delete(MARK + "one")
    assert living(provider) == []


def test_fake_failures_quotas_and_evictions_on_demand(tmp_path: Path) -> None:
    options = {"quotas": {"nowhere": 1}, "flavors": {"a": {"cpus": 1, "cost": 1}, "b": {"cpus": 1}}, "unusable": ["b"]}
    bench = Bench("fake.test", options, tmp_path, ("true",))
    provider = bench.open()
    usable, unusable = sorted(provider.list_flavors(), key=lambda flavor: flavor.name)
    provider.create(bench.request(provider, "one", usable))
    with pytest.raises(ProviderError, match="quota"):
        provider.create(bench.request(provider, "two", usable))
    with pytest.raises(FlavorUnusableError):
        provider.create(bench.request(provider, "three", unusable))
    folder = tmp_path / "providers" / "fake.test"
    (folder / f"evict-{MARK}one").touch()
    (evicted,) = provider.find()
    assert evicted.state is MachineState.GONE
    assert evicted.is_evicted
    (folder / "broken").write_text("the cloud is closed")
    with pytest.raises(ProviderError, match="the cloud is closed"):
        provider.find()
