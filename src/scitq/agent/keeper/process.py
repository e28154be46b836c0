"""The keeper's loop: one thread, one epoll; children are started, read, reaped and kept until the agent releases them."""

from __future__ import annotations

import ctypes
import heapq
import os
import select
import signal
import socket
from contextlib import suppress
from pathlib import Path

import msgspec

from scitq.agent.keeper import exits
from scitq.agent.keeper.child import (
    KEPT_IN_MEMORY,
    Child,
    children_of_all,
    descendants,
    holders,
    largest_bytes,
    marked_pids,
    memory_bytes,
    not_started,
)
from scitq.agent.keeper.messages import Command, Exited, Frames, Grown, Kept, Key, Quit, Ready, Release, Signal, Start, encode
from scitq.util import clock

FLUSH_AFTER_S = 0.02
"""Output younger than this waits in memory, so that a short task's log needs no file."""
MEMORY_EVERY_S = 0.5
"""How often the memory of children that have a limit is added up."""
YOUNG_S = (0.02, 0.1, 0.4)
"""Ages at which the largest process of a young child is looked at, since most tasks end before the first sum."""
USE_EVERY_S = 2.0
"""How often that of others is, for the record of what they used."""
LINGER_S = 2.0
"""How long a pipe that somebody else still holds is read after its task has ended and been killed."""
ORPHANED_S = 7 * 86400.0
"""A keeper whose agent stays away ends after so long without a running child."""
FIRST_WAIT_S = 60.0
_PR_SET_CHILD_SUBREAPER = 36


class Keeper:
    """Serves one agent at a time on `listener`."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._agent: socket.socket | None = None
        self._frames = Frames(msgspec.msgpack.Decoder(Command))
        self._out = bytearray()
        self._children: dict[Key, Child] = {}
        self._failed: dict[Key, tuple[Exited, bytes]] = {}
        self._by_fd: dict[int, Child] = {}
        self._pids: set[int] = set()
        self._dirty: set[Child] = set()
        self._ending: set[Child] = set()
        self._strays: dict[int, tuple[int, Child]] = {}
        self._alone_since_s = clock.monotonic_s()
        self._limited: set[Child] = set()
        self._young: list[tuple[float, int, int, Child]] = []
        self._weighed_s = 0.0
        self._had_agent = False
        self._is_quitting = False
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN)
        self._own_children = Path(f"/proc/self/task/{os.getpid()}/children")

    def run(self) -> None:
        """Until told to quit, or nothing is left to keep and no agent is there."""
        while not self._is_over() or self._is_called():
            for descriptor, events in self._epoll.poll(self._wait_s(), 256):
                self._handle(descriptor, events)
            if self._dirty:
                self._flush()
            if self._ending:
                self._end()
            if self._young:
                self._look()
            if self._pids:
                self._weigh()
            if self._out and self._agent is not None:
                self._send()
        for child in self._children.values():
            if child.exited is None:
                child.signal(signal.SIGKILL)

    def _is_over(self) -> bool:
        if self._agent is not None or (not self._had_agent and clock.monotonic_s() - self._alone_since_s < FIRST_WAIT_S):
            return False
        running = any(child.exited is None for child in self._children.values())
        if self._is_quitting or not (self._children or self._failed):
            return not running or self._is_quitting
        return not running and clock.monotonic_s() - self._alone_since_s > ORPHANED_S

    def _is_called(self) -> bool:
        """Whether a new agent has connected meanwhile: it must not meet a closed door."""
        return not self._is_quitting and bool(select.select([self._listener], [], [], 0)[0])

    def _wait_s(self) -> float:
        if self._ending:
            return 0.01
        if self._dirty:
            return FLUSH_AFTER_S
        most_s = MEMORY_EVERY_S if self._limited else USE_EVERY_S if self._pids else 60.0
        return min(most_s, max(0.001, self._young[0][0] - clock.monotonic_s())) if self._young else most_s

    def _handle(self, descriptor: int, events: int) -> None:
        child = self._by_fd.get(descriptor)
        if child is not None:
            if descriptor == child.exit_fd:
                self._reap(child)
            elif not child.is_blocked and not child.read(descriptor):
                self._close_pipe(child, descriptor)
            if child.log.kept_bytes and child.exited is None:
                self._mark_dirty(child)
        elif descriptor in self._strays:
            self._reap_stray(descriptor)
        elif descriptor == self._listener.fileno():
            self._accept()
        elif self._agent is not None and descriptor == self._agent.fileno():
            if events & select.EPOLLOUT:
                self._send()
            if events & ~select.EPOLLOUT:
                self._hear()

    # --- the agent -------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        if self._agent is not None:
            self._drop_agent()
        connection.setblocking(False)
        self._agent, self._had_agent = connection, True
        self._frames = Frames(msgspec.msgpack.Decoder(Command))
        self._epoll.register(connection, select.EPOLLIN)
        now_s = clock.monotonic_s()
        for child in self._children.values():
            with suppress(OSError):
                if child.exited is None:
                    child.log.spill()
            child.told_bytes = child.log.size
            kept = Kept(child.key, child.blob, child.pid, now_s - child.started_s, child.log.size, child.exited)
            self._out += encode(kept)
        for key, (failed, blob) in self._failed.items():
            self._out += encode(Kept(key, blob, 0, 0.0, 0, failed))
        self._out += encode(Ready(os.getpid()))

    def _drop_agent(self) -> None:
        assert self._agent is not None
        self._epoll.unregister(self._agent)
        self._agent.close()
        self._agent = None
        self._out.clear()
        self._alone_since_s = clock.monotonic_s()

    def _hear(self) -> None:
        assert self._agent is not None
        try:
            data = self._agent.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop_agent()
            return
        for command in self._frames.feed(data):
            match command:
                case Start():
                    self._start(command)
                case Signal():
                    self._signal(command)
                case Release():
                    self._release(command.key)
                case Quit():
                    self._is_quitting = True
                    self._drop_agent()
                    return

    def _send(self) -> None:
        assert self._agent is not None
        try:
            sent = self._agent.send(self._out)
            del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._drop_agent()
            return
        self._epoll.modify(self._agent, select.EPOLLIN | (select.EPOLLOUT if self._out else 0))

    # --- children --------------------------------------------------------------------------------------------------

    def _start(self, order: Start) -> None:
        if order.key in self._children or order.key in self._failed:
            return
        try:
            child = Child(order)
        except (OSError, ValueError) as error:
            failed = not_started(order.key, error if isinstance(error, OSError) else OSError(str(error)))
            self._failed[order.key] = (failed, order.blob)
            self._out += encode(failed)
            return
        self._children[order.key] = child
        self._pids.add(child.pid)
        heapq.heappush(self._young, (child.started_s + YOUNG_S[0], child.pid, 0, child))
        if child.most_memory_bytes:
            self._limited.add(child)
        for descriptor in (*child.pipes, child.exit_fd):
            self._by_fd[descriptor] = child
            self._epoll.register(descriptor, select.EPOLLIN)

    def _signal(self, order: Signal) -> None:
        child = self._children.get(order.key)
        if child is None or child.status is not None:
            return
        if order.to_first:
            os.kill(child.pid, order.number)  # it is there, or a zombie: nobody but this process waits for it
            return
        others = descendants(child.pid) + marked_pids(child.key, self._orphans())
        child.signal(order.number)
        for pid in others:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, order.number)

    def _release(self, key: Key) -> None:
        self._failed.pop(key, None)
        child = self._children.get(key)
        if child is not None and child.exited is not None:
            del self._children[key]

    def _look(self) -> None:
        """The first looks at children; those that have ended already are dropped."""
        now_s = clock.monotonic_s()
        while self._young and self._young[0][0] <= now_s:
            _, pid, number, child = heapq.heappop(self._young)
            if child.status is not None:
                continue
            child.peak_memory_bytes = max(child.peak_memory_bytes, largest_bytes(pid))
            if number + 1 < len(YOUNG_S):
                heapq.heappush(self._young, (child.started_s + YOUNG_S[number + 1], pid, number + 1, child))

    def _weigh(self) -> None:
        """Add up the memory of what runs; kill what is over its limit. One look at all processes serves all children."""
        now_s = clock.monotonic_s()
        every_s = MEMORY_EVERY_S if self._limited else USE_EVERY_S
        if now_s - self._weighed_s < every_s:
            return
        self._weighed_s = now_s
        below = children_of_all()
        orphans = self._orphans()
        for child in self._children.values():
            if child.status is not None or now_s - child.started_s < MEMORY_EVERY_S:
                continue
            pids = [child.pid, *descendants(child.pid, below), *marked_pids(child.key, orphans)]
            used = memory_bytes(pids)
            child.peak_memory_bytes = max(used, child.peak_memory_bytes)
            if 0 < child.most_memory_bytes < used:
                child.is_out_of_memory = True
                for pid in pids:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)

    def _mark_dirty(self, child: Child) -> None:
        if child not in self._dirty:
            self._dirty.add(child)
            child.flush_at_s = clock.monotonic_s() + FLUSH_AFTER_S

    def _flush(self) -> None:
        now_s = clock.monotonic_s()
        for child in list(self._dirty):
            if child.exited is not None:
                self._dirty.discard(child)
            elif child.flush_at_s <= now_s or child.log.kept_bytes >= KEPT_IN_MEMORY:
                try:
                    child.log.spill()
                except OSError:  # the disk is full: the task waits on its pipe until there is room
                    self._block(child, True)
                    child.flush_at_s = now_s + 1.0
                    continue
                self._block(child, False)
                self._dirty.discard(child)
                if self._agent is not None and child.log.size > child.told_bytes:
                    child.told_bytes = child.log.size
                    self._out += encode(Grown(child.key, child.log.size))

    def _block(self, child: Child, is_blocked: bool) -> None:
        if child.is_blocked != is_blocked:
            child.is_blocked = is_blocked
            for descriptor in child.pipes:
                if is_blocked:
                    self._epoll.unregister(descriptor)
                else:
                    self._epoll.register(descriptor, select.EPOLLIN)

    def _close_pipe(self, child: Child, descriptor: int) -> None:
        if not child.is_blocked:
            self._epoll.unregister(descriptor)
        del self._by_fd[descriptor]
        del child.pipes[descriptor]
        os.close(descriptor)

    def _reap(self, child: Child) -> None:
        self._epoll.unregister(child.exit_fd)
        del self._by_fd[child.exit_fd]
        os.close(child.exit_fd)
        child.reap()
        self._pids.discard(child.pid)
        self._limited.discard(child)
        self._ending.add(child)

    def _end(self) -> None:
        """Finish the children whose leader has ended, once nothing of theirs lives and their pipes are read to the end."""
        orphans = self._orphans()
        now_s = clock.monotonic_s()
        for child in list(self._ending):
            theirs = marked_pids(child.key, orphans) if orphans else []
            if orphans and not theirs:
                theirs = orphans if self._is_last(child) else holders(list(child.pipes), orphans)
            for pid in theirs:
                self._kill_stray(pid, child)
            for descriptor in child.drain():
                self._close_pipe(child, descriptor)
            is_late = now_s - child.gone_at_s > LINGER_S
            if (child.pipes or theirs or any(owner is child for _, owner in self._strays.values())) and not is_late:
                if child.log.kept_bytes >= KEPT_IN_MEMORY:
                    self._mark_dirty(child)
                continue
            for descriptor in list(child.pipes):
                self._close_pipe(child, descriptor)
            try:
                if child.log.kept_bytes >= KEPT_IN_MEMORY:
                    child.log.spill()
                notice = child.finish()
            except OSError:
                continue
            self._ending.discard(child)
            self._dirty.discard(child)
            self._out += encode(notice)

    def _is_last(self, child: Child) -> bool:
        """Whether nobody else runs, so that orphans that hid their environment can only be the child's."""
        return not self._pids and self._ending == {child}

    def _orphans(self) -> list[int]:
        """Children of this process that it did not start: what tasks left behind."""
        try:
            listed = self._own_children.read_bytes().split()
            found = [int(pid) for pid in listed]
        except OSError:  # a kernel without CONFIG_PROC_CHILDREN: only what a group's kill reaches is found
            return []
        waited = {pid for pid, _ in self._strays.values()}
        return [pid for pid in found if pid not in self._pids and pid not in waited]

    def _kill_stray(self, pid: int, owner: Child) -> None:
        with suppress(OSError):
            descriptor = exits.watch(pid)
            os.kill(pid, signal.SIGKILL)
            self._strays[descriptor] = (pid, owner)
            self._epoll.register(descriptor, select.EPOLLIN)

    def _reap_stray(self, descriptor: int) -> None:
        pid, _ = self._strays.pop(descriptor)
        self._epoll.unregister(descriptor)
        os.close(descriptor)
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def serve(listener: socket.socket) -> None:
    """Be the keeper of `listener` until there is nothing to keep; the caller is a process of its own, with one thread."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    Keeper(listener).run()
