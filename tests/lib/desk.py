"""The broker's handlers without sockets: real store, real memory, and one call for one message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from scitq.broker import dispatch
from scitq.broker.context import Ctx, Later, Park, Reading
from scitq.broker.handlers.agent import assignment
from scitq.broker.scheduler import pair
from scitq.broker.state import Broker, Secrets
from scitq.broker.store import tasks, users
from scitq.broker.store.connection import Store
from scitq.config.schema import Config
from scitq.model.lifecycle import TaskEvent
from scitq.model.task import NewTask, TaskSpec
from scitq.protocol.messages.agent import AgentOffer, AgentRegister, AgentReport, Assignment, AttemptEvent, Hardware, Registered, Reported
from scitq.protocol.messages.task import TaskCreate, TasksCreated, TasksDetails, TaskShow
from scitq.protocol.registry import Reply, Request, Role
from scitq.protocol.tokens import Identity
from scitq.util.clock import UnixMs, monotonic_s

R = TypeVar("R", bound=Reply)
ADMIN = Identity(1, "admin", Role.ADMIN, 0, "a")
ALICE = Identity(2, "alice", Role.USER, 0, "b")
BOB = Identity(3, "bob", Role.USER, 0, "c")
WORKER = Identity(0, "worker", Role.WORKER, 0, "")


class Desk:
    """A broker to which messages are handed by hand. `pushes`: what it would have sent, as (peer, message)."""

    def __init__(self, folder: Path, config: Config | None = None) -> None:
        dispatch.load()
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.config = config or Config(rclone={"s3": {"type": "local"}})
        self.now = UnixMs(1_700_000_000_000)
        self.pushes: list[tuple[bytes, Reply]] = []
        self.topics: set[str] = set()
        self.store = Store(folder)
        if not users.listed(self.store.writer):
            for name, role in (("admin", "admin"), ("alice", "user"), ("bob", "user")):
                users.insert(self.store.writer, name, "x", role, self.now)
        self.broker = Broker(self.config, self.store, Secrets(b"k" * 32, "w" * 32, b"", b""), folder, monotonic_s())

    def restarted(self) -> Desk:
        """The same folder with a new broker, as after kill -9."""
        self.store.writer.close()
        import os

        os.close(self.store._lock)
        return Desk(self.folder, self.config)

    def do(self, action: Callable[[Ctx], Any], who: Identity = ADMIN, peer: bytes = b"") -> Any:
        """Run something as the loop does: savepoint, then effects."""
        tx = self.store.writer
        ctx = Ctx(tx, self.now, self.broker, who, peer)
        with tx:
            outcome = action(ctx)
        for effect in ctx.effects:
            effect()
        self.pushes.extend(ctx.pushes)
        self.topics |= ctx.topics
        return outcome

    def send(self, message: Request, reply: type[R], who: Identity = ALICE, peer: bytes = b"") -> R:
        """Hand a message over; slow work is done at once."""
        reader = dispatch.reader(type(message))
        if reader is not None:
            now_s = monotonic_s()
            outcome: Any = reader(Reading(self.store.writer, self.now, self.broker, who, now_s, now_s), message)
        else:
            handler = dispatch.handler(type(message))
            assert handler is not None, message
            outcome = self.do(lambda ctx: handler(ctx, message), who, peer)
            while isinstance(outcome, Later):
                later, result = outcome, outcome.work()
                outcome = self.do(lambda ctx, later=later, result=result: later.then(ctx, result), who, peer)
        assert not isinstance(outcome, Park), "it was parked"
        assert isinstance(outcome, reply), outcome
        return outcome

    def create(self, *new: NewTask, spec: TaskSpec | None = None, who: Identity = ALICE, **options: Any) -> list[int]:
        """Create tasks of one spec (bare `true` when none is given)."""
        spec = spec or TaskSpec(container="bare", command="true")
        return self.send(TaskCreate(specs=[spec], tasks=list(new) or [NewTask()], **options), TasksCreated, who).ids

    def show(self, task_id: int) -> Any:
        """Details of one task."""
        return self.send(TaskShow(ids=[task_id]), TasksDetails).tasks[0]

    def status(self, *ids: int) -> str:
        """Their letters."""
        return "".join(self.show(task_id).row.status for task_id in ids)

    def task(self, task_id: int) -> tasks.Task:
        """The stored task."""
        found = tasks.get(self.store.writer, task_id)
        assert found is not None
        return found

    def schedule(self) -> list[Assignment]:
        """Pair and assign, as the loop does after each batch."""
        offers = pair(
            self.broker.ready, self.broker.fleet, monotonic_s(),
            is_open=lambda group: group not in self.broker.paused_groups, has_room=self.broker.array_has_room,
        )  # fmt: skip
        made = []
        for offer in offers:

            def assign(ctx: Ctx, offer: Any = offer) -> Assignment:
                task = self.task(offer.task_id)
                tasks.advance(ctx.tx, task, [(TaskEvent.ASSIGN, ctx.now_ms)], ctx.now_ms, worker_id=offer.worker.id)
                offer.worker.held[offer.task_id].attempt = task.attempt
                return assignment(ctx, offer.task_id)

            made.append(self.do(assign))
        return made


class HandAgent:
    """An agent whose every message the test writes."""

    def __init__(
        self, desk: Desk, name: str = "w1", *, concurrency: int = 1, prefetch: int = 0, cpus: float = 8, mem: float = 16, **more: Any
    ) -> None:
        self.desk = desk
        self.peer = name.encode()
        self.seq = 0
        self.message = AgentRegister(
            uid=name, name=name, host="host", hardware=Hardware(cpus=cpus, mem_gib=mem, disk_gb=100), runtimes=["bare", "docker"],
            concurrency=concurrency, prefetch=prefetch, **more,
        )  # fmt: skip
        self.registered = desk.send(self.message, Registered, WORKER, self.peer)
        self.id = self.registered.worker_id

    def report(self, *events: AttemptEvent, **more: Any) -> Reported:
        """One report."""
        self.seq += 1
        return self.desk.send(AgentReport(seq=self.seq, events=list(events), **more), Reported, WORKER, self.peer)

    def tell(self, task_id: int, *kinds: str, attempt: int | None = None, **more: Any) -> Reported:
        """Several events of one attempt; `more` belongs to the last."""
        number = self.desk.task(task_id).attempt if attempt is None else attempt
        events = [AttemptEvent(task_id, number, kind) for kind in kinds[:-1]]
        return self.report(*events, AttemptEvent(task_id, number, kinds[-1], **more))

    def start(self, task_id: int) -> None:
        """Take a task as far as R."""
        self.tell(task_id, "accept", "fetch", "fetched", "start")

    def orders(self) -> list[tuple[str, int]]:
        """(kind, task) of the orders sent so far, and forget them."""
        found = [
            (order.kind, order.task_id) for peer, push in self.desk.pushes if peer == self.peer for order in getattr(push, "orders", [])
        ]
        self.desk.pushes = [(peer, push) for peer, push in self.desk.pushes if peer != self.peer]
        return found

    def offers(self) -> list[int]:
        """Tasks pushed again as offers."""
        return [
            entry.task_id for peer, push in self.desk.pushes if peer == self.peer and isinstance(push, AgentOffer) for entry in push.tasks
        ]
