"""What containers use, read from their cgroups while they run: after the end the files are gone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scitq.agent.keeper.messages import Key
from scitq.model.task import Use

EVERY_S = 1.0
_FILES = {
    "cpu_ns": ("cpuacct", "cpuacct.usage"),
    "peak": ("memory", "memory.max_usage_in_bytes"),
}


class ContainerUse:
    """One thread looks at all containers of an executor; it waits while there are none."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._watched: dict[Key, Callable[[], int]] = {}
        self._folders: dict[Key, dict[str, Path]] = {}
        self._latest: dict[Key, dict[str, int]] = {}
        self._is_stopped = False
        self._thread: threading.Thread | None = None

    def watch(self, key: Key, container: str, pid: Callable[[], int]) -> None:
        """Look at this container from now on; `pid` tells its first process."""
        del container
        with self._lock:
            self._watched[key] = pid
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="use", daemon=True)
                self._thread.start()
            self._lock.notify()

    def done(self, key: Key) -> Use:
        """What was seen last."""
        with self._lock:
            self._watched.pop(key, None)
            self._folders.pop(key, None)
            seen = self._latest.pop(key, {})
        return Use(
            cpu_s=round(seen["cpu_ns"] / 1e9, 6) if "cpu_ns" in seen else None,
            peak_memory_bytes=seen.get("peak"),
            read_bytes=seen.get("read"),
            written_bytes=seen.get("written"),
        )

    def stop(self) -> None:
        """End the thread."""
        with self._lock:
            self._is_stopped = True
            self._lock.notify()

    def _run(self) -> None:
        while True:
            with self._lock:
                self._lock.wait(EVERY_S if self._watched else None)
                if self._is_stopped:
                    return
                watched = dict(self._watched)
            for key, pid in watched.items():
                with suppress(Exception):  # the container may end at any moment
                    self._look(key, pid)

    def _look(self, key: Key, pid: Callable[[], int]) -> None:
        folders = self._folders.get(key)
        if folders is None:
            folders = _cgroups(pid())
        seen = self._latest.get(key, {})
        for name, value in _read(folders).items():
            seen[name] = max(value, seen.get(name, 0))
        with self._lock:
            if key in self._watched:
                self._folders[key] = folders
                self._latest[key] = seen


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
