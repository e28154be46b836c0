"""Folders of this machine as a storage: entries of type `local`, and `file:///` under the folders that the site allows."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from scitq.errors import SourceMissingError, StorageError
from scitq.storage.base import Cancel, Entry, Progress, Readable, ignore_progress
from scitq.storage.transfer import CHUNK, OneByOne, local_errors, open_regular, whole_file, write_all


class LocalStorage(OneByOne):
    """Files below `root`; nothing outside of the allowed folders is ever opened, through links neither."""

    def __init__(self, name: str, root: Path, allowed: Sequence[Path] | None = None) -> None:
        self.name = name
        self._root = root
        self._allowed = [Path(os.path.realpath(folder)) for folder in (allowed if allowed is not None else [root])]

    def uri(self, key: str) -> str:
        """See Storage."""
        return f"{self.name}://{key}"

    def entries(self, prefix: str, *, recursive: bool = True, cancel: Cancel | None = None) -> Iterator[Entry]:
        """See Storage."""
        start = prefix.rpartition("/")[2]
        folder_key = prefix[: len(prefix) - len(start)]
        with self._errors(prefix):
            real = self._real(folder_key)
            if real.is_dir():
                yield from self._walk(real, folder_key, start, recursive, cancel or Cancel(), (os.fspath(real),))

    def _walk(self, folder: Path, key: str, start: str, recursive: bool, cancel: Cancel, above: tuple[str, ...]) -> Iterator[Entry]:
        with os.scandir(folder) as children:
            found_children = sorted((child for child in children if child.name.startswith(start)), key=lambda child: child.name)
        for child in found_children:
            cancel.check()
            real = folder / child.name
            if child.is_symlink():
                real = Path(os.path.realpath(real))
                if not self._is_allowed(real):
                    continue
            try:
                found = real.stat()
            except OSError:
                continue
            child_key = f"{key}{child.name}"
            if stat.S_ISREG(found.st_mode):
                yield _entry(child_key, found)
            elif stat.S_ISDIR(found.st_mode):
                if not recursive:
                    yield Entry(f"{child_key}/", 0, found.st_mtime_ns // 1_000_000)
                elif os.fspath(real) not in above:
                    yield from self._walk(real, f"{child_key}/", "", True, cancel, (*above, os.fspath(real)))

    def stat(self, key: str) -> Entry | None:
        """See Storage."""
        with self._errors(key):
            try:
                found = self._real(key).stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return _entry(key, found) if stat.S_ISREG(found.st_mode) and not key.endswith("/") else None

    def download(
        self, key: str, target: Path, *, entry: Entry | None = None, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> Entry:
        """See Storage."""
        token = cancel or Cancel()
        with self._open(key) as source, whole_file(target, self.uri(key)) as temporary:
            before = os.fstat(source.fileno())
            if entry is not None and _entry(key, before).version != entry.version:
                raise StorageError(f"{self.uri(key)} changed since it was listed; try again")
            with temporary.open("xb", buffering=0) as file:
                _copy(source.fileno(), file.fileno(), progress, token)
            if _entry(key, os.fstat(source.fileno())) != _entry(key, before):
                raise StorageError(f"{self.uri(key)} changed while it was being read; try again")
            if before.st_mode & 0o111:
                temporary.chmod(0o755)
        return _entry(key, before)

    def upload(self, source: Path, key: str, *, progress: Progress = ignore_progress, cancel: Cancel | None = None) -> Entry:
        """See Storage."""
        with local_errors(source, self.uri(key)), open_regular(source) as stream:
            expected = os.fstat(stream.fileno())
            with self._target(key) as temporary:
                with temporary.open("xb", buffering=0) as file:
                    size = _copy(stream.fileno(), file.fileno(), progress, cancel or Cancel())
                if size != expected.st_size:
                    raise StorageError(f"{self.uri(key)}: {source} changed while it was being uploaded")
                if expected.st_mode & 0o111:
                    temporary.chmod(0o755)
        return self._stored(key)

    def delete(self, keys: Iterable[str]) -> None:
        """See Storage. Folders that become empty go too."""
        for key in keys:
            with self._errors(key):
                path = self._path(key)
                self._real(key.rpartition("/")[0])
                path.unlink(missing_ok=True)
                for folder in path.parents:
                    if folder in (self._root, *self._allowed):
                        break
                    try:
                        folder.rmdir()
                    except OSError:
                        break

    @contextmanager
    def open_read(self, key: str, *, offset: int = 0, cancel: Cancel | None = None) -> Iterator[Readable]:
        """See Storage."""
        with self._open(key) as file:
            file.seek(offset)
            yield _Reader(file, cancel or Cancel())

    def put_stream(
        self, stream: Readable, key: str, *, size: int | None = None, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> Entry:
        """See Storage."""
        token, done = cancel or Cancel(), 0
        with self._target(key) as temporary, temporary.open("xb", buffering=0) as file:
            while chunk := stream.read(CHUNK):
                token.check()
                write_all(file.fileno(), chunk)
                done += len(chunk)
                progress(len(chunk))
            if size is not None and done != size:
                raise StorageError(f"{self.uri(key)}: {done} bytes came instead of {size}")
        return self._stored(key)

    def sign(self, key: str, method: str = "GET", *, expires_s: int = 3600) -> str | None:  # noqa: ARG002 - the interface's
        """See Storage: not possible."""
        return None

    def check(self, path: str = "") -> None:
        """See Storage."""
        with self._errors(path):
            if path:
                self._real(path)
            elif not self._root.is_dir():
                raise StorageError(f"{self.uri('')}: the folder {self._root} is missing on this machine")

    def close(self) -> None:
        """See Storage: nothing is held."""

    def _path(self, key: str) -> Path:
        if ".." in key.split("/") or "\0" in key:
            raise StorageError(f"{self.uri(key)}: the path would leave its folder")
        return Path(key) if self.name == "file" else self._root / key.lstrip("/")

    def _is_allowed(self, real: Path) -> bool:
        return any(real == folder or folder in real.parents for folder in self._allowed)

    def _real(self, key: str) -> Path:
        real = Path(os.path.realpath(self._path(key)))
        if not self._is_allowed(real):
            if self.name == "file":
                allowed = ", ".join(map(str, self._allowed)) or "none"
                raise StorageError(f"{self.uri(key)} is not under a folder that scitq.yaml allows for file:// (allowed: {allowed})")
            raise StorageError(f"{self.uri(key)} leads out of the folder of {self.name!r} through a link")
        return real

    @contextmanager
    def _open(self, key: str) -> Iterator[BinaryIO]:
        with self._errors(key):
            file = open_regular(self._real(key), flags=os.O_NOFOLLOW)
        with file:
            yield file

    @contextmanager
    def _target(self, key: str) -> Iterator[Path]:
        with self._errors(key):
            path = self._path(key)
            self._real(key.rpartition("/")[0])
            if path.is_dir():
                raise StorageError(f"{self.uri(key)} is a folder, so no file can be stored there")
        with whole_file(path, self.uri(key)) as temporary:
            yield temporary

    def _stored(self, key: str) -> Entry:
        entry = self.stat(key)
        if entry is None:
            raise StorageError(f"{self.uri(key)} vanished right after it was stored")
        return entry

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SourceMissingError(f"{self.uri(key)}: no such file") from error
        except OSError as error:
            raise StorageError(f"{self.uri(key)}: {error.strerror or error}") from error


class _Reader:
    def __init__(self, file: BinaryIO, cancel: Cancel) -> None:
        self._file, self._cancel = file, cancel

    def read(self, size: int, /) -> bytes:
        self._cancel.check()
        return self._file.read(size)


def _entry(key: str, found: os.stat_result) -> Entry:
    return Entry(key, found.st_size, found.st_mtime_ns // 1_000_000, f"{found.st_mtime_ns:x}-{found.st_ino:x}")


def _copy(source: int, target: int, progress: Progress, cancel: Cancel) -> int:
    done, by_kernel = 0, True
    while True:
        cancel.check()
        if by_kernel:
            try:
                count = os.copy_file_range(source, target, 8 * CHUNK)
            except OSError:
                if done:
                    raise
                by_kernel = False
                continue
            by_kernel = count > 0 or done > 0
            if count == 0 and not by_kernel:
                continue
        else:
            chunk = os.read(source, CHUNK)
            count = len(chunk)
            write_all(target, chunk)
        if not count:
            return done
        done += count
        progress(count)
