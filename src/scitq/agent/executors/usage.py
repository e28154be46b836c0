"""What containers use, read from their cgroups while they run: after the end the files are gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scitq.agent.keeper.messages import Key
from scitq.model.task import Use
from scitq.util import clock

FIRST_S, EVERY_S = 0.05, 1.0
"""A young container is looked at soon and then less and less often."""
_FILES = {
    "cpu_ns": ("cpuacct", "cpuacct.usage"),
    "peak": ("memory", "memory.max_usage_in_bytes"),
}


class _Watched:
    """One container: where its figures are, what was seen, when to look again."""

    def __init__(self, pid: Callable[[], int]) -> None:
        self.pid = pid
        self.folders: dict[str, Path] = {}
        self.seen: dict[str, int] = {}
        self.pause_s = FIRST_S
        self.next_s = 0.0

    def look(self) -> None:
        with suppress(Exception):  # the container may end at any moment
            if not self.folders:
                self.folders = _cgroups(self.pid())
            for name, value in _read(self.folders).items():
                self.seen[name] = max(value, self.seen.get(name, 0))


class ContainerUse:
    """One thread looks at all containers of an executor; it waits while there are none."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._watched: dict[Key, _Watched] = {}
        self._is_stopped = False
        self._thread: threading.Thread | None = None

    def watch(self, key: Key, pid: Callable[[], int]) -> None:
        """Look at this container now, and from now on; `pid` tells its first process."""
        watched = _Watched(pid)
        watched.look()
        watched.next_s = clock.monotonic_s() + FIRST_S
        with self._lock:
            self._watched[key] = watched
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="use", daemon=True)
                self._thread.start()
            self._lock.notify()

    def done(self, key: Key) -> tuple[Use, bool]:
        """What was seen, also now, if the engine has left the files; and whether the kernel killed a process for want of memory."""
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


def _cgroups(pid: int) -> dict[str, Path]:
    """Folder of each controller of a process; the unified one has the empty name."""
    found = {}
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            folder = Path("/sys/fs/cgroup", controllers, path.lstrip("/"))
            if folder.is_dir() and path != "/":
                found[controller] = folder
    return found


def _read(folders: dict[str, Path]) -> dict[str, int]:
    seen: dict[str, int] = {}
    for name, (controller, file) in _FILES.items():
        if controller in folders:
            with suppress(OSError, ValueError):
                seen[name] = int((folders[controller] / file).read_text())
    for controller, file in (("memory", "memory.oom_control"), ("", "memory.events")):
        if controller in folders:
            with suppress(OSError, ValueError):
                for line in (folders[controller] / file).read_text().splitlines():
                    if line.startswith("oom_kill "):
                        seen["oom_kill"] = int(line.split()[1])
    if "blkio" in folders:
        with suppress(OSError, ValueError):
            for line in (folders["blkio"] / "blkio.throttle.io_service_bytes").read_text().splitlines():
                words = line.split()
                if len(words) == 3 and words[1] in {"Read", "Write"}:
                    name = "read" if words[1] == "Read" else "written"
                    seen[name] = seen.get(name, 0) + int(words[2])
    unified = folders.get("")
    if unified is not None:
        with suppress(OSError, ValueError):
            for line in (unified / "cpu.stat").read_text().splitlines():
                if line.startswith("usage_usec "):
                    seen["cpu_ns"] = int(line.split()[1]) * 1000
        for file in ("memory.peak", "memory.current"):
            with suppress(OSError, ValueError):
                seen["peak"] = int((unified / file).read_text())
                break
        with suppress(OSError, ValueError):
            for line in (unified / "io.stat").read_text().splitlines():
                for word in line.split()[1:]:
                    name, _, value = word.partition("=")
                    if name in {"rbytes", "wbytes"}:
                        wanted = "read" if name == "rbytes" else "written"
                        seen[wanted] = seen.get(wanted, 0) + int(value)
    return seen
