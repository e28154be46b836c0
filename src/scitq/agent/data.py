"""What the data steps of all tasks share in one agent: the open storages and the cache."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scitq.agent.actions.limits import Limits
from scitq.agent.cache import ResourceCache
from scitq.agent.folders import DataContext
from scitq.storage.registry import Storages
from scitq.util.units import parse_bytes

Progress = Callable[[int, int], None]
"""Told bytes done and bytes to do, from any thread."""

_lock = threading.Lock()
_caches: dict[Path, ResourceCache] = {}
_storages: dict[Path, tuple[object, Storages]] = {}


def open_cache(work_dir: Path, settings: Mapping[str, Any]) -> ResourceCache:
    """The one cache of this process below `work_dir`, with the bounds that `settings` give now."""
    with _lock:
        cache = _caches.get(work_dir)
        if cache is None:
            cache = _caches[work_dir] = ResourceCache(work_dir, settings)
        else:
            cache.configure(settings)
        return cache


def open_storages(context: DataContext) -> Storages:
    """The storages that the server named, opened once; anew when the server names others."""
    folders = tuple(str(folder) for folder in context.settings.get("file_roots") or ())
    wanted = (context.storages, folders)
    with _lock:
        found = _storages.get(context.work_dir)
        if found is None or found[0] != wanted:
            found = (wanted, Storages(context.storages, file_folders=[Path(folder) for folder in folders]))
            _storages[context.work_dir] = found
        return found[1]


def close_storages() -> None:
    """End connections and children of all storages; at the agent's end."""
    with _lock:
        opened = [storages for _wanted, storages in _storages.values()]
        _storages.clear()
    for storages in opened:
        storages.close()


def limits_of(settings: Mapping[str, Any]) -> Limits:
    """How much an archive may become (worker.max_extract_files, worker.max_extract_size)."""
    defaults = Limits()
    size = settings.get("max_extract_size") or defaults.most_bytes
    return Limits(
        most_files=int(settings.get("max_extract_files") or defaults.most_files),
        most_bytes=parse_bytes(size) if isinstance(size, str) else int(size),
    )


class Counter:
    """Adds up the bytes of several transfers and tells the sum."""

    def __init__(self, progress: Progress, leader: Counter | None = None) -> None:
        self._progress = progress
        self._lock: threading.Lock = leader._lock if leader else threading.Lock()
        self._leader = leader
        self._all_done = self._all_total = 0
        self.done = 0
        self.total = 0

    def following(self) -> Counter:
        """A counter whose bytes are told together with these, but are not counted to `done`: another task moves them."""
        return Counter(self._progress, self)

    def expect(self, count: int) -> None:
        """So many bytes more are to do."""
        with self._lock:
            self.total += count
        self._count(0, count)

    def add(self, count: int) -> None:
        """So many bytes more are done (fewer when negative)."""
        with self._lock:
            self.done += count
        self._count(count, 0)

    def _count(self, done: int, total: int) -> None:
        head = self._leader or self
        with self._lock:
            head._all_done += done
            head._all_total += total
            shown = head._all_done, head._all_total
        self._progress(*shown)
