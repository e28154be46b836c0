"""The cgroups of a container, of both versions: where they are and what they say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
DEEPEST = 6
"""Levels below a controller's root that are searched; engines use two or three, inside another container some more."""
_FILES = {
    "cpu_ns": ("cpuacct", "cpuacct.usage"),
    "peak": ("memory", "memory.max_usage_in_bytes"),
}


def folders_of(container: str, pid: int) -> dict[str, Path]:
    """Path of each controller of the container with this id; the unified one has the empty name.

    By `pid`, its first process as the engine sees it, where this process sees the same one, else by the container's id, which is in
    the names of its cgroups. Only folders with that id count: others are shared with the engine or belong to another process.
    """
    with suppress(OSError, ValueError):
        found = {}
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if container in path:
                for controller in controllers.split(","):
                    folder = ROOT / controller / path.lstrip("/")
                    if folder.is_dir():
                        found[controller] = folder
        if found:
            return found
    return dict(_by_name(container))


def _by_name(container: str) -> Iterator[tuple[str, Path]]:
    """As `folders_of`, without a process: the tree is searched once, and the same path tried under each controller."""
    is_unified = (ROOT / "cgroup.controllers").is_file()
    first = ROOT if is_unified else ROOT / "memory"
    folder = _search(first, container)
    if folder is None:
        return
    if is_unified:
        yield "", folder
        return
    for controller in ("memory", "cpuacct", "blkio"):
        with suppress(OSError):
            same = ROOT / controller / folder.relative_to(first)
            if same.is_dir():
                yield controller, same


def _search(top: Path, container: str) -> Path | None:
    """The nearest folder below `top` whose name holds the id."""
    level = [top]
    for _ in range(DEEPEST):
        below: list[Path] = []
        for folder in level:
            with suppress(OSError), os.scandir(folder) as entries:
                below += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
        for folder in below:
            if container in folder.name:
                return folder
        level = below
    return None


def read(folders: dict[str, Path]) -> dict[str, int]:
    """What the folders of a container say: cpu_ns, peak, read, written (bytes), oom_kill, as far as they are known."""
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
