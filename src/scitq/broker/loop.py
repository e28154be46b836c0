"""The broker's one loop: drain messages, apply them in one transaction, commit, then answer (docs/architecture.md)."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import apsw
import msgspec
import zmq

from scitq.broker import dispatch
from scitq.broker.context import Ctx, Later, Park, Reading
from scitq.broker.gate import Gate
from scitq.broker.handlers.agent import assignment
from scitq.broker.parking import Parking, Pending
from scitq.broker.scheduler import Offer, pair
from scitq.broker.state import Broker
from scitq.broker.store import requests, tasks
from scitq.broker.store.checkpoint import Checkpointer
from scitq.broker.wire import Wire
from scitq.errors import ConflictError, DiskFullError, NotLoggedInError, ProtocolError, ScitqError, UnavailableError, UsageError
from scitq.model.lifecycle import TaskEvent
from scitq.protocol import envelope, registry
from scitq.protocol.envelope import ErrorBody
from scitq.protocol.messages.agent import AgentOffer, AgentUnknown, Assignment
from scitq.protocol.registry import Reply, Role
from scitq.protocol.tokens import Identity
from scitq.util.clock import monotonic_s, now_ms

logger = logging.getLogger(__name__)

_BATCH = 400
_ROUND_S = 0.01
"""Messages applied in one transaction, and the time after which no more are taken; more would make the first of them wait."""
_SYSTEM = Identity(0, "scitq", Role.ADMIN, 0, "")
_LASTING = frozenset({"task.create", "task.retry", "worker.deploy", "workflow.create", "step.create", "recruiter.create"})
"""Requests whose answers are kept on disk, so that one sent again after a crash is not carried out twice."""
_READERS = 2
_SLOW = 16

Result = Callable[[], None]


@dataclass(slots=True)
class _Periodic:
    next_s: float
    period_s: float
    function: Callable[[Ctx], None]


class Loop:
    """Owns the sockets, the writing connection and the broker's memory."""

    def __init__(self, broker: Broker, wire: Wire) -> None:
        """Nothing runs yet."""
        self._broker = broker
        self._wire = wire
        self._gate = Gate(broker)
        self._parking = Parking()
        self._results: SimpleQueue[Result] = SimpleQueue()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="read")
        self._slow = ThreadPoolExecutor(_SLOW, thread_name_prefix="slow")
        self._local = threading.local()
        self._checkpointer = Checkpointer(broker.store)
        self._in_flight: set[tuple[bytes, str]] = set()
        self._is_open = False
        self._turn = 0
        self._replies: list[tuple[bytes, bytes]] = []
        self._topics: set[str] = set()
        self._laters: list[tuple[Later[Any], Pending | None]] = []
        self._answered: list[Pending] = []
        self._periodic = [_Periodic(monotonic_s() + period, period, function) for period, function in dispatch.periodic()]
        self._busy_s = 0.0
        self._is_stopping = False

    def stop(self) -> None:
        """End soon; may be called from a signal handler or another thread."""
        self._is_stopping = True
        self._wake()

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def run(self) -> None:
        """Go round until told to stop."""
        poller = zmq.Poller()
        poller.register(self._wire.router, zmq.POLLIN)
        poller.register(self._wire.keys, zmq.POLLIN)
        poller.register(self._wake_fd, zmq.POLLIN)
        measured_s = monotonic_s()
        while not self._is_stopping:
            wait_s = min(self._parking.next_s(), *(entry.next_s for entry in self._periodic)) - monotonic_s()
            has_more = bool(self._broker.ready.changed or self._broker.fleet.touched) and not self._broker.is_draining
            ready = dict(poller.poll(0 if has_more else max(0, min(1000, round(wait_s * 1000 + 0.5)))))
            began_s = monotonic_s()
            if self._wire.keys in ready:
                self._wire.answer_keys()
            if self._wake_fd in ready:
                os.eventfd_read(self._wake_fd)
            self._round()
            ended_s = monotonic_s()
            self._busy_s += ended_s - began_s
            if ended_s - measured_s > 5:
                self._broker.busy_percent = 100 * self._busy_s / (ended_s - measured_s)
                self._busy_s, measured_s = 0.0, ended_s
            if self._broker.stop_wanted or (
                self._broker.is_draining and not any(live.held for live in self._broker.fleet.workers.values())
            ):
                self._is_stopping = True

    def _round(self) -> None:
        """One batch: one transaction, one commit, then everything that may only be said after it."""
        self._turn += 1
        full_s = monotonic_s() + _ROUND_S
        try:
            for _ in range(_BATCH):
                try:
                    self._results.get_nowait()()
                except Empty:
                    break
            for peer, frame in self._wire.receive(_BATCH):
                self._receive(peer, frame)
                if monotonic_s() > full_s:
                    break
            now_s = monotonic_s()
            for pending in self._parking.due(now_s):
                self._run(pending)
            self._tick(now_s)
            if not self._broker.is_draining:
                self._schedule()
            if self._is_open:
                self._is_open = False
                self._broker.store.writer.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the edge: whatever went wrong with a batch, the server goes on
            self._give_up(error)
            return
        self._publish()

    def _publish(self) -> None:
        replies, self._replies = self._replies, []
        for peer, frame in replies:
            self._wire.send(peer, frame)
        laters, self._laters = self._laters, []
        for later, pending in laters:
            self._slow.submit(self._work, later, pending)
        self._answered.clear()
        if self._topics:
            topics, self._topics = self._topics, set()
            self._parking.notify(topics, self._turn, monotonic_s())

    def _give_up(self, error: Exception) -> None:
        """The commit failed (a full disk, mostly): nothing of this batch has happened; say so, and read the memory anew."""
        logger.error("a batch failed: %s", error, exc_info=None if isinstance(error, apsw.Error) else error)
        writer = self._broker.store.writer
        self._is_open = False
        if not writer.getautocommit():
            writer.execute("ROLLBACK")
        self._replies.clear()
        self._topics.clear()
        self._laters.clear()
        what = DiskFullError("the server's disk is full; nothing was done") if isinstance(error, apsw.FullError) else None
        for pending in self._answered:
            self._refuse(
                pending.peer, pending.request_id, what or UnavailableError(f"the server's database failed: {error}; nothing was done")
            )
        self._answered.clear()
        for session in self._broker.sessions.values():
            session.seq = -1
        self._broker.rebuild(monotonic_s())
        self._publish()

    def _begin(self) -> apsw.Connection:
        writer = self._broker.store.writer
        if not self._is_open:
            writer.execute("BEGIN IMMEDIATE")
            self._is_open = True
        return writer

    def _receive(self, peer: bytes, frame: bytes) -> None:
        request_id = ""
        try:
            if len(frame) > envelope.LONG_BYTES:
                name, request_id, token = envelope.peek(frame)
                self._gate.admit_long(registry.of_kind(name), token, now_ms())
            message = envelope.unpack(frame)
            request_id = message.request_id
            if (peer, request_id) in self._in_flight:
                return
            self._broker.connections[peer] = monotonic_s()
            kind = registry.of_kind(message.kind)
            who = self._gate.admit(kind, message.token, now_ms())
            if Role.WORKER in kind.roles and kind.kind not in {"agent.register", "logout"} and peer not in self._broker.peers:
                self._replies.append((peer, envelope.pack("agent.unknown", "", "", AgentUnknown())))
                raise NotLoggedInError("register first")
            body = envelope.read_body(message.body, kind.message)
        except ScitqError as error:
            self._refuse(peer, request_id, error)
            return
        self._run(Pending(peer, request_id, kind, body, who, monotonic_s(), token=message.token))

    def _refuse(self, peer: bytes, request_id: str, error: ScitqError) -> None:
        if isinstance(error, ProtocolError):
            logger.info("refused a message: %s", error.message)
        self._in_flight.discard((peer, request_id))
        self._replies.append((peer, envelope.pack("error", request_id, "", ErrorBody(error.code, error.message[:100_000], error.position))))

    def _run(self, pending: Pending) -> None:
        """Run a request, for the first time or again."""
        reader = dispatch.reader(pending.kind.message)
        pending.runs += 1
        if pending.runs > 1 and pending.token:
            # It was parked, and its token may have been revoked meanwhile.
            try:
                pending.who = self._gate.admit(pending.kind, pending.token, now_ms())
            except ScitqError as error:
                self._refuse(pending.peer, pending.request_id, error)
                return
        self._in_flight.add((pending.peer, pending.request_id))
        if reader is not None:
            pending.seen_turn = self._turn - 1
            if self._broker.store.is_exclusive:
                self._finish_read(pending, *self._read(reader, pending))
            else:
                self._readers.submit(self._read_in_thread, reader, pending)
            return
        handler = dispatch.handler(pending.kind.message)
        if handler is None:
            self._refuse(pending.peer, pending.request_id, ProtocolError(f"nothing here handles {pending.kind.kind}"))
            return
        pending.seen_turn = self._turn
        self._apply(pending, lambda ctx: handler(ctx, pending.message))

    def _apply(self, pending: Pending | None, action: Callable[[Ctx], Any]) -> None:
        """Run `action` in a savepoint; what it did to the memory and what it says take effect only if it succeeds."""
        tx = self._begin()
        who, peer = (pending.who, pending.peer) if pending else (_SYSTEM, b"")
        ctx = Ctx(tx, now_ms(), self._broker, who, peer)
        if pending is not None:
            ctx.parked_key, ctx.until_s = pending.key, pending.until_s
            self._answered.append(pending)
        tx.execute("SAVEPOINT request")
        try:
            if pending is not None and pending.kind.kind in _LASTING and self._answer_again(ctx, pending):
                tx.execute("RELEASE request")
                return
            outcome = action(ctx)
            if pending is not None and pending.kind.kind in _LASTING and isinstance(outcome, Reply):
                requests.keep(tx, pending.request_id, who.user_id, msgspec.msgpack.encode(outcome), ctx.now_ms)
            tx.execute("RELEASE request")
        except (apsw.FullError, apsw.IOError, apsw.CorruptError):
            raise
        except Exception as error:
            if tx.getautocommit():
                raise apsw.SQLError("the transaction was lost") from error
            tx.execute("ROLLBACK TO request")
            tx.execute("RELEASE request")
            self._failed(pending, error)
            return
        for effect in ctx.effects:
            effect()
        self._topics |= ctx.topics
        for target, push in ctx.pushes:
            self._replies.append((target, envelope.pack(registry.push_kind(type(push)), "", "", push)))
        self._laters.extend((later, None) for later in ctx.laters)
        if pending is not None:
            self._conclude(pending, outcome)

    def _failed(self, pending: Pending | None, error: Exception) -> None:
        if pending is not None and isinstance(error, OverflowError):  # SQLite's integers have 64 bits with a sign
            error = UsageError("a number in the request, or in the answer to it, is too large")
        if not isinstance(error, ScitqError):
            logger.error("an error in %s", pending.kind.kind if pending else "periodic work", exc_info=error)
            error = ScitqError(f"an error in the server: {type(error).__name__}; its log has the details")
        elif pending is None:
            logger.warning("periodic work failed: %s", error.message)
        if pending is not None:
            self._refuse(pending.peer, pending.request_id, error)

    def _answer_again(self, ctx: Ctx, pending: Pending) -> bool:
        kept = requests.answer(ctx.tx, pending.request_id, pending.who.user_id)
        if kept is None:
            return False
        self._reply(pending, msgspec.Raw(kept))
        return True

    def _conclude(self, pending: Pending, outcome: Any) -> None:  # noqa: ANN401 - Reply, Park, Later, or an error whose record stays
        match outcome:
            case ScitqError():
                self._refuse(pending.peer, pending.request_id, outcome)
            case Park():
                self._parking.park(pending, outcome, monotonic_s())
            case Later():
                self._laters.append((outcome, pending))
            case _:
                self._reply(pending, outcome)

    def _reply(self, pending: Pending, body: object) -> None:
        self._in_flight.discard((pending.peer, pending.request_id))
        try:
            frame = envelope.pack("ok", pending.request_id, "", body)
        except (ProtocolError, OverflowError) as error:
            self._failed(pending, error)
            return
        self._replies.append((pending.peer, frame))

    def _work(self, later: Later[Any], pending: Pending | None) -> None:
        """In a thread: slow work; its end comes back to the loop."""
        try:
            result = later.work()
        except Exception as error:  # noqa: BLE001 - handed to the loop, which answers
            failure = error
            if later.or_else is not None:
                or_else = later.or_else
                self._post(lambda: self._apply(pending, lambda ctx: or_else(ctx, failure)))
            else:
                self._post(lambda: self._failed(pending, failure))
        else:
            self._post(lambda: self._apply(pending, lambda ctx: later.then(ctx, result)))

    def _post(self, result: Result) -> None:
        self._results.put(result)
        self._wake()

    def _read(self, reader: dispatch.Reader, pending: Pending) -> tuple[Any, Exception | None]:
        try:
            db = getattr(self._local, "db", None)
            if db is None:
                db = self._local.db = self._broker.store.reader()
            reading = Reading(db, now_ms(), self._broker, pending.who, pending.arrived_s, monotonic_s())
            outcome = reader(reading, pending.message)
            return msgspec.Raw(msgspec.msgpack.encode(outcome)) if isinstance(outcome, Reply) else outcome, None
        except Exception as error:  # noqa: BLE001 - handed to the loop, which answers
            return None, error

    def _read_in_thread(self, reader: dispatch.Reader, pending: Pending) -> None:
        outcome, error = self._read(reader, pending)
        self._post(lambda: self._finish_read(pending, outcome, error))

    def _finish_read(self, pending: Pending, outcome: Any, error: Exception | None) -> None:  # noqa: ANN401 - Reply, Park or bytes of one
        if error is not None:
            self._failed(pending, error)
        else:
            self._conclude(pending, outcome)

    def _tick(self, now_s: float) -> None:
        for entry in self._periodic:
            if entry.next_s <= now_s:
                entry.next_s = now_s + entry.period_s
                self._apply(None, entry.function)

    def _schedule(self) -> None:
        broker = self._broker
        now_s = monotonic_s()
        offers = pair(
            broker.ready, broker.fleet, now_s, is_open=lambda group: group not in broker.paused_groups, has_room=broker.array_has_room
        )
        if not offers:
            return
        tx = self._begin()
        at_ms = now_ms()
        by_peer: dict[bytes, list[Assignment]] = {}
        ctx = Ctx(tx, at_ms, broker, _SYSTEM)
        for offer in offers:
            made = self._assign(ctx, offer)
            session = broker.sessions.get(offer.worker.id)
            if made is not None and session is not None:
                by_peer.setdefault(session.peer, []).append(made)
        for peer, assignments in by_peer.items():
            self._replies.append((peer, envelope.pack("agent.offer", "", "", AgentOffer(tasks=assignments))))

    def _assign(self, ctx: Ctx, offer: Offer) -> Assignment | None:
        task = tasks.get(ctx.tx, offer.task_id)
        try:
            if task is None:
                raise ConflictError("gone")
            tasks.advance(ctx.tx, task, [(TaskEvent.ASSIGN, ctx.now_ms)], ctx.now_ms, worker_id=offer.worker.id)
        except ConflictError:
            logger.error("task %d was in the queue and is not pending", offer.task_id)
            self._broker.release(offer.worker.id, offer.task_id)
            return None
        offer.worker.held[offer.task_id].attempt = task.attempt
        self._topics.add(f"task:{offer.task_id}")
        return assignment(ctx, offer.task_id)

    def close(self) -> None:
        """End the threads and the sockets."""
        self._readers.shutdown(wait=True, cancel_futures=True)
        self._slow.shutdown(wait=False, cancel_futures=True)
        self._checkpointer.stop()
        self._wire.close()
        os.close(self._wake_fd)
