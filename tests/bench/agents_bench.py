"""A thousand agents and more: simulated ones that speak the real protocol with CURVE, against a real server.

Each simulated agent registers, beats, takes offers, and reports as a real agent does: one report when tasks start, one
when they end. No task is run, so that what is measured is the broker. Dispatch latency is the time from an agent's sending
the report that frees a slot to the arrival of the next task for it, while there are always tasks waiting.
"""

from __future__ import annotations

import heapq
import random
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import psutil
import yaml
import zmq

from scitq.model.task import NewTask, TaskSpec
from scitq.protocol import envelope
from scitq.protocol.messages.agent import AgentOffer, AgentRegister, AgentReport, AttemptEvent, Hardware, Registered, Reported, Stats
from scitq.protocol.messages.task import TaskCreate, TasksCreated
from tests.bench.site import Site
from tests.bench.tables import high, ms, show

HEARTBEAT_S = 5.0
P99_LIMIT_MS = 50.0
CORE_LIMIT_PERCENT = 60.0


@dataclass
class Simulated:
    """One agent: its socket, what it holds, and the slots that wait for a task."""

    socket: zmq.Socket[bytes]
    number: int
    seq: int = 0
    is_registered: bool = False
    held: dict[int, int] = field(default_factory=dict)
    freed_s: list[float] = field(default_factory=list)


class Herd:
    """Many simulated agents in one thread."""

    def __init__(self, site: Site, token: str, count: int, *, concurrency: int, task_s: float) -> None:
        self.token, self.concurrency, self.task_s = token, concurrency, task_s
        self.context = zmq.Context()
        self.context.set(zmq.MAX_SOCKETS, count + 16)
        self.poller = zmq.Poller()
        self.agents: dict[zmq.Socket[bytes], Simulated] = {}
        self.timers: list[tuple[float, int, Simulated, tuple[int, int] | None]] = []
        self.latencies: list[float] = []
        self.ended = 0
        self.is_measuring = False
        self.random = random.Random(1)
        public, secret = zmq.curve_keypair()
        key = (site.folder / "data" / "server.key").read_bytes().split()[1]
        for number in range(count):
            socket = self.context.socket(zmq.DEALER)
            socket.curve_publickey, socket.curve_secretkey, socket.curve_serverkey = public, secret, key
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.HANDSHAKE_IVL, 60_000)
            socket.connect(f"tcp://127.0.0.1:{site.port}")
            agent = Simulated(socket, number)
            self.agents[socket] = agent
            self.poller.register(socket, zmq.POLLIN)
            hardware = Hardware(cpus=64, mem_gib=256, disk_gb=1000)
            self.send(agent, "agent.register", AgentRegister(
                uid=secrets.token_hex(8), name=f"simulated-{number}", host="bench", hardware=hardware, runtimes=["bare"],
                concurrency=concurrency, prefetch=0, version="bench",
            ))  # fmt: skip

    def send(self, agent: Simulated, kind: str, body: object) -> None:
        agent.socket.send(envelope.pack(kind, secrets.token_hex(8), self.token, body))

    def at(self, after_s: float, agent: Simulated, key: tuple[int, int] | None) -> None:
        heapq.heappush(self.timers, (time.monotonic() + after_s, self.random.getrandbits(48), agent, key))

    def report(self, agent: Simulated, events: list[AttemptEvent], *, is_beat: bool = False) -> None:
        agent.seq += 1
        extra = {"stats": Stats(cpu_percent=50.0), "held": list(agent.held.items())} if is_beat else {}
        self.send(agent, "agent.report", AgentReport(seq=agent.seq, events=events, **extra))

    def run(self, seconds: float, until: int | None = None) -> None:
        """Go on for so long, or until so many are registered."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            while self.timers and self.timers[0][0] <= now:
                _, _, agent, key = heapq.heappop(self.timers)
                if key is None:
                    self.report(agent, [], is_beat=True)
                    self.at(HEARTBEAT_S, agent, None)
                elif agent.held.pop(key[0], None) is not None:
                    agent.freed_s.append(time.monotonic())
                    self.ended += 1
                    self.report(agent, [AttemptEvent(*key, "ended_well", 0, 0)])
            wait_s = min(end, self.timers[0][0] if self.timers else end) - time.monotonic()
            for socket, _ in self.poller.poll(max(0, min(100, round(wait_s * 1000)))):
                self.receive(self.agents[socket])
            if until is not None and sum(agent.is_registered for agent in self.agents.values()) >= until:
                return

    def receive(self, agent: Simulated) -> None:
        while True:
            try:
                message = envelope.unpack(agent.socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            if message.kind == "agent.offer":
                self.take(agent, envelope.read_body(message.body, AgentOffer))
            elif message.kind == "error":
                raise AssertionError(bytes(message.body))
            elif message.kind == "ok" and not agent.is_registered:
                envelope.read_body(message.body, Registered)
                agent.is_registered = True
                self.at(self.random.random() * HEARTBEAT_S, agent, None)
            elif message.kind == "ok":
                envelope.read_body(message.body, Reported)

    def take(self, agent: Simulated, offer: AgentOffer) -> None:
        now, events = time.monotonic(), []
        for task in offer.tasks:
            if task.task_id in agent.held:
                continue
            if agent.freed_s:
                freed = agent.freed_s.pop(0)
                if self.is_measuring:
                    self.latencies.append(now - freed)
            agent.held[task.task_id] = task.attempt
            events += [AttemptEvent(task.task_id, task.attempt, event) for event in ("accept", "fetch", "fetched", "start")]
            self.at(self.task_s * (0.5 + self.random.random()), agent, (task.task_id, task.attempt))
        if events:
            self.report(agent, events)

    def close(self) -> None:
        for agent in self.agents.values():
            agent.socket.close(0)
        self.context.term()


def measure(argv: Sequence[str], count: int, tasks: int, *, concurrency: int = 4, task_s: float = 20.0, seconds: float = 30.0) -> list[str]:
    """One line of the table: agents, tasks a second, latency, the broker's share of a core and its memory."""
    with Site(argv) as site:
        api = site.api()
        for _ in range(0, tasks, 5000):
            message = TaskCreate(specs=[TaskSpec(container="bare", command="true")], tasks=[NewTask()] * min(5000, tasks))
            api.call(message, TasksCreated, waits_s=600)
        begin = time.monotonic()
        herd = Herd(site, _worker_token(site), count, concurrency=concurrency, task_s=task_s)
        try:
            herd.run(120, until=count)
            registered_s = time.monotonic() - begin
            herd.run(task_s * 1.5)
            server = psutil.Process(site.children["serve"].pid)
            herd.is_measuring, ended, used, begin = True, herd.ended, _cpu_s(server), time.monotonic()
            herd.run(seconds)
            spent = time.monotonic() - begin
            share = 100 * (_cpu_s(server) - used) / spent
            rate = (herd.ended - ended) / spent
            p99 = high(herd.latencies) * 1000 if herd.latencies else float("nan")
            holds = p99 <= P99_LIMIT_MS and share <= CORE_LIMIT_PERCENT
            return [
                f"{count}", f"{registered_s:.1f}", f"{rate:.0f}", ms(sorted(herd.latencies)[len(herd.latencies) // 2]), ms(p99 / 1000),
                f"{share:.0f} %", f"{server.memory_info().rss / 2**20:.0f} MiB", "yes" if holds else "no",
            ]  # fmt: skip
        finally:
            herd.close()


def _worker_token(site: Site) -> str:
    kept = site.folder / "data" / "worker.token"
    return kept.read_text().strip() if kept.is_file() else str(yaml.safe_load(site.config.read_text())["scitq"]["worker_token"])


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def agents(argv: Sequence[str], scale: float) -> None:
    """Twice as many agents until a limit breaks, then two halvings of what lies between."""
    lines = []
    holding, breaking = 0, 0
    while not breaking or (holding and breaking - holding > 250):
        count = (holding + breaking) // 2 if breaking else 2 * holding or 1000
        lines.append(measure(argv, max(10, round(count * scale)), max(5000, round(100_000 * scale))))
        if lines[-1][-1] == "yes":
            holding = count
        else:
            breaking = count
    title = (
        f"simulated agents, CURVE, 4 slots each, tasks of 10 to 30 s; limits: p99 {P99_LIMIT_MS:g} ms, {CORE_LIMIT_PERCENT:g} % of a core"
    )
    heads = ["agents", "registered s", "tasks/s", "dispatch median", "p99", "core", "memory", "holds"]
    show(title, heads, lines)
