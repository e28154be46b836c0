"""The broker's memory: everything in it can be rebuilt from the database."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import apsw

from scitq.broker.files import FileService
from scitq.broker.logstore import LogStore
from scitq.broker.providers.base import Provider
from scitq.broker.ready import NO_STEP, ReadyQueue
from scitq.broker.scheduler import Fleet, LiveWorker, Place
from scitq.broker.store import creation, tasks, workers
from scitq.broker.store.connection import Store
from scitq.broker.store.workers import Worker
from scitq.config.schema import Config
from scitq.model import needs
from scitq.model.lifecycle import TaskStatus
from scitq.model.needs import Capacity, Needs
from scitq.protocol.messages.agent import AgentAnswer, Hardware, Order, Stats
from scitq.util.units import parse_bytes, parse_duration_s


@dataclass(frozen=True, slots=True)
class Secrets:
    """Keys of this server; never shown."""

    token_key: bytes = field(repr=False)
    worker_token: str = field(repr=False)
    curve_secret: bytes = field(repr=False)
    curve_public: bytes


@dataclass(slots=True)
class Session:
    """A connected agent. `seq`: its last report that is on disk."""

    peer: bytes
    seen_s: float
    seq: int = -1
    missing: dict[int, int] = field(default_factory=dict)
    """Tasks that the agent did not name in its heartbeats, and in how many."""


class Broker:
    """Memory shared by the loop's handlers; owned by the loop's thread, read with care by others."""

    def __init__(self, config: Config, store: Store, secrets: Secrets, folder: Path, now_s: float) -> None:
        """Rebuild from the database."""
        self.config = config
        self.store = store
        self.secrets = secrets
        self.folder = folder
        self.logs = LogStore(folder / "logs")
        self.files = FileService(config.rclone)
        self.offline_after_s = parse_duration_s(config.scitq.worker_offline_after)
        self.lost_after_s = parse_duration_s(config.scitq.worker_lost_after)
        self.heartbeat_s = parse_duration_s(config.scitq.heartbeat)
        self.token_ttl_s = parse_duration_s(config.scitq.token_ttl)
        self.most_log_bytes = parse_bytes(config.scitq.max_task_log)
        self.port = 0
        self.started_ms = 0
        self.is_draining = False
        self.stop_wanted = False
        self.busy_percent = 0.0
        self.connections: dict[bytes, float] = {}  # when each peer was last heard
        self.live_tokens: set[str] = set()
        self.login_failures: dict[str, tuple[int, float]] = {}
        self.stats: dict[int, tuple[Stats, float]] = {}
        self.progress: dict[int, dict[str, int]] = {}
        self.answers: dict[str, AgentAnswer | None] = {}
        self.ready = ReadyQueue()
        self.fleet = Fleet()
        self.sessions: dict[int, Session] = {}
        self.peers: dict[bytes, int] = {}
        self.silent_since: dict[int, float] = {}
        self.paused_groups: set[int] = set()
        self.array_most: dict[int, int] = {}
        self.last_offer_s: dict[int, float] = {}
        self.providers: dict[str, Provider] = {}
        self.machine_mark = ""
        self.idle_since: dict[int, int] = {}
        """Since when (Unix ms) each connected worker has held no task."""
        self.offline_since: dict[int, int] = {}
        self.have_worked: set[int] = set()
        self.had_tasks: set[int] = set()
        """Workers that a task has left since the watchdog's last look, which would not see a short one otherwise."""
        self.next_update_ms: dict[str, int] = {}
        self.compared_ms: dict[str, int] = {}
        self.parted: set[int] = set()
        """Workers whose agents were stopped by somebody else: their providers are asked at once what became of the machines."""
        self.reasons: dict[int, list[str]] = {}
        """What each recruiter did at the last plan, and why."""
        self.rebuild(now_s)

    def rebuild(self, now_s: float) -> None:
        """Forget and read anew: pending tasks, workers, what they hold. Sessions of agents are kept."""
        tx = self.store.writer
        self.ready = ReadyQueue()
        self.fleet = Fleet()
        self.array_most = {row[0]: row[1] for row in tx.execute("SELECT id, most_running FROM array_job WHERE most_running IS NOT NULL")}
        self.paused_groups = {row[0] for row in tx.execute("SELECT id FROM step WHERE is_paused")}
        asked: dict[int, Needs] = {}

        def needs_of(task: tasks.Task) -> Needs:
            key = task.spec_id
            if key not in asked:
                asked[key] = needs.of_spec(tasks.spec(tx, key))
            return asked[key]._replace(array_id=self.limited(task.array_id))

        for worker in workers.listed(tx):
            if worker.status in {"installing", "failed", "deleting"} and worker.uid is None:
                continue
            live = live_worker(worker, worker.hardware)
            session = self.sessions.get(worker.id)
            live.is_ready = session is not None and worker.status == "ready"
            for task in tasks.of_worker(tx, worker.id):
                shipping = task.status in {TaskStatus.UPLOADING, TaskStatus.UPLOADING_FAILED}
                reserved = task.status in {TaskStatus.RUNNING, TaskStatus.SUSPENDED} or live.slots > 0
                live.hold(task.id, Place(task.attempt, needs_of(task), reserved, is_shipping=shipping, assigned_s=now_s))
            self.fleet.add(live)
            if session is None:
                self.silent_since.setdefault(worker.id, now_s)
        for task in tasks.with_status(tx, "P"):
            self.ready.add([task.id], task.step_id or NO_STEP, needs_of(task), task.priority)

    def limited(self, array_id: int | None) -> int:
        """The array's id when it limits how many of it run at once, else 0."""
        return array_id if array_id is not None and array_id in self.array_most else 0

    def array_has_room(self, asked: Needs) -> bool:
        """Whether one more task of a limited array may be with a worker."""
        held = sum(1 for live in self.fleet.workers.values() for place in live.held.values() if place.needs.array_id == asked.array_id)
        return held < self.array_most.get(asked.array_id, 1 << 30)

    def note_array(self, tx: apsw.Connection, array_id: int) -> None:
        """Learn the limit of an array that was just made."""
        found = creation.array(tx, array_id)
        if found and found[1] is not None:
            self.array_most[array_id] = found[1]

    def release(self, worker_id: int | None, task_id: int) -> None:
        """A worker has a task no more."""
        live = self.fleet.workers.get(worker_id or 0)
        self.progress.pop(task_id, None)
        if live is not None and live.drop(task_id) is not None:
            self.had_tasks.add(live.id)
            self.fleet.touch(live)

    def order(self, wish: str, task_id: int, attempt: int, reason: str = "") -> Order:
        """An order about an attempt."""
        return Order(kind=wish, task_id=task_id, attempt=attempt, reason=reason)


def capacity(hardware: Hardware | None) -> Capacity:
    """What a worker's hardware offers to tasks."""
    if hardware is None:
        return Capacity(0, 0, 0, 0, {})
    return Capacity(hardware.cpus, hardware.mem_gib, hardware.gpus, hardware.disk_gb, dict(hardware.requests))


def live_worker(worker: Worker, hardware: Hardware | None) -> LiveWorker:
    """A stored worker as the scheduler sees it, holding nothing yet."""
    total = capacity(hardware)
    has_runtime = any(runtime != "bare" for runtime in worker.runtimes)
    group = worker.step_id or NO_STEP
    return LiveWorker(
        worker.id, worker.name, group, worker.concurrency, worker.prefetch, total, total, has_runtime, worker.allows_bare
    )  # fmt: skip
