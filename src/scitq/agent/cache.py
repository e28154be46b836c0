"""The shared resources of a worker: one download for many tasks, nothing in use evicted, bounded (docs/data.md, "The cache")."""

from __future__ import annotations

import hashlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

from scitq.agent.cache_building import Building, Watch, again
from scitq.agent.cache_entry import DATA, Entry
from scitq.agent.cache_settling import Settler
from scitq.agent.cache_views import View, Wanted, copied_bytes, make_view, view_name
from scitq.agent.room import Promise, Room
from scitq.errors import StorageError
from scitq.storage.base import Cancel
from scitq.util import files
from scitq.util.units import parse_bytes

_log = logging.getLogger(__name__)
_POLL_S: Final = 5.0
_BUILDS_AT_ONCE: Final = 8
_Paths = list[Path]
_Entries = list[Entry]
_Rows = list[dict[str, Any]]
Build = Callable[[Path, Cancel, Building], Path]
"""Makes the content of an entry in the empty folder that it is given, and tells the building its progress.

Returns the folder below it that holds the result."""
_Interests = list[tuple[Wanted, Building | None, Watch]]


class ResourceCache:
    """Thread-safe; one for each work folder and process."""

    def __init__(self, work_dir: Path, settings: Mapping[str, Any]) -> None:
        """settings: the server's rules for workers, of which cache_size and min_free_disk hold here."""
        root = work_dir / "cache"
        self._entries_dir, self._views_dir, self._staging_dir = root / "entries", root / "views", root / "staging"
        files.remove_tree(self._staging_dir)
        for folder in (self._entries_dir, self._views_dir, self._staging_dir):
            folder.mkdir(parents=True, exist_ok=True)
        self._changed = threading.Condition()
        self._building: dict[str, Building] = {}
        self._ending: set[Building] = set()
        self._views: dict[str, View] = {}
        self._making_views: set[str] = set()
        self._building_now = 0
        self._room = Room(self._entries_dir, self._evict)
        self._has_pruned = False
        self._entries = {found.key: found for folder in self._entries_dir.iterdir() if (found := Entry.load(folder))}
        self._settler = Settler()
        for folder in self._entries_dir.iterdir():
            if folder.name not in self._entries:
                files.remove_tree(folder)
        for entry in self._entries.values():
            self._settler.add(entry)
        self.configure(settings)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Take other bounds over; sizes as in scitq.yaml, a plain number is bytes."""
        size = _bytes(settings.get("cache_size"), 0)
        if not size:
            held = sum(entry.meta.bytes for entry in self._entries.values())
            size = max((files.free_bytes(self._entries_dir) + held) // 2, 1)
        self._most_bytes = size
        self._room.min_free_bytes = _bytes(settings.get("min_free_disk"), 10**9)

    def get_view(
        self, wanted: Sequence[Wanted], build: Callable[[Wanted], Build], watch: Watch, cancel: Cancel, *, is_copied: bool
    ) -> View:
        """A folder that holds exactly `wanted`, leased until `release`; what is missing is built, once for all who wait.

        is_copied: without any link to the cache, for tasks that run as our own user.
        """
        self._prune_views()
        leased: _Entries = []
        try:
            for entry in self._get_all(wanted, build, watch, cancel):
                leased.append(entry)
            return self._lease_view(wanted, leased, cancel, is_copied=is_copied)
        finally:
            self._end_leases(leased)

    def adopt(self, name: str, wanted_keys: Sequence[str]) -> View | None:
        """Lease a view again that a task of an earlier process uses; None when it is gone. Call it before the first `get_view`."""
        with self._changed:
            entries = [self._entries[key] for key in wanted_keys if key in self._entries]
            if len(entries) != len(wanted_keys):
                return None
            view = self._views.get(name)
            if view is None:
                path = entries[0].data if name == entries[0].key else self._views_dir / name
                if not path.is_dir():
                    return None
                view = self._views[name] = View(name, path, entries)
            self._lease(view)
            return view

    def release(self, view: View) -> None:
        """End one lease of `view`; what is over the bounds goes."""
        with self._changed:
            view.leases -= 1
            for entry in view.entries:
                entry.leases -= 1
            doomed = self._over_bounds()
            self._changed.notify_all()
        self._drop(doomed)

    def reserve(self, count: int, folder: Path, cancel: Cancel, disk: Path | None = None) -> Promise:
        """Keep room for `count` bytes that come into `folder`, until the promise ends; what is in the way goes. DiskFullError when they don't fit.

        disk: an existing folder on the disk in question; without it the bytes will be an entry, on the cache's.
        """
        promise = self._room.reserve(count, folder, disk or self._entries_dir, cancel, is_cached=disk is None)
        with self._changed:
            doomed = self._over_bounds()
        self._drop(doomed)
        return promise

    def ahead(self, cancel: Cancel, disk: Path | None = None) -> Promise:
        """A promise of nothing yet, for an extraction, which asks for more as it goes on; see `reserve`."""
        return self._room.reserve(0, None, disk or self._entries_dir, cancel, is_cached=disk is None)

    def _evict(self, cancel: Cancel) -> bool:
        """Drop the entry that is longest unused, or wait for a download that was called off to be gone; False when there is neither."""
        with self._wakes(cancel), self._changed:
            entry = self._oldest()
            doomed = [self._take_out(entry)] if entry else []
            ending = len(self._ending)
            while not doomed and ending and len(self._ending) >= ending:
                self._changed.wait(_POLL_S)
                cancel.check()
        self._drop(doomed)
        return bool(doomed or ending)

    def list(self) -> _Rows:
        """The entries, most recently used first, as plain data: uri, bytes, files, used_ms, created_ms, tasks (that use it)."""
        with self._changed:
            found = sorted(self._entries.values(), key=lambda entry: -entry.used_ms)
            return [
                {
                    "uri": entry.meta.uri,
                    "bytes": entry.meta.bytes,
                    "files": entry.meta.files,
                    "used_ms": entry.used_ms,
                    "created_ms": entry.meta.created_ms,
                    "tasks": entry.leases,
                }
                for entry in found
            ]

    def clear(self) -> dict[str, int]:
        """Drop all that no task uses; returns what went and what stays: entries, bytes, kept."""
        with self._changed:
            unused = [entry for entry in self._entries.values() if not entry.leases]
            freed = sum(entry.meta.bytes for entry in unused)
            doomed = [self._take_out(entry) for entry in unused]
            kept = len(self._entries)
        self._drop(doomed)
        return {"entries": len(unused), "bytes": freed, "kept": kept}

    def _get_all(self, wanted: Sequence[Wanted], build: Callable[[Wanted], Build], watch: Watch, cancel: Cancel) -> Iterator[Entry]:
        """Lease the entry of each; all that are missing are begun before the first is waited for."""
        with self._interest(wanted, build, watch) as interests:
            for item, building, _told in interests:
                yield self._await(item, building, build, watch, cancel)

    @contextmanager
    def _interest(self, wanted: Sequence[Wanted], build: Callable[[Wanted], Build], watch: Watch) -> Iterator[_Interests]:
        interests: _Interests = []
        try:
            for item in wanted:
                interests.append((item, *self._join(item, build(item), watch)))
            yield interests
        finally:
            for _item, building, told in interests:
                if building is not None:
                    building.untell(told)
                    self._leave(building)

    def _join(self, item: Wanted, build: Build, watch: Watch) -> tuple[Building | None, Watch]:
        """Wait for the build under way, or begin one; None when the entry is there. With it who is told of its progress."""
        with self._changed:
            if item.key in self._entries:
                return None, watch
            building = self._building.get(item.key)
            if building is None or building.is_abandoned:
                before = building
                building = self._building[item.key] = Building()
                run = threading.Thread(target=self._build, args=(item, build, building, before), name=f"fetch-{item.key[:8]}", daemon=True)
                run.start()
            else:
                watch = watch.following()
            building.waiters += 1
        building.tell(watch)
        return building, watch

    @contextmanager
    def _slot(self, cancel: Cancel) -> Iterator[None]:
        with self._wakes(cancel), self._changed:
            while self._building_now >= _BUILDS_AT_ONCE:
                cancel.check()
                self._changed.wait(_POLL_S)
            self._building_now += 1
        try:
            yield
        finally:
            with self._changed:
                self._building_now -= 1
                self._changed.notify_all()

    def _prune_views(self) -> None:
        """Drop, before the first view is asked for, those of an earlier process that no task was adopted with."""
        with self._changed:
            if self._has_pruned:
                return
            self._has_pruned = True
            doomed = [self._retire(folder) for folder in self._views_dir.iterdir() if folder.name not in self._views]
        self._drop(doomed)

    def _leave(self, building: Building) -> None:
        with self._changed:
            building.waiters -= 1
            building.is_abandoned = building.waiters == 0
            if building.is_abandoned and not building.is_ended:
                self._ending.add(building)
        if building.is_abandoned:
            building.cancel.cancel()

    def _build(self, item: Wanted, build: Build, building: Building, before: Building | None) -> None:
        """The body of a build's thread; one that was called off is let end first."""
        staging = self._staging_dir / secrets.token_hex(8)
        try:
            with self._changed:
                while before is not None and not before.is_ended:
                    self._changed.wait(_POLL_S)
            with self._slot(building.cancel):
                staging.mkdir()
                result = build(staging / "work", building.cancel, building)
            sealed = staging / "entry"
            sealed.mkdir()
            result.rename(sealed / DATA)
            building.cancel.check()
            building.entry = Entry.seal(sealed, item.key, item.uri, self._entries_dir / item.key)
        except OSError as error:
            building.error = StorageError(f"{item.uri}: {error.strerror or error}")
        except BaseException as error:  # noqa: BLE001 - it is raised again in every thread that waits
            building.error = error
        files.remove_tree(staging)
        with self._changed:
            building.is_ended = True
            self._ending.discard(building)
            if building.entry is not None:
                self._entries[item.key] = building.entry
            if self._building.get(item.key) is building:
                del self._building[item.key]
            self._changed.notify_all()
        if building.entry is not None:
            self._settler.add(building.entry)

    def _await(self, item: Wanted, building: Building | None, build: Callable[[Wanted], Build], watch: Watch, cancel: Cancel) -> Entry:
        """The leased entry, once it is there and was checked."""
        if building is not None:
            with self._wakes(cancel), self._changed:
                while not building.is_ended:
                    cancel.check()
                    self._changed.wait(_POLL_S)
            if building.error is not None:
                raise again(building.error)
        entry = self._lease_entry(item.key)
        if entry is not None:
            return entry
        with self._interest([item], build, watch) as [(_item, another, _told)]:
            return self._await(item, another, build, watch, cancel)

    def _lease_entry(self, key: str) -> Entry | None:
        """Lease a present entry; one that is no longer whole is dropped, None."""
        with self._changed:
            entry = self._entries.get(key)
            if entry is None:
                return None
            entry.leases += 1
        if not entry.is_checked and not entry.is_whole():
            _log.warning("cached resource is damaged and is fetched again: %s", entry.meta.uri)
            with self._changed:
                entry.leases -= 1
                doomed = [self._take_out(entry)] if self._entries.get(key) is entry else []
            self._drop(doomed)
            return None
        entry.is_checked = True
        entry.touch()
        return entry

    def _end_leases(self, entries: Sequence[Entry]) -> None:
        with self._changed:
            for entry in entries:
                entry.leases -= 1

    def _lease_view(self, wanted: Sequence[Wanted], entries: Sequence[Entry], cancel: Cancel, *, is_copied: bool) -> View:
        name = view_name(wanted, is_copied=is_copied)
        with self._wakes(cancel), self._changed:
            while name in self._making_views:
                cancel.check()
                self._changed.wait(_POLL_S)
            view = self._views.get(name)
            if view is not None and (view.leases or not is_copied or view.is_unchanged()):
                return self._lease(view)
            self._making_views.add(name)
            doomed = [self._retire(self._views_dir / name)]
        try:
            self._drop(doomed)
            stamp = ""
            if len(wanted) == 1 and not wanted[0].folder and not is_copied:
                path = entries[0].data
            else:
                path, staging = self._views_dir / name, self._staging_dir / secrets.token_hex(8)
                size = copied_bytes(entries, self._staging_dir) if is_copied else 0
                with self._room.reserve(size, staging, self._entries_dir, cancel, is_cached=False) if size else nullcontext():
                    stamp = make_view(path, staging, wanted, entries, cancel, is_copied=is_copied)
        finally:
            with self._changed:
                self._making_views.discard(name)
                self._changed.notify_all()
        with self._changed:
            view = self._views[name] = View(name, path, [*entries], stamp)
            return self._lease(view)

    def _lease(self, view: View) -> View:
        view.leases += 1
        for entry in view.entries:
            entry.leases += 1
        return view

    def _oldest(self) -> Entry | None:
        unused = [entry for entry in self._entries.values() if not entry.leases]
        return min(unused, key=lambda entry: entry.used_ms, default=None)

    def _over_bounds(self) -> _Paths:
        """Take out what must go so that the cache, with what is on its way there, keeps within its size, as far as that can be."""
        doomed: _Paths = []
        while sum(entry.meta.bytes for entry in self._entries.values()) + self._room.cached_bytes() > self._most_bytes:
            entry = self._oldest()
            if entry is None:
                break
            doomed.append(self._take_out(entry))
        return doomed

    def _take_out(self, entry: Entry) -> Path:
        """Forget an unused entry with its views; returns what is to be deleted."""
        grave = self._retire(entry.folder)
        for view in [view for view in self._views.values() if entry in view.entries]:
            del self._views[view.name]
            if view.path.parent == self._views_dir:
                self._retire(view.path, grave)
        del self._entries[entry.key]
        return grave

    def _retire(self, folder: Path, grave: Path | None = None) -> Path:
        """Move a folder out of the way at once; deleting it may take long."""
        grave = grave or self._staging_dir / secrets.token_hex(8)
        grave.mkdir(exist_ok=True)
        with suppress(FileNotFoundError):
            if folder.parent == self._views_dir:
                folder.chmod(0o755)
            folder.rename(grave / secrets.token_hex(4))
        return grave

    def _drop(self, doomed: Sequence[Path]) -> None:
        for folder in doomed:
            files.remove_tree(folder)

    @contextmanager
    def _wakes(self, cancel: Cancel) -> Iterator[None]:
        def wake() -> None:
            with self._changed:
                self._changed.notify_all()

        with cancel.on_cancel(wake):
            yield


def key_of(*parts: str) -> str:
    """The name of an entry or view that stands for `parts`."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(f"{len(part)}:".encode() + part.encode(errors="surrogateescape"))
    return digest.hexdigest()[:40]


def _bytes(value: Any, default: int) -> int:  # noqa: ANN401 - a setting
    if value in (None, ""):
        return default
    return parse_bytes(value) if isinstance(value, str) else int(value)
