"""Events and log pieces that the server has not acknowledged yet; one report is under way at a time, in order.

What is here is in memory; after a kill of the agent it is made again from the keeper, the containers and the journals.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scitq.agent.keeper.messages import Key
from scitq.model.lifecycle import TaskEvent
from scitq.model.task import Use
from scitq.protocol.messages.agent import AgentReport, AttemptEvent, LogChunk, Reported, Stats
from scitq.util import clock

MOST_EVENTS = 4000
MOST_LOG_BYTES = 2 << 20
"""Of one report, so that the server's loop is never held up by one worker's output."""
MOST_CHUNK = 512 * 1024
MOST_REFUSALS = 5
"""So often is a report tried that the server answers with an error; a heartbeat lies between two tries."""


@dataclass(slots=True)
class AttemptLog:
    """The framed log of one attempt: `file_bytes` in a file, then `tail`. Up to `sent` it was put into reports."""

    path: Path
    file_bytes: int = 0
    tail: bytes = b""
    sent: int = 0

    @property
    def size(self) -> int:
        """All bytes there are now."""
        return self.file_bytes + len(self.tail)

    def read(self, most: int) -> bytes:
        """The bytes after `sent`."""
        if self.sent < self.file_bytes:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(descriptor, min(most, self.file_bytes - self.sent), self.sent)
            finally:
                os.close(descriptor)
        start = self.sent - self.file_bytes
        return self.tail[start : start + most]


@dataclass(frozen=True, slots=True)
class _Event:
    at_s: float
    key: Key
    event: TaskEvent
    is_final: bool
    exit_status: int | None
    reason: str
    use: Use | None
    is_own_fault: bool
    cause: str


class Outbox:
    """Belongs to the loop's thread.

    send: starts a request whose message is made anew at each sending. settled: told each attempt whose final event the
    server has. stale: told what the server no longer wants.
    """

    def __init__(
        self,
        send: Callable[[Callable[[], AgentReport], Callable[[Reported], None], Callable[[], None]], None],
        settled: Callable[[Key], None],
        stale: Callable[[Key], None],
    ) -> None:
        self._send = send
        self._settled = settled
        self._stale = stale
        self._events: deque[_Event] = deque()
        self._logs: dict[Key, AttemptLog] = {}
        self._unsent_logs: set[Key] = set()
        self._progress: dict[Key, Callable[[], tuple[int, int]]] = {}
        self._heartbeat: tuple[Stats, list[tuple[int, int]], float | None] | None = None
        self._seq = 0
        self._refusals = 0
        self._flying: list[_Event] = []
        self.is_flying = False

    @property
    def is_empty(self) -> bool:
        """Whether the server knows all."""
        return not (self._events or self._unsent_logs or self.is_flying)

    def add(
        self,
        key: Key,
        event: TaskEvent,
        *,
        is_final: bool = False,
        exit_status: int | None = None,
        reason: str = "",
        use: Use | None = None,
        is_own_fault: bool = False,
        cause: str = "",
    ) -> None:
        """Something happened just now."""
        self._progress.pop(key, None)
        self._events.append(_Event(clock.monotonic_s(), key, event, is_final, exit_status, reason[:4000], use, is_own_fault, cause))

    def log(self, key: Key, path: Path) -> AttemptLog:
        """The attempt's log, made at first use."""
        found = self._logs.get(key)
        if found is None:
            found = self._logs[key] = AttemptLog(path)
        return found

    def log_changed(self, key: Key) -> None:
        """There is more of it."""
        self._unsent_logs.add(key)

    def progress(self, key: Key, read: Callable[[], tuple[int, int]]) -> None:
        """Say with every report, until the attempt's next event, what `read` gives: bytes done and to do of its transfer."""
        self._progress[key] = read

    def beat(self, stats: Stats, held: list[tuple[int, int]], seconds_left: float | None) -> None:
        """Say with the next report that this agent lives, and how it is."""
        self._heartbeat = (stats, held, seconds_left)

    def forget(self, key: Key) -> None:
        """Nothing more is said of this attempt."""
        self._logs.pop(key, None)
        self._unsent_logs.discard(key)
        self._progress.pop(key, None)
        if any(event.key == key for event in self._events):
            self._events = deque(event for event in self._events if event.key != key)

    def flush(self) -> None:
        """Send what there is, unless a report is under way."""
        if self.is_flying or not (self._events or self._unsent_logs or self._heartbeat) or (self._refusals and not self._heartbeat):
            return
        logs = self._take_logs()
        events = self._take_events()
        if not (events or logs or self._heartbeat):
            return
        heartbeat, self._heartbeat = self._heartbeat, None
        progress = [(*key, *read()) for key, read in self._progress.items()]
        self._seq += 1
        self._flying, self.is_flying = events, True
        seq = self._seq

        def make() -> AgentReport:
            now_s = clock.monotonic_s()
            return AgentReport(
                seq=seq,
                events=[_coded(event, now_s) for event in events],
                logs=logs,
                stats=heartbeat[0] if heartbeat else None,
                held=heartbeat[1] if heartbeat else None,
                progress=progress,
                seconds_left=heartbeat[2] if heartbeat else None,
            )

        self._send(make, self._answered, lambda: self._refused(logs))

    def _take_logs(self) -> list[LogChunk]:
        chunks: list[LogChunk] = []
        room = MOST_LOG_BYTES
        for key in list(self._unsent_logs):
            log = self._logs.get(key)
            if log is not None and log.sent < log.size:
                if room <= 0:
                    break
                data = b""
                with suppress(OSError):
                    data = log.read(min(room, MOST_CHUNK))
                if data:
                    chunks.append(LogChunk(key[0], key[1], log.sent, data))
                    log.sent += len(data)
                    room -= len(data)
                else:  # the file was taken away: what is gone can't be sent
                    log.sent = log.size
            if log is None or log.sent >= log.size:
                self._unsent_logs.discard(key)
        return chunks

    def _take_events(self) -> list[_Event]:
        """Events in order; the final one of an attempt waits for its log, and so does what comes after it."""
        taken: list[_Event] = []
        kept: deque[_Event] = deque()
        held_back: set[Key] = set()
        for event in self._events:
            if len(taken) >= MOST_EVENTS or event.key in held_back or (event.is_final and event.key in self._unsent_logs):
                held_back.add(event.key)
                kept.append(event)
            else:
                taken.append(event)
        self._events = kept
        together: dict[Key, list[_Event]] = {}
        for event in taken:  # the server writes one row for each run of events of one attempt
            together.setdefault(event.key, []).append(event)
        return [event for events in together.values() for event in events]

    def _answered(self, reply: Reported) -> None:
        events, self._flying, self.is_flying, self._refusals = self._flying, [], False, 0
        for task_id, attempt, stored in reply.log_offsets:
            log = self._logs.get((task_id, attempt))
            if log is not None and stored < log.sent:
                log.sent = stored
                self._unsent_logs.add((task_id, attempt))
        for key in reply.stale:
            self._stale(key)
        for event in events:
            if event.is_final:
                self._logs.pop(event.key, None)
                self._settled(event.key)
        self.flush()

    def _refused(self, chunks: list[LogChunk]) -> None:
        """The server failed on this report: it is tried again some times, with what came since, before it is given up."""
        events, self._flying, self.is_flying = self._flying, [], False
        self._refusals += 1
        if self._refusals < MOST_REFUSALS:
            self._events.extendleft(reversed(events))
            for chunk in chunks:
                log = self._logs.get((chunk.task_id, chunk.attempt))
                if log is not None:
                    log.sent = min(log.sent, chunk.offset)
                    self._unsent_logs.add((chunk.task_id, chunk.attempt))
            return
        self._refusals = 0
        for event in events:
            if event.is_final:
                self._settled(event.key)


def _coded(event: _Event, now_s: float) -> AttemptEvent:
    age_ms = max(0, int((now_s - event.at_s) * 1000))
    return AttemptEvent(
        event.key[0], event.key[1], event.event.value, age_ms, event.exit_status, event.reason, event.use, event.is_own_fault, event.cause
    )
