"""The provider `fake`: prices, quotas, delays, failures and evictions on demand, for tests and for planning.

`FakeCloud` is the cloud itself, in memory and in any time, wall or simulated; all chance comes from a seed and the
machine's name, so that a run can be repeated. `FakeProvider` drives one whose state is kept in a file, as a real
cloud's outlives the server, and whose machines are, when `agents: true`, real agents on this machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import msgspec

from scitq.broker.providers.base import (
    FlavorUnusableError,
    Machine,
    MachineRequest,
    MachineState,
    ProviderContext,
    QuotaError,
    Settings,
)
from scitq.broker.providers.local import FLAVOR, LocalProvider
from scitq.errors import ProviderError
from scitq.model.flavor import Flavor
from scitq.util import clock, files, units

T = TypeVar("T")
DEFAULT_FLAVORS: dict[str, dict[str, Any]] = {
    "small": {"cpus": 2, "mem": 8, "disk": 50, "cost": 0.05},
    "medium": {"cpus": 8, "mem": 32, "disk": 100, "cost": 0.18},
    "large": {"cpus": 32, "mem": 128, "disk": 400, "cost": 0.8},
}


class FakeMachine(msgspec.Struct, kw_only=True):
    """A machine of the cloud; seconds in the cloud's time."""

    flavor: str
    region: str
    cost: float
    created_s: float
    ready_s: float
    evicted_s: float | None = None
    deleted_s: float | None = None

    def ends_s(self, now_s: float) -> float:
        """When it stopped, or `now_s` while it is there."""
        return min(now_s, *(end for end in (self.evicted_s, self.deleted_s) if end is not None), now_s)


class FakeCloud(msgspec.Struct, kw_only=True):
    """A cloud. `delay_s`: from creation to ready. `fail_rate`: part of creations that fail. Quotas: machines by region."""

    flavors: dict[str, Flavor]
    delay_s: float = 0.0
    fail_rate: float = 0.0
    evict_per_hour: float = 0.0
    quotas: dict[str, float] = {}
    unusable: list[str] = []
    seed: str = ""
    machines: dict[str, FakeMachine] = {}
    failed: list[str] = []

    def chance(self, *what: str) -> float:
        """A number from 0 to 1 that depends on the seed and `what` only."""
        digest = hashlib.blake2b("\0".join((self.seed, *what)).encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    def create(self, name: str, flavor_name: str, region: str, now_s: float) -> FakeMachine:
        """Make a machine, or give the one of that name."""
        known = self.machines.get(name)
        if known is not None and known.deleted_s is None:
            return known
        flavor = self.flavors.get(flavor_name)
        if flavor is None or flavor_name in self.unusable:
            raise FlavorUnusableError(f"the flavor {flavor_name} is not offered in {region}")
        most = self.quotas.get(region, self.quotas.get("*"))
        living = sum(1 for machine in self.machines.values() if machine.region == region and self.is_alive(machine, now_s))
        if most is not None and living + 1 > most:
            raise QuotaError(f"quota exceeded: {living} of {most:g} machines in {region}")
        if self.chance(name, "create") < self.fail_rate:
            if name not in self.failed:
                self.failed.append(name)
            raise ProviderError(f"fake failure: {name} could not be allocated")
        evicted_s = None
        if self.evict_per_hour:
            hours = -math.log(max(1 - self.chance(name, "evict"), 1e-300)) / self.evict_per_hour
            evicted_s = now_s + self.delay_s + hours * 3600
        if known is not None:  # it stays on the bill
            self.machines[f"{name} before {now_s:.3f}"] = known
        machine = FakeMachine(
            flavor=flavor_name, region=region, cost=flavor.cost or 0.0, created_s=now_s, ready_s=now_s + self.delay_s, evicted_s=evicted_s
        )
        self.machines[name] = machine
        return machine

    @staticmethod
    def is_alive(machine: FakeMachine, now_s: float) -> bool:
        """Whether it costs money."""
        return machine.deleted_s is None and (machine.evicted_s is None or machine.evicted_s > now_s)

    def state(self, name: str, now_s: float) -> Machine:
        """A machine as a provider shows it."""
        machine = self.machines[name]
        is_evicted = machine.deleted_s is None and machine.evicted_s is not None and machine.evicted_s <= now_s
        if not self.is_alive(machine, now_s):
            shown = MachineState.GONE
        else:
            shown = MachineState.RUNNING if machine.ready_s <= now_s else MachineState.STARTING
        return Machine(name=name, state=shown, provider_id=name, is_evicted=is_evicted, message="evicted" if is_evicted else "")

    def delete(self, name: str, now_s: float) -> None:
        """End a machine."""
        machine = self.machines.get(name)
        if machine is not None and machine.deleted_s is None:
            machine.deleted_s = now_s

    def bill(self, now_s: float) -> float:
        """What all machines have cost so far."""
        return sum(max(0.0, machine.ends_s(now_s) - machine.created_s) / 3600 * machine.cost for machine in self.machines.values())


def read_flavors(name: str, region: str, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Flavor]:
    """Flavors as the configuration writes them: cpus, mem, disk, gpus, gpu, gpumem, eviction, cost."""
    found = {}
    for flavor, options in given.items():
        taken = Settings(f"{name}.flavors.{flavor}", options)
        gpu = taken.text("gpu")
        found[flavor] = Flavor(
            provider=name,
            region=taken.text("region", region),
            name=flavor,
            cpus=taken.number("cpus", 1),
            mem_gib=taken.number("mem", 1),
            disk_gb=taken.number("disk", 0),
            gpus=int(taken.number("gpus", 1 if gpu else 0)),
            gpu=gpu,
            gpumem_gib=taken.number("gpumem", 0),
            eviction_percent=taken.number("eviction", 0),
            cost=taken.number("cost", 0),
        )
        taken.end()
    return found


class FakeProvider:
    """A FakeCloud in a file. Options: flavors, delay, latency, fail_rate, evict_per_hour, quotas, unusable, seed, agents.

    On demand, by files in its folder: `evict-NAME` evicts that machine, `broken` makes every call fail with its text.
    """

    def __init__(self, name: str, options: Mapping[str, Any], context: ProviderContext) -> None:
        settings = Settings(name, options)
        self.name = name
        self.default_region = settings.text("region", "nowhere")
        self.update_period_s = units.parse_duration_s(settings.text("update_period", "1h"))
        self._latency_s = units.parse_duration_s(settings.text("latency", "0s"))
        self._cloud = FakeCloud(
            flavors=read_flavors(name, self.default_region, settings.sections("flavors") or DEFAULT_FLAVORS),
            delay_s=units.parse_duration_s(settings.text("delay", "0s")),
            fail_rate=settings.number("fail_rate", 0),
            evict_per_hour=settings.number("evict_per_hour", 0),
            quotas=settings.numbers_by_name("quotas"),
            unusable=settings.texts("unusable"),
            seed=settings.text("seed"),
        )
        has_agents = settings.is_on("agents")
        arguments = settings.texts("arguments")
        settings.end()
        self._mark = context.mark
        self._folder = context.folder
        inner = ProviderContext(mark=context.mark, folder=context.folder / "agents")
        self._agents = LocalProvider(name, {"arguments": arguments, "grace": "5s"}, inner) if has_agents else None

    def _in_cloud(self, act: Callable[[FakeCloud, float], T]) -> T:
        """Run `act` on the stored state, alone; what it changed is stored, also when it raises."""
        files.make_private_folder(self._folder)
        if self._latency_s:
            clock.sleep_s(self._latency_s)
        broken = self._folder / "broken"
        if broken.exists():
            raise ProviderError(f"{self.name}: {broken.read_text().strip() or 'the provider is away'}")
        lock = os.open(self._folder / "cloud.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            state, now_s = self._folder / "cloud.json", clock.now_ms() / 1000
            cloud = msgspec.structs.replace(self._cloud, machines={}, failed=[])
            if state.exists():
                cloud.machines = msgspec.json.decode(state.read_bytes(), type=dict[str, FakeMachine])
            for demand in self._folder.glob("evict-*"):
                machine = cloud.machines.get(demand.name.removeprefix("evict-"))
                if machine is not None:
                    machine.evicted_s = min(now_s, machine.evicted_s or now_s)
                demand.unlink()
            try:
                return act(cloud, now_s)
            finally:
                files.write_atomically(state, msgspec.json.encode(cloud.machines), 0o600)
        finally:
            os.close(lock)

    def check(self) -> str:
        """It answers, unless it was made not to."""
        return self._in_cloud(lambda cloud, _now_s: f"a fake cloud of {len(cloud.flavors)} flavors")

    def list_flavors(self) -> list[Flavor]:
        """Those of the configuration."""
        return self._in_cloud(lambda cloud, _now_s: list(cloud.flavors.values()))

    def create(self, request: MachineRequest) -> Machine:
        """Make the machine, and start its agent when it has one."""

        def act(cloud: FakeCloud, now_s: float) -> Machine:
            try:
                cloud.create(request.name, request.flavor.name, request.region, now_s)
            except ProviderError as error:
                raise type(error)(f"{self.name}: {error}") from None
            return cloud.state(request.name, now_s)

        machine = self._in_cloud(act)
        if self._agents is not None and machine.state is not MachineState.GONE:
            here = msgspec.structs.replace(request.flavor, name=FLAVOR)
            self._agents.create(msgspec.structs.replace(request, flavor=here))
        return machine

    def find(self, names: Collection[str] | None = None) -> list[Machine]:
        """The machines of the cloud; an evicted one's agent is killed here."""

        def act(cloud: FakeCloud, now_s: float) -> list[Machine]:
            return [
                cloud.state(name, now_s)
                for name, machine in cloud.machines.items()
                if name.startswith(self._mark) and machine.deleted_s is None and (names is None or name in names)
            ]

        found = self._in_cloud(act)
        if self._agents is not None:
            for machine in found:
                if machine.is_evicted:
                    self._agents.kill(machine.name)
        return found

    def delete(self, name: str) -> None:
        """End the machine and its agent."""
        if self._agents is not None:
            self._agents.delete(name)
        self._in_cloud(lambda cloud, now_s: cloud.delete(name, now_s))

    def script(self, request: MachineRequest) -> str:
        """What a fake cloud is asked."""
        return f"create {request.name}: {request.flavor.name} in {request.region}\n"
