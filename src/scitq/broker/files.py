"""What the server does with files for users, who never hold a storage's secrets; all of it slow, none of it in the loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from scitq.broker.file_copies import Copies
from scitq.broker.file_writes import Writes
from scitq.errors import NotFoundError, StorageError, UsageError
from scitq.model.uri import Uri, name_matches
from scitq.protocol.messages import file as m
from scitq.protocol.registry import Done
from scitq.storage.base import Entry, MultipartStorage, Storage
from scitq.storage.check import check_uri
from scitq.storage.registry import Storages
from scitq.storage.resolve import resolve

MOST_ROWS: Final = 200_000
_MOST_NAMES_BYTES: Final = 24 << 20
_MOST_READ: Final = 16 << 20
_MOST_EXPIRY_S: Final = 7 * 86400


class FileService:
    """The storages of scitq.yaml as users may use them. Thread-safe; `file://` and the web are the workers' alone."""

    def __init__(self, entries: Mapping[str, Mapping[str, Any]]) -> None:
        self._names = sorted(entries)
        self._storages = Storages({name: as_settings(options) for name, options in entries.items()})
        self._writes = Writes()
        self._copies = Copies()

    def list(self, message: m.FileList) -> m.FileRows:
        """See FileList; NotFoundError when there is nothing."""
        uri, storage = self._open(message.uri, may_be_root=True)
        base, found = _listing(storage, uri, is_recursive=message.is_recursive)
        rows = _rows(storage, base, found)
        if not rows.rows and uri.path:
            raise NotFoundError(f"{uri.location}: there is no such file, and no folder with files in it")
        return rows

    def find(self, message: m.FileFind) -> m.FileRows:
        """See FileFind."""
        uri, storage = self._open(message.uri)
        sources = resolve(storage, uri)
        rows = [_row(storage, source.entry, source.path) for source in sources[:MOST_ROWS]]
        return m.FileRows(rows=rows, is_cut=len(sources) > MOST_ROWS)

    def sign(self, message: m.FileSign) -> m.FileSigned:
        """See FileSign."""
        if message.method not in {"GET", "HEAD", "PUT"}:
            raise UsageError(f"a URL can be signed for GET, HEAD or PUT, not for {message.method!r}")
        if message.part and (message.method != "HEAD" or not 0 < message.part <= 10_000):
            raise UsageError("only HEAD can be signed for a part, and parts are numbered from 1 to 10,000")
        urls = []
        for text in message.uris:
            uri, storage = self._file(text)
            url = storage.sign(uri.path, message.method, expires_s=_expiry(message.expires_s))
            if url is None or (message.part and not isinstance(storage, MultipartStorage)):
                return m.FileSigned()
            if message.part and isinstance(storage, MultipartStorage):
                url = storage.sign_part_head(uri.path, message.part, expires_s=_expiry(message.expires_s))
            urls.append(url)
        return m.FileSigned(urls=urls)

    def start_parts(self, message: m.FileStartParts) -> m.FileParts:
        """See FileStartParts."""
        uri, storage = self._file(message.uri)
        if not isinstance(storage, MultipartStorage) or storage.sign(uri.path, "PUT") is None:
            return m.FileParts()
        if not 0 < message.count <= 10_000 or not 0 < message.first <= 10_000:
            raise UsageError("an upload has 1 to 10,000 parts")
        upload_id = message.upload_id or storage.start_multipart(uri.path)
        numbers = range(message.first, message.first + message.count)
        expires_s = _expiry(message.expires_s)
        return m.FileParts(
            upload_id=upload_id, urls=[storage.sign_part(uri.path, upload_id, number, expires_s=expires_s) for number in numbers]
        )

    def end_parts(self, message: m.FileEndParts) -> Done:
        """See FileEndParts."""
        uri, storage = self._file(message.uri)
        if not isinstance(storage, MultipartStorage):
            raise UsageError(f"{uri.location}: this storage has no uploads in parts")
        if message.etags:
            storage.complete_multipart(uri.path, message.upload_id, message.etags)
        else:
            storage.abort_multipart(uri.path, message.upload_id)
        return Done()

    def read(self, message: m.FileRead) -> m.FileChunk:
        """See FileRead."""
        uri, storage = self._file(message.uri)
        if message.etag:
            found = storage.stat(uri.path)
            if found is None or (found.etag or "") != message.etag:
                raise StorageError(f"{uri.location} changed while it was being read; try again")
        left = min(max(message.most_bytes, 1), _MOST_READ)
        pieces = []
        with storage.open_read(uri.path, offset=message.offset) as stream:
            while left > 0 and (chunk := stream.read(left)):
                pieces.append(chunk)
                left -= len(chunk)
        return m.FileChunk(data=b"".join(pieces))

    def write(self, message: m.FileWrite) -> m.FileWriting:
        """See FileWrite."""
        uri, storage = self._file(message.uri)
        return m.FileWriting(write_id=self._writes.begin(storage, uri.path, message.size))

    def write_chunk(self, message: m.FileWriteChunk) -> Done:
        """See FileWriteChunk."""
        self._writes.add(message.write_id, message.offset, message.data)
        return Done()

    def end_write(self, message: m.FileEndWrite) -> Done:
        """See FileEndWrite."""
        self._writes.end(message.write_id, message.crc32)
        return Done()

    def delete(self, message: m.FileDelete) -> m.FilesDeleted:
        """See FileDelete; NotFoundError when there is nothing."""
        uri, storage = self._open(message.uri)
        if not uri.has_pattern and not uri.is_folder and storage.stat(uri.path) is not None:
            storage.delete([uri.path])
            return m.FilesDeleted(count=1)
        if not message.is_recursive and (not uri.has_pattern or uri.is_folder):
            if not any(True for _entry in storage.entries(uri.path.rstrip("/") + "/", recursive=False)):
                raise NotFoundError(f"{uri.location}: there is no such file")
            raise UsageError(f"{uri.location} is a folder; --recursive deletes all that is in it")
        _base, found = _listing(storage, uri, is_recursive=message.is_recursive)
        keys = [entry.key for entry in found if not entry.is_folder]
        if not keys:
            raise NotFoundError(f"{uri.location}: there is no such file")
        storage.delete(keys)
        return m.FilesDeleted(count=len(keys))

    def check(self, message: m.FileCheck) -> m.FileChecked:
        """See FileCheck."""
        uri, _storage = self._open(message.uri, may_be_root=True)
        return m.FileChecked(**check_uri(self._storages, uri))

    def copy(self, message: m.FileCopy) -> m.FileCopying:
        """See FileCopy."""
        source, source_storage = self._open(message.source)
        target, target_storage = self._open(message.target)
        if target.has_pattern:
            raise UsageError(f"{target.location}: * is not possible in a target")
        return self._copies.begin(source_storage, source, target_storage, target)

    def copy_status(self, message: m.FileCopyStatus) -> m.FileCopying:
        """See FileCopyStatus."""
        return self._copies.status(message.copy_id, message.at_most_s, is_cancelled=message.is_cancelled)

    def close(self) -> None:
        """End what is under way."""
        self._copies.close()
        self._writes.close()
        self._storages.close()

    def _open(self, text: str, *, may_be_root: bool = False) -> tuple[Uri, Storage]:
        uri = Uri.parse(text, may_be_root=may_be_root)
        if uri.actions:
            raise UsageError(f"{text!r}: actions are for a task's inputs and resources; write | within a name as %7C")
        if uri.scheme not in self._names:
            known = ", ".join(self._names) or "none"
            raise UsageError(f"{text!r}: the server has no storage named {uri.scheme!r}; known are: {known}")
        return uri, self._storages.get(uri.scheme)

    def _file(self, text: str) -> tuple[Uri, Storage]:
        """A single object: `*` is an ordinary character here, for names come from listings."""
        uri, storage = self._open(text)
        if uri.is_folder or not uri.key:
            raise UsageError(f"{text!r} names no file")
        return uri, storage


def as_settings(options: Mapping[str, Any]) -> dict[str, str]:
    """The options of one storage as texts, as rclone's own configuration has them."""
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in options.items() if value is not None}


def _listing(storage: Storage, uri: Uri, *, is_recursive: bool) -> tuple[str, Iterable[Entry]]:
    """The text that is cut from keys to get paths, and what lies there."""
    if uri.has_pattern:
        return _match(storage, uri, is_recursive=is_recursive)
    if uri.path and not uri.is_folder:
        entry = storage.stat(uri.path)
        if entry is not None:
            return uri.path.rpartition("/")[0] + "/", [entry]
    base = uri.path if uri.is_folder or not uri.path else f"{uri.path}/"
    return base, storage.entries(base, recursive=is_recursive)


def _match(storage: Storage, uri: Uri, *, is_recursive: bool) -> tuple[str, Iterable[Entry]]:
    parts = uri.path.rstrip("/").split("/")
    first = next(number for number, part in enumerate(parts) if "*" in part)
    base = "".join(f"{part}/" for part in parts[:first])

    def level(folder: str, pattern: str) -> list[Entry]:
        entries = storage.entries(folder + pattern.partition("*")[0], recursive=False)
        return [entry for entry in entries if name_matches(pattern, entry.key.removesuffix("/")[len(folder) :])]

    def matches() -> Iterator[Entry]:
        folders = [base]
        for part in parts[first:-1]:
            folders = [entry.key for folder in folders for entry in level(folder, part) if entry.is_folder]
        for folder in folders:
            for entry in level(folder, parts[-1]):
                if entry.is_folder and is_recursive:
                    yield from storage.entries(entry.key)
                elif entry.is_folder or not uri.is_folder:
                    yield entry

    return base, matches()


def _rows(storage: Storage, base: str, found: Iterable[Entry]) -> m.FileRows:
    rows: list[m.FileRow] = []
    size = 0
    for entry in found:
        row = _row(storage, entry, entry.key[len(base) :])
        size += 2 * len(row.uri) + 64
        if len(rows) >= MOST_ROWS or size > _MOST_NAMES_BYTES:
            return m.FileRows(rows=sorted(rows, key=lambda row: row.path), is_cut=True)
        rows.append(row)
    return m.FileRows(rows=sorted(rows, key=lambda row: row.path))


def _row(storage: Storage, entry: Entry, path: str) -> m.FileRow:
    uri = str(Uri(storage.name, entry.key))
    return m.FileRow(uri=uri, path=path, size=entry.size, modified_ms=entry.modified_ms, etag=entry.etag or "")


def _expiry(seconds: int) -> int:
    return min(max(seconds, 1), _MOST_EXPIRY_S)
