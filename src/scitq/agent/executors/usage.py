"""What containers use, read from their cgroups while they run: after the end the files are gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scitq.agent.executors import cgroups
from scitq.agent.keeper.child import cpu_s, descendants, memory_bytes
from scitq.agent.keeper.messages import Key
from scitq.model.task import Use
from scitq.util import clock

FIRST_S, EVERY_S = 0.05, 1.0
"""A young container is looked at soon and then less and less often."""


class _Watched:
    """One container: where its figures are, what was seen, when to look again."""

    def __init__(self, container: str, pid: Callable[[], int]) -> None:
        self.container = container
        self.pid = pid
        self.folders: dict[str, Path] = {}
        self.seen: dict[str, int] = {}
        self.pause_s = FIRST_S
        self.next_s = 0.0

    def look(self) -> None:
        with suppress(Exception):  # the container may end at any moment
            if not self.folders:
                self.folders = cgroups.folders_of(self.container, self.pid())
            self.note(cgroups.read(self.folders))

    def note(self, figures: dict[str, int]) -> None:
        """Keep the highest of each figure."""
        for name, value in figures.items():
            self.seen[name] = max(value, self.seen.get(name, 0))


class _Ungrouped(_Watched):
    """A container in nobody's cgroup (rootless podman on cgroups v1): its processes are added up, and it is killed over `most_bytes`."""

    def __init__(self, container: str, pid: Callable[[], int], most_bytes: int, kill: Callable[[], None]) -> None:
        super().__init__(container, pid)
        self.first_pid = 0
        self.most_bytes = most_bytes
        self.kill = kill

    def look(self) -> None:
        with suppress(Exception):
            self.first_pid = self.first_pid or self.pid()
            pids = [self.first_pid, *descendants(self.first_pid)]
            memory = memory_bytes(pids)
            if memory:  # else they are gone already, and nothing is known
                self.note({"cpu_ns": int(cpu_s(pids) * 1e9), "peak": memory})
            if 0 < self.most_bytes < memory:
                self.seen["oom_kill"] = 1
                self.kill()


class ContainerUse:
    """One thread looks at all containers of an executor; it waits while there are none."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._watched: dict[Key, _Watched] = {}
        self._is_stopped = False
        self._thread: threading.Thread | None = None

    def watch(self, key: Key, container: str, pid: Callable[[], int]) -> None:
        """Look at this container now, and from now on; `pid` tells its first process, as the engine sees it."""
        self._add(key, _Watched(container, pid))

    def watch_ungrouped(self, key: Key, container: str, pid: Callable[[], int], most_bytes: int, kill: Callable[[], None]) -> None:
        """The same for one without a cgroup of its own; `kill` is called when it needs more than `most_bytes` (0: it may)."""
        self._add(key, _Ungrouped(container, pid, most_bytes, kill))

    def _add(self, key: Key, watched: _Watched) -> None:
        watched.look()
        watched.next_s = clock.monotonic_s() + FIRST_S
        with self._lock:
            self._watched[key] = watched
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="use", daemon=True)
                self._thread.start()
            self._lock.notify()

    def done(self, key: Key) -> tuple[Use, bool]:
        """What was seen, also now, if the engine has left the files; and whether a process was killed for want of memory."""
        with self._lock:
            watched = self._watched.pop(key, None)
        if watched is None:
            return Use(), False
        if watched.folders:
            watched.look()
        seen = watched.seen
        use = Use(
            cpu_s=round(seen["cpu_ns"] / 1e9, 6) if "cpu_ns" in seen else None,
            peak_memory_bytes=seen.get("peak"),
            read_bytes=seen.get("read"),
            written_bytes=seen.get("written"),
        )
        return use, bool(seen.get("oom_kill"))

    def stop(self) -> None:
        """End the thread."""
        with self._lock:
            self._is_stopped = True
            self._lock.notify()

    def _run(self) -> None:
        while True:
            with self._lock:
                first_s = min((watched.next_s for watched in self._watched.values()), default=None)
                if first_s is None or first_s > clock.monotonic_s():
                    self._lock.wait(None if first_s is None else first_s - clock.monotonic_s())
                if self._is_stopped:
                    return
                now_s = clock.monotonic_s()
                due = [watched for watched in self._watched.values() if watched.next_s <= now_s]
            for watched in due:
                watched.look()
                watched.pause_s = min(EVERY_S, watched.pause_s * 2)
                watched.next_s = clock.monotonic_s() + watched.pause_s
