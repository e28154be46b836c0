"""Brings a task's inputs and resources: what may collide is told before it runs (contract sections 4, 5 and 7)."""

from __future__ import annotations

import json
import os
import secrets
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scitq.agent import manifest
from scitq.agent.actions import chain
from scitq.agent.actions.limits import Limits, Meter
from scitq.agent.cache import Build, ResourceCache, key_of
from scitq.agent.cache_building import Building
from scitq.agent.cache_views import View, Wanted
from scitq.agent.claims import Claims
from scitq.agent.data import Counter, Progress, limits_of, open_cache, open_storages
from scitq.agent.folders import DataContext, TaskFolders
from scitq.agent.room import Promise
from scitq.errors import SourceMissingError, StorageError
from scitq.model.task import BARE
from scitq.model.uri import Untar, Uri
from scitq.protocol.messages.agent import Assignment
from scitq.storage.base import Cancel, Entry, Storage
from scitq.storage.registry import Storages
from scitq.storage.resolve import Source, resolve
from scitq.storage.transfer import local_errors, run_parallel
from scitq.util import files

_LOOKUPS_AT_ONCE: Final = 16
_ACTIONS_AT_ONCE: Final = 4
_LEASE: Final = "resources.json"
_leases_lock = threading.Lock()
_leases: dict[Path, tuple[ResourceCache, View]] = {}


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the task can use now. resource_view: read-only, to be mounted as /resource; downloaded_bytes: by this task."""

    resource_view: Path
    downloaded_bytes: int


@dataclass(frozen=True, slots=True)
class _Found:
    """A URI of the task with the files that it means now."""

    uri: Uri
    storage: Storage
    sources: list[Source]

    @property
    def size(self) -> int:
        return sum(max(source.size, 0) for source in self.sources)


def prepare(assignment: Assignment, folders: TaskFolders, context: DataContext, progress: Progress, cancel: Cancel) -> Prepared:
    """Fill `folders.input` and make the view of the resources; `release` ends its lease.

    Raises StorageError and its kin, DiskFullError, UsageError or CancelledError; nothing in the cache is half made then.
    """
    spec = assignment.spec
    cache = open_cache(context.work_dir, context.settings)
    storages = open_storages(context)
    inputs = _find(spec.inputs, storages, cancel)
    resources = _find(spec.resources, storages, cancel)
    claims = Claims("/input")
    for found in inputs:
        _claim_plain(found, claims)
    fetch = _Fetch(context, cache, Counter(progress))
    is_bare = spec.container == BARE
    view: list[View] = []

    def bring_resources(ours: Cancel) -> None:
        _check_plain_resources(resources)
        view.append(fetch.view(resources, ours, is_copied=is_bare))

    jobs: list[Callable[[Cancel], None]] = []
    if resources:
        jobs.append(bring_resources)
    if inputs:
        jobs.append(lambda ours: fetch.inputs(inputs, folders, claims, ours, is_bare=is_bare))
    try:
        with local_errors(folders.input / "*", f"task {assignment.task_id}"):
            run_parallel(jobs, workers=2, cancel=cancel)
    except BaseException:
        for made in view:
            cache.release(made)
        _empty(folders.input)
        raise
    if not view:
        return Prepared(folders.resource, fetch.counter.done)
    _remember(folders, cache, view[0])
    return Prepared(view[0].path, fetch.counter.done)


def release(folders: TaskFolders) -> None:
    """The task no longer uses its resources; repeatable."""
    with _leases_lock:
        lease = _leases.pop(folders.root, None)
    if lease is not None:
        cache, view = lease
        cache.release(view)
    (folders.root / _LEASE).unlink(missing_ok=True)


def adopt(folders: TaskFolders, context: DataContext) -> Path | None:
    """After the agent's restart, before anything else is fetched: hold the resources of a task that still runs.

    Returns its view; None when it has none.
    """
    try:
        kept = json.loads((folders.root / _LEASE).read_text())
    except (OSError, ValueError):
        return None
    cache = open_cache(context.work_dir, context.settings)
    view = cache.adopt(str(kept["view"]), [str(key) for key in kept["entries"]])
    if view is None:
        return None
    with _leases_lock:
        _leases[folders.root] = (cache, view)
    return view.path


def _empty(folder: Path) -> None:
    """Give the space back at once: what failed for want of room must not keep it."""
    for name in list(folder.iterdir()):
        files.remove_tree(name)


def _remember(folders: TaskFolders, cache: ResourceCache, view: View) -> None:
    with _leases_lock:
        _leases[folders.root] = (cache, view)
    kept = {"view": view.name, "entries": [entry.key for entry in view.entries]}
    files.write_atomically(folders.root / _LEASE, json.dumps(kept).encode(), 0o600)


def _find(texts: Sequence[str], storages: Storages, cancel: Cancel) -> list[_Found]:
    """What each URI means now, in order; the same URI twice counts once."""
    uris = list(dict.fromkeys(Uri.parse(text) for text in texts))
    uris = list({(uri.location, tuple(chain.steps_of(uri.actions)), uri.folder): uri for uri in uris}.values())
    found: dict[int, _Found] = {}

    def job(number: int, uri: Uri) -> Callable[[Cancel], None]:
        def look(ours: Cancel) -> None:
            storage = storages.get(uri.scheme)
            try:
                found[number] = _Found(uri, storage, _without_mark(uri, resolve(storage, uri, cancel=ours)))
            except SourceMissingError as error:
                if uri.location in error.message:
                    raise
                raise SourceMissingError(f"{uri.location}: {error.message}") from error

        return look

    run_parallel([job(number, uri) for number, uri in enumerate(uris)], workers=_LOOKUPS_AT_ONCE, cancel=cancel)
    return [found[number] for number in range(len(uris))]


def _without_mark(uri: Uri, sources: list[Source]) -> list[Source]:
    """Without the mark of a completed result, unless that is what is named: results of several tasks may be gathered into one folder."""
    kept = [source for source in sources if uri.name == manifest.NAME or source.key.rpartition("/")[2] != manifest.NAME]
    if sources and not kept:
        raise SourceMissingError(f"{uri.location} holds nothing but the mark of a completed result")
    return kept


def _claim_plain(found: _Found, claims: Claims) -> None:
    """Claim what is known before the download: the files without actions, and the folder of `mv:`."""
    uri = found.uri
    if uri.folder:
        claims.add_folder(uri.folder, str(uri))
    if not chain.steps_of(uri.actions):
        for source in found.sources:
            claims.add_file(_place(uri, source.path), str(uri))


def _check_plain_resources(resources: Sequence[_Found]) -> None:
    claims = Claims("/resource")
    for found in resources:
        _claim_plain(found, claims)


def _place(uri: Uri, path: str) -> str:
    return f"{uri.folder}/{path}" if uri.folder else path


class _Fetch:
    def __init__(self, context: DataContext, cache: ResourceCache, counter: Counter) -> None:
        self._limits = limits_of(context.settings)
        self._cache, self.counter = cache, counter

    def view(self, resources: Sequence[_Found], cancel: Cancel, *, is_copied: bool) -> View:
        """The leased view of all resources, of which the missing ones are brought."""
        wanted = [Wanted(_key_of(found), str(found.uri), found.uri.folder) for found in resources]
        by_key = {item.key: found for item, found in zip(wanted, resources, strict=True)}
        return self._cache.get_view(wanted, lambda item: self._build(by_key[item.key]), self.counter, cancel, is_copied=is_copied)

    def _build(self, found: _Found) -> Build:
        def build(folder: Path, cancel: Cancel, building: Building) -> Path:
            with self._cache.reserve(found.size, folder, cancel) as promise:
                return self._bring(found, folder, building, cancel, promise)

        return build

    def _bring(
        self, found: _Found, folder: Path, watch: Building | Counter, cancel: Cancel, promise: Promise, disk: Path | None = None
    ) -> Path:
        """Download into `folder`, as promised, and carry out the actions; returns the folder with the result. disk: None is the cache's."""
        watch.expect(found.size)
        folder.mkdir()
        pairs = [(source.entry, folder / source.path) for source in found.sources]
        self._download(found.storage, pairs, watch, disk, cancel)
        promise.end()
        steps = chain.steps_of(found.uri.actions)
        if steps:
            with self._cache.ahead(cancel, disk) as ahead:
                folder = chain.apply(steps, folder, Meter(str(found.uri), self._limits, cancel, ahead.grow))
        if not any(isinstance(step, Untar) for step in steps):
            chain.make_programs_executable(folder)
        return folder

    def inputs(self, inputs: Sequence[_Found], folders: TaskFolders, claims: Claims, cancel: Cancel, *, is_bare: bool) -> None:
        """Download all inputs; what actions make is put in its place when all has come, so that nothing half made is seen."""
        staging = folders.root / f"fetch-{secrets.token_hex(4)}"
        staging.mkdir()
        made: dict[int, Path] = {}
        try:
            with ExitStack() as promises:
                jobs: list[Callable[[Cancel], None]] = []
                plain: dict[int, list[_Found]] = {}
                for number, found in enumerate(inputs):
                    if chain.steps_of(found.uri.actions):
                        place = staging / str(number)
                        promise = promises.enter_context(self._cache.reserve(found.size, place, cancel, folders.root))
                        jobs.append(self._input_job(found, place, folders.root, promise, made, number))
                    else:
                        plain.setdefault(id(found.storage), []).append(found)
                size = sum(found.size for group in plain.values() for found in group)
                promises.enter_context(self._cache.reserve(size, folders.input, cancel, folders.root))
                jobs.extend(self._plain_job(group, folders) for group in plain.values())
                run_parallel(jobs, workers=_ACTIONS_AT_ONCE, cancel=cancel)
            for number, result in sorted(made.items()):
                cancel.check()
                _put_in_place(inputs[number].uri, result, folders, claims)
        finally:
            files.remove_tree(staging)
        _open_to_all(folders.input, is_bare=is_bare)

    def _input_job(
        self, found: _Found, place: Path, disk: Path, promise: Promise, made: dict[int, Path], number: int
    ) -> Callable[[Cancel], None]:
        def bring(cancel: Cancel) -> None:
            made[number] = self._bring(found, place, self.counter, cancel, promise, disk)

        return bring

    def _plain_job(self, group: Sequence[_Found], folders: TaskFolders) -> Callable[[Cancel], None]:
        def bring(cancel: Cancel) -> None:
            pairs = [(source.entry, folders.input / _place(found.uri, source.path)) for found in group for source in found.sources]
            self.counter.expect(sum(max(entry.size, 0) for entry, _target in pairs))
            self._download(group[0].storage, pairs, self.counter, folders.root, cancel)

        return bring

    def _download(
        self, storage: Storage, pairs: Sequence[tuple[Entry, Path]], watch: Building | Counter, disk: Path | None, cancel: Cancel
    ) -> None:
        """Download all; where sizes are not known before, room is asked for as they come."""
        if all(entry.size >= 0 for entry, _target in pairs):
            storage.download_many(pairs, progress=watch.add, cancel=cancel)
            return
        with self._cache.ahead(cancel, disk) as ahead:
            meter = Meter(storage.uri(pairs[0][0].key), Limits(most_bytes=sys.maxsize, most_ratio=sys.maxsize), cancel, ahead.grow)

            def add(count: int) -> None:
                watch.add(count)
                meter.add_bytes(count)

            storage.download_many(pairs, progress=add, cancel=cancel)


def _put_in_place(uri: Uri, result: Path, folders: TaskFolders, claims: Claims) -> None:
    for name in chain.everything_below(result):
        is_folder = stat.S_ISDIR(os.lstat(result / name).st_mode)
        (claims.add_folder if is_folder else claims.add_file)(_place(uri, name), str(uri))
    chain.merge(result, folders.input / uri.folder)


def _key_of(found: _Found) -> str:
    """The cache's key: location, actions and version; unique when the storage shows no version at all."""
    parts = [found.uri.location, *map(str, chain.steps_of(found.uri.actions))]
    for source in found.sources:
        is_versioned = source.entry.etag or source.entry.modified_ms is not None
        parts += [source.path, source.version if is_versioned else secrets.token_hex(16)]
    return key_of(*parts)


def _open_to_all(folder: Path, *, is_bare: bool) -> None:
    """Make programs executable, and let any user of an image read and write all (contract IN-13)."""
    chain.make_programs_executable(folder)
    if is_bare:
        return
    try:
        folder.chmod(0o777)
        for _name, entry in chain.entries_below(folder):
            if entry.is_dir(follow_symlinks=False):
                Path(entry.path).chmod(0o777)
            elif entry.is_file(follow_symlinks=False):
                mode = entry.stat(follow_symlinks=False).st_mode
                os.chmod(entry.path, 0o777 if mode & 0o111 else 0o666)  # noqa: PTH101 - often, and paths cost
    except OSError as error:
        raise StorageError(f"{folder}: {error.strerror or error}") from error
