"""Every storage that rclone knows and we don't speak ourselves (docs/storage.md, "rclone")."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from scitq.errors import CancelledError, ScitqError, SourceMissingError, StorageError, TransientStorageError
from scitq.storage.base import Cancel, Entry, Progress, Readable, ignore_progress
from scitq.storage.ranged import PIECE, Range, RangeReader, fetch, fetch_in_pieces
from scitq.storage.rclone_daemon import RcloneDaemon, RcloneError, failed
from scitq.storage.transfer import CHUNK, OneByOne, buffer, local_errors, open_regular, run_parallel, stream_slot, whole_file, with_retries
from scitq.storage.wire import Reply

TRIES: Final = 4
"""Fewer than elsewhere: rclone itself has tried each of them several times."""
_MARK: Final = "\u201b"
_CONTROLS_OR_SYMBOLS: Final = re.compile("[\x01-\x1f\x7f\u2401-\u241f\u2421]")
_WRITTEN: Final = re.compile("\u201b?[\u2401-\u241f\u2421]")
_SMALL: Final = 4 << 20
_HASHES: Final = ("md5", "sha1", "sha256", "crc32")


class RcloneStorage(OneByOne):
    """One entry of the `rclone` section, through the daemon."""

    def __init__(self, name: str, daemon: RcloneDaemon) -> None:
        self.name = name
        self._daemon = daemon
        self._hash: str | None = None
        self._lock = threading.Lock()

    def uri(self, key: str) -> str:
        """See Storage."""
        return f"{self.name}://{key}"

    def entries(self, prefix: str, *, recursive: bool = True, cancel: Cancel | None = None) -> Iterator[Entry]:
        """See Storage."""
        token = cancel or Cancel()
        start = prefix.rpartition("/")[2]
        folder = prefix[: len(prefix) - len(start)]
        if start and recursive:
            for entry in self._list(folder, recursive=False, cancel=token):
                if entry.key.startswith(prefix):
                    yield from self._list(entry.key, recursive=True, cancel=token) if entry.is_folder else [entry]
            return
        yield from (entry for entry in self._list(folder, recursive=recursive, cancel=token) if entry.key.startswith(prefix))

    def _list(self, folder: str, *, recursive: bool, cancel: Cancel) -> Iterator[Entry]:
        options: dict[str, Any] = {"recurse": recursive, "noMimeType": True, **self._hash_options(folder, cancel)}
        try:
            found = self._try(folder, cancel, "operations/list", {"remote": self._remote(folder), "opt": options})
        except SourceMissingError:
            return
        for item in found.get("list") or []:
            entry = self._entry(item, self._above(folder))
            if not (entry.is_folder and recursive):
                yield entry

    def _hash_options(self, key: str, cancel: Cancel) -> dict[str, Any]:
        """Ask for the one hash that this storage gives for nothing, if there is one."""
        with self._lock:
            if self._hash is None:
                info = self._try(key, cancel, "operations/fsinfo", {})
                is_slow = info.get("Features", {}).get("SlowHash", True)
                known = [] if is_slow else [name for name in _HASHES if name in (info.get("Hashes") or [])]
                self._hash = known[0] if known else ""
            return {"showHash": True, "hashTypes": [self._hash]} if self._hash else {}

    def _entry(self, item: dict[str, Any], above: str = "") -> Entry:
        key = above + _from_rclone(item["Path"]) + ("/" if item["IsDir"] else "")
        try:
            modified_ms = int(datetime.fromisoformat(item["ModTime"]).timestamp() * 1000)
        except (KeyError, ValueError):
            modified_ms = None
        found = (item.get("Hashes") or {}).get(self._hash or "", "")
        return Entry(key, 0 if item["IsDir"] else item["Size"], modified_ms, f"{self._hash}:{found}" if found else None)

    def stat(self, key: str) -> Entry | None:
        """See Storage."""
        if key.endswith("/") or not key:
            return None
        return self._stat(key, Cancel())

    def _stat(self, key: str, cancel: Cancel) -> Entry | None:
        try:
            found = self._try(key, cancel, "operations/stat", {"remote": self._remote(key), "opt": self._hash_options(key, cancel)})
        except SourceMissingError:
            return None
        item = found.get("item")
        return None if item is None or item["IsDir"] else self._entry(item | {"Path": _to_rclone(key)})

    def download(
        self, key: str, target: Path, *, entry: Entry | None = None, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> Entry:
        """See Storage."""
        token = cancel or Cancel()
        token.check()
        found = self._stat(key, token) if entry is None or entry.size > PIECE else entry
        if found is None:
            raise SourceMissingError(f"{self.uri(key)}: no such file")
        if entry is not None and entry.version != found.version:
            raise StorageError(f"{self.uri(key)} changed since it was listed; try again")
        with whole_file(target, self.uri(key)) as temporary:
            descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                opener = self._opener(key, found.size)
                if found.size > PIECE:
                    os.posix_fallocate(descriptor, 0, found.size)
                    fetch_in_pieces(opener, found.size, descriptor, progress, token)
                elif found.size > 0:
                    fetch(opener, Range(0, found.size), descriptor, progress, token)
                elif found.size < 0:
                    self._download_unknown(key, descriptor, progress, token)
                self._require_hash(found, descriptor, token)
            finally:
                os.close(descriptor)
        return found

    def _opener(self, key: str, size: int) -> Callable[[Range, Cancel], Any]:
        @contextmanager
        def opener(part: Range, cancel: Cancel) -> Iterator[Reply]:
            headers = {} if part.size == size and not part.done else {"range": part.header}
            with self._errors(key), self._daemon.open(self._served(key), headers, cancel=cancel) as reply:
                if reply.length != part.size - part.done:
                    raise StorageError(f"{self.uri(key)} changed since it was listed; try again")
                yield reply

        return opener

    def _download_unknown(self, key: str, descriptor: int, progress: Progress, cancel: Cancel) -> None:
        with stream_slot(cancel), self._errors(key), self._daemon.open(self._served(key), {}, cancel=cancel) as reply:
            view = buffer()
            while count := reply.read_into(view):
                os.write(descriptor, view[:count])
                progress(count)

    def _require_hash(self, entry: Entry, descriptor: int, cancel: Cancel) -> None:
        kind, _, expected = (entry.etag or "").partition(":")
        if not expected:
            return
        view, offset, crc = buffer(), 0, 0
        value = None if kind == "crc32" else hashlib.new(kind, usedforsecurity=False)
        while count := os.preadv(descriptor, [view], offset):
            cancel.check()
            offset += count
            if value is not None:
                value.update(view[:count])
            else:
                crc = zlib.crc32(view[:count], crc)
        if (value.hexdigest() if value is not None else f"{crc:08x}") != expected:
            raise StorageError(f"{self.uri(entry.key)}: the content does not have its stored {kind} checksum; it was damaged")

    def upload(self, source: Path, key: str, *, progress: Progress = ignore_progress, cancel: Cancel | None = None) -> Entry:
        """See Storage. rclone compares size and, where there is one, checksum."""
        token = cancel or Cancel()
        token.check()
        self._require_file_key(key)
        with local_errors(source, self.uri(key)), open_regular(source) as file:
            size = os.fstat(file.fileno()).st_size
            with stream_slot(token):
                with_retries(lambda: self._copy(source, key, size, progress, token), cancel=token, tries=TRIES)
        entry = self._stat(key, token)
        if entry is None or entry.size not in {size, -1}:
            raise StorageError(f"{self.uri(key)}: not stored whole; {entry.size if entry else 'no'} bytes are there instead of {size}")
        return entry

    def _copy(self, source: Path, key: str, size: int, progress: Progress, cancel: Cancel) -> None:
        """Under a plain name in the folder of rclone, which is cleared away after us however we end."""
        with tempfile.TemporaryDirectory(prefix="up-", dir=self._daemon.folder(cancel)) as folder:
            (Path(folder) / "file").symlink_to(os.path.realpath(source))
            self._copy_from(folder, key, size, progress, cancel)

    def _copy_from(self, folder: str, key: str, size: int, progress: Progress, cancel: Cancel) -> None:
        parameters = {"srcFs": f":local,copy_links:{folder}", "srcRemote": "file", "dstFs": self._fs(key), "dstRemote": self._remote(key)}
        options = {"IgnoreTimes": True, "NoUpdateModTime": True}
        with self._errors(key):
            if size <= _SMALL:
                self._daemon.call("operations/copyfile", {**parameters, "_config": options}, cancel=cancel)
                progress(size)
                return
            group = f"scitq-{secrets.token_hex(8)}"
            job = {**parameters, "_config": options, "_async": True, "_group": group}
            number = self._daemon.call("operations/copyfile", job, cancel=cancel)["jobid"]
            told = 0
            try:
                while True:
                    status = self._daemon.call("job/status", {"jobid": number}, cancel=cancel)
                    if status["finished"]:
                        break
                    done = min(size, int(self._daemon.call("core/stats", {"group": group, "short": True}, cancel=cancel).get("bytes", 0)))
                    progress(done - told)
                    told = done
                    cancel.wait(0.1)
                if not status["success"]:
                    raise failed(str(status["error"]))
                progress(size - told)
            except BaseException:
                progress(-told)
                self._stop_job(number)
                raise

    def _stop_job(self, number: int) -> None:
        with suppress(ScitqError):
            self._daemon.call("job/stop", {"jobid": number}, cancel=Cancel())

    def delete(self, keys: Iterable[str]) -> None:
        """See Storage."""

        def job(key: str) -> Callable[[Cancel], None]:
            def delete(cancel: Cancel) -> None:
                with suppress(SourceMissingError):
                    self._try(key, cancel, "operations/deletefile", {"remote": self._remote(key)})

            return delete

        run_parallel([job(key) for key in keys], workers=self.parallel_files, cancel=Cancel())

    @contextmanager
    def open_read(self, key: str, *, offset: int = 0, cancel: Cancel | None = None) -> Iterator[Readable]:
        """See Storage."""
        token = cancel or Cancel()
        entry = self._stat(key, token)
        if entry is None:
            raise SourceMissingError(f"{self.uri(key)}: no such file")
        with RangeReader(self._opener(key, entry.size), entry.size, offset, token) as reader:
            yield reader

    def put_stream(
        self, stream: Readable, key: str, *, size: int | None = None, progress: Progress = ignore_progress, cancel: Cancel | None = None
    ) -> Entry:
        """See Storage. The stream is kept on disk first: most of these storages must know the size before they begin."""
        token, done = cancel or Cancel(), 0
        self._require_file_key(key)
        with tempfile.NamedTemporaryFile(prefix="scitq-stream-") as spool, local_errors(Path(spool.name), self.uri(key)):
            while chunk := stream.read(CHUNK):
                token.check()
                spool.write(chunk)
                done += len(chunk)
            if size is not None and done != size:
                raise StorageError(f"{self.uri(key)}: {done} bytes came instead of {size}")
            spool.flush()
            return self.upload(Path(spool.name), key, progress=progress, cancel=token)

    def sign(self, key: str, method: str = "GET", *, expires_s: int = 3600) -> str | None:  # noqa: ARG002 - the interface's
        """See Storage: not possible."""
        return None

    def make_bucket(self, bucket: str) -> None:
        """Make the bucket, container or top folder `bucket`; what exists is fine."""
        self._try(bucket, Cancel(), "operations/mkdir", {"remote": self._remote(bucket)})

    def check(self, path: str = "") -> None:
        """See Storage."""
        bucket = path.partition("/")[0]
        self._try(bucket, Cancel(), "operations/list", {"remote": self._remote(bucket), "opt": {"noModTime": True, "noMimeType": True}})

    def close(self) -> None:
        """See Storage; the daemon is closed by who made it."""

    def _fs(self, key: str) -> str:  # noqa: ARG002 - storages without an entry look at it
        """What rclone calls the storage that holds `key`."""
        return f"{self.name}:"

    def _above(self, key: str) -> str:  # noqa: ARG002 - see _fs
        """The part of `key` that rclone counts to the storage and not to the path."""
        return ""

    def _remote(self, key: str) -> str:
        if {"..", "."} & set(key.split("/")) or "\0" in key:
            raise StorageError(f"{self.uri(key)!r}: . and .. can't be names here")
        return _to_rclone(key[len(self._above(key)) :].rstrip("/"))

    def _require_file_key(self, key: str) -> None:
        if not key or key.endswith("/"):
            raise StorageError(f"{self.uri(key)!r} names a folder; a file needs a name")

    def _served(self, key: str) -> str:
        try:
            return quote(f"/[{self._fs(key)}]/{self._remote(key)}")
        except UnicodeEncodeError:
            raise StorageError(f"{self.uri(key)!r}: the name is not valid UTF-8") from None

    def _try(self, key: str, cancel: Cancel, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        def attempt() -> dict[str, Any]:
            with self._errors(key):
                return self._daemon.call(method, {"fs": self._fs(key), **parameters}, cancel=cancel)

        return with_retries(attempt, cancel=cancel, tries=TRIES)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Name the URI, and tell missing, passing and lasting errors apart."""
        try:
            yield
        except (CancelledError, SourceMissingError):
            raise
        except RcloneError as error:
            if error.status == 404:
                raise SourceMissingError(f"{self.uri(key)}: no such file or folder") from error
            raise StorageError(f"{self.uri(key)}: {error}") from error
        except TransientStorageError as error:
            if str(error).startswith(f"{self.name}://"):
                raise
            raise TransientStorageError(f"{self.uri(key)}: {error}") from error


def _to_rclone(name: str) -> str:
    """`name` as rclone writes it: control characters as their symbols, and a mark before what is itself such a symbol."""
    return _CONTROLS_OR_SYMBOLS.sub(
        lambda found: f"{_MARK}{found[0]}" if found[0] > " " and found[0] != "\x7f" else _symbol(found[0]), name
    )


def _from_rclone(name: str) -> str:
    """The inverse of `_to_rclone`."""
    return _WRITTEN.sub(lambda found: found[0][1] if len(found[0]) > 1 else _control(found[0]), name)


def _symbol(control: str) -> str:
    return chr(0x2421 if control == "\x7f" else 0x2400 + ord(control))


def _control(symbol: str) -> str:
    return "\x7f" if symbol == "\u2421" else chr(ord(symbol) - 0x2400)


class FtpStorage(RcloneStorage):
    """`ftp://[user:password@]host[:port]/path`, without an entry in scitq.yaml; anonymous by default."""

    def __init__(self, daemon: RcloneDaemon) -> None:
        super().__init__("ftp", daemon)
        self._known: dict[str, str] = {}

    def uri(self, key: str) -> str:
        """See Storage; a password is left out."""
        authority, slash, path = key.partition("/")
        return f"ftp://{authority.rpartition('@')[2]}{slash}{path}"

    def _above(self, key: str) -> str:
        return key.partition("/")[0] + "/"

    def _fs(self, key: str) -> str:
        authority = key.partition("/")[0]
        if authority not in self._known:
            login, _, address = authority.rpartition("@")
            host, _, port = address.partition(":")
            user, _, password = login.partition(":")
            clear = unquote(password) if user else "anonymous@"
            obscured = self._daemon.call("core/obscure", {"clear": clear}, cancel=Cancel())["obscured"]
            options = {"host": host, "port": port or "21", "user": unquote(user) or "anonymous", "pass": obscured}
            quoted = (f'{name}="{value.replace(chr(34), chr(34) * 2)}"' for name, value in options.items())
            self._known[authority] = f":ftp,{','.join(quoted)}:"
        return self._known[authority]
