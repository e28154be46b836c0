"""From a URI to the files that it means: one object, a folder, a pattern (docs/storage.md, "What a URI means")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scitq.errors import SourceMissingError, StorageError
from scitq.model.uri import MAX_NAME_BYTES, WEB_SCHEMES, Uri, name_matches
from scitq.storage.base import Cancel, Entry, Storage


@dataclass(frozen=True, slots=True)
class Source:
    """One file to fetch.

    path: where it goes, relative to the target folder; safe to join: no `..`, not absolute, no empty part.
    """

    entry: Entry
    path: str

    @property
    def key(self) -> str:
        """The whole path within the storage."""
        return self.entry.key

    @property
    def size(self) -> int:
        """Bytes; -1 when the storage does not tell."""
        return self.entry.size

    @property
    def version(self) -> str:
        """A text that changes when the content does."""
        return self.entry.version


def resolve(storage: Storage, uri: Uri, *, cancel: Cancel | None = None) -> list[Source]:
    """The files that `uri` means now, sorted by path; its actions are not looked at.

    Raises SourceMissingError when there is none, StorageError for names that would leave the target folder or that would
    lie on one path.
    """
    token = cancel or Cancel()
    if uri.scheme in WEB_SCHEMES:
        found = _web(storage, uri)
    elif uri.has_pattern:
        found = list(_match(storage, uri, token))
    elif uri.is_folder or not uri.path:
        found = list(_folder(storage, uri.path, token))
    else:
        entry = storage.stat(uri.path)
        found = [(entry, uri.name)] if entry is not None else list(_folder(storage, f"{uri.path}/", token))
    if not found:
        what = "matches nothing" if uri.has_pattern else "names nothing: no such file, and no folder with files in it"
        raise SourceMissingError(f"{uri.location} {what}")
    sources = [Source(entry, safe_path(path, storage.uri(entry.key))) for entry, path in found]
    _refuse_collisions(storage, sources)
    return sorted(sources, key=lambda source: source.path)


def safe_path(path: str, uri: str) -> str:
    """`path` without `.` and empty parts; raises StorageError when it is absolute, has `..`, or can't be a name on disk."""
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if path.startswith("/") or ".." in parts or "\0" in path or not parts:
        raise StorageError(f"{uri!r}: the name {path!r} would lie outside of its folder; fetch it by name with another target")
    for part in parts:
        if len(part.encode(errors="surrogateescape")) > MAX_NAME_BYTES:
            raise StorageError(f"{uri!r}: the name {part[:40]!r}… is longer than the {MAX_NAME_BYTES} bytes that disks allow")
    return "/".join(parts)


def _web(storage: Storage, uri: Uri) -> list[tuple[Entry, str]]:
    entry = storage.stat(uri.path)
    if entry is None:
        raise SourceMissingError(f"{uri.location}: the server has no such file")
    return [(entry, uri.name or uri.bucket)]


def _folder(storage: Storage, prefix: str, cancel: Cancel) -> Iterator[tuple[Entry, str]]:
    for entry in storage.entries(prefix, cancel=cancel):
        yield entry, entry.key[len(prefix) :]


def _match(storage: Storage, uri: Uri, cancel: Cancel) -> Iterator[tuple[Entry, str]]:
    """Match level by level; paths are relative to the deepest folder that is written without `*`."""
    parts = uri.path.rstrip("/").split("/")
    first = next(number for number, part in enumerate(parts) if "*" in part)
    base = "".join(f"{part}/" for part in parts[:first])
    folders = [base]
    for part in parts[first:-1]:
        folders = [entry.key for folder in folders for entry in _level(storage, folder, part, cancel) if entry.is_folder]
    for folder in folders:
        for entry in _level(storage, folder, parts[-1], cancel):
            if not entry.is_folder:
                if not uri.is_folder:
                    yield entry, entry.key[len(base) :]
                continue
            for inner in storage.entries(entry.key, cancel=cancel):
                yield inner, inner.key[len(base) :]


def _level(storage: Storage, folder: str, pattern: str, cancel: Cancel) -> list[Entry]:
    start = folder + pattern.partition("*")[0]
    entries = storage.entries(start, recursive=False, cancel=cancel)
    return [entry for entry in entries if name_matches(pattern, entry.key.removesuffix("/")[len(folder) :])]


def _refuse_collisions(storage: Storage, sources: Iterable[Source]) -> None:
    by_path: dict[str, Source] = {}
    for source in sources:
        other = by_path.setdefault(source.path, source)
        if other is not source:
            raise StorageError(f"{storage.uri(source.key)!r} and {storage.uri(other.key)!r} would lie on one path, {source.path!r}")
    for source in by_path.values():
        parent = source.path.rpartition("/")[0]
        while parent:
            if parent in by_path:
                raise StorageError(
                    f"{storage.uri(by_path[parent].key)!r} is a file and {storage.uri(source.key)!r} lies in a folder of that name; "
                    "a disk can't hold both"
                )
            parent = parent.rpartition("/")[0]
