"""Room on the worker's disks: what downloads under way will still write counts as taken, so that no two rely on the same bytes."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from pathlib import Path

from scitq.agent.actions.chain import entries_below
from scitq.errors import DiskFullError
from scitq.storage.base import Cancel
from scitq.util import files
from scitq.util.units import format_bytes


class Promise:
    """Bytes that a download (into `folder`) or an extraction (no folder) will still write; a context that ends it."""

    def __init__(self, room: Room, disk: Path, folder: Path | None, cancel: Cancel, *, is_cached: bool) -> None:
        self.disk, self.size, self.folder, self.cancel, self.is_cached = disk, 0, folder, cancel, is_cached
        self.device = disk.stat().st_dev
        self.number = 0
        self._room = room

    def left(self) -> int:
        """Bytes that are not yet on the disk. A file that was made as long as it will be counts as written: its blocks are taken."""
        return max(0, self.size - (_bytes_below(self.folder) if self.folder else 0))

    def grow(self, count: int) -> None:
        """All that was promised is written now, and `count` bytes more are to come; DiskFullError when they don't fit."""
        self._room.fit(self, count)

    def end(self) -> None:
        """Nothing more comes; repeatable."""
        self._room.drop(self)

    def __enter__(self) -> Promise:
        return self

    def __exit__(self, *_error: object) -> None:
        self.end()


class Room:
    """Thread-safe. A promise counts those that were made before it, so that of two that don't fit together the first one gets the room."""

    def __init__(self, cache: Path, evict: Callable[[Cancel], bool]) -> None:
        """cache: a folder on the disk where `evict` (drop what is not needed; False when there is nothing) helps."""
        self._cache, self._evict = cache, evict
        self._lock = threading.Lock()
        self._promises: set[Promise] = set()
        self._numbers = itertools.count(1)
        self.min_free_bytes = 0

    def reserve(self, size: int, folder: Path | None, disk: Path, cancel: Cancel, *, is_cached: bool) -> Promise:
        """Promise `size` bytes below `folder`, on the disk of `disk`; entries of the cache go for it. DiskFullError when they don't fit."""
        promise = Promise(self, disk, folder, cancel, is_cached=is_cached)
        self.fit(promise, size)
        return promise

    def fit(self, promise: Promise, size: int) -> None:
        """See Promise.grow."""
        with self._lock:
            promise.size, promise.number = size, next(self._numbers)
            self._promises.add(promise)
        try:
            while self._free_bytes(promise) < size + self.min_free_bytes:
                if not (_is_one_disk(promise.disk, self._cache) and self._evict(promise.cancel)):
                    raise self._too_small(promise)
        except BaseException:
            self.drop(promise)
            raise

    def drop(self, promise: Promise) -> None:
        """See Promise.end."""
        with self._lock:
            self._promises.discard(promise)

    def cached_bytes(self) -> int:
        """Of all downloads under way into the cache."""
        with self._lock:
            return sum(promise.size for promise in self._promises if promise.is_cached)

    def _free_bytes(self, promise: Promise) -> int:
        """What is free and promised to nobody else. What is written of other promises is looked up only where it decides."""
        free, others = files.free_bytes(promise.disk), self._others(promise)
        at_least = free - sum(other.size for other in others)
        if at_least >= promise.size + self.min_free_bytes:
            return at_least
        return free - sum(other.left() for other in others)

    def _others(self, promise: Promise) -> list[Promise]:
        with self._lock:
            return [other for other in self._promises if other.device == promise.device and other.number < promise.number]

    def _too_small(self, promise: Promise) -> DiskFullError:
        promised = sum(other.left() for other in self._others(promise))
        others = f", {format_bytes(promised)} are promised to other downloads under way" if promised else ""
        return DiskFullError(
            f"no room on the worker's disk: {format_bytes(promise.size)} are needed, {format_bytes(files.free_bytes(promise.disk))} are free,"
            f" of which {format_bytes(self.min_free_bytes)} stay free (worker.min_free_disk in scitq.yaml){others}"
        )


def _is_one_disk(one: Path, other: Path) -> bool:
    """Whether what is deleted here is free there: one file system, or two that share a pool and so tell the same numbers."""
    if one.stat().st_dev == other.stat().st_dev:
        return True
    here, there = os.statvfs(one), os.statvfs(other)
    return (here.f_blocks * here.f_frsize, here.f_bavail * here.f_frsize) == (
        there.f_blocks * there.f_frsize,
        there.f_bavail * there.f_frsize,
    )


def _bytes_below(folder: Path) -> int:
    """The sizes of all files below `folder`, to which others write meanwhile."""
    total = 0
    try:
        for _name, entry in entries_below(folder):
            try:
                if entry.is_file(follow_symlinks=False):
                    total += entry.stat(follow_symlinks=False).st_size
            except FileNotFoundError:
                continue
    except FileNotFoundError:
        pass
    return total
