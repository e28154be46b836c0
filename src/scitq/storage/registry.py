"""From the name of a storage to the engine that serves it: entries of scitq.yaml's `rclone` section and the built-in schemes."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from scitq.errors import UsageError
from scitq.model.uri import BUILT_IN, WEB_SCHEMES, Uri
from scitq.storage.base import Storage
from scitq.storage.local import LocalStorage
from scitq.storage.rclone import FtpStorage, RcloneStorage
from scitq.storage.rclone_daemon import RcloneDaemon
from scitq.storage.s3 import S3Storage
from scitq.storage.s3_config import KNOWN_OPTIONS, S3Config
from scitq.storage.web import WebStorage

Settings = Mapping[str, str]


def open_storage(name: str, settings: Settings, daemon: RcloneDaemon | None = None) -> Storage:
    """The engine for the entry `name` with the options `settings`, which are rclone's own, `type` among them.

    daemon: the rclone that knows this entry; by default one of its own, which ends with the process.
    Raises UsageError for settings that can't be meant. Connects to nothing yet.
    """
    kind = settings.get("type", "")
    if not kind:
        raise UsageError(f"the storage {name!r} has no type in scitq.yaml; write type: s3, azureblob, … below it")
    match kind:
        case "local":
            root = settings.get("root", "")
            if not root.startswith("/"):
                raise UsageError(f"the storage {name!r} is of type local and needs root: /a/folder, by its absolute path")
            return LocalStorage(name, Path(root))
        case "s3" if KNOWN_OPTIONS.issuperset(settings):
            return S3Storage(name, S3Config.parse(name, settings))
        case _:
            return RcloneStorage(name, daemon or RcloneDaemon({name: settings}))


class Storages:
    """All storages of one process, opened when first asked for. Thread-safe."""

    def __init__(self, entries: Mapping[str, Settings], *, file_folders: Sequence[Path] = ()) -> None:
        """entries: the `rclone` section; file_folders: where `file:///` may reach."""
        self._entries = entries
        self._file_folders = list(file_folders)
        self._open: dict[str, Storage] = {}
        self._lock = threading.Lock()
        self._daemon = RcloneDaemon(entries)

    @property
    def names(self) -> list[str]:
        """The schemes that URIs may have here, sorted."""
        return sorted({*self._entries, *BUILT_IN})

    def require_known(self, uri: Uri) -> None:
        """Raise UsageError that lists the known storages unless `uri` is on one of them (RES-1)."""
        if uri.scheme not in self.names:
            raise UsageError(f"{uri.location}: no storage is named {uri.scheme!r}; known are {', '.join(self.names)}")

    def get(self, scheme: str) -> Storage:
        """The engine for `scheme`; raises UsageError when there is no such storage."""
        with self._lock:
            storage = self._open.get(scheme)
            if storage is None:
                storage = self._open[scheme] = self._make(scheme)
            return storage

    def _make(self, scheme: str) -> Storage:
        if scheme in self._entries:
            return open_storage(scheme, self._entries[scheme], self._daemon)
        if scheme == "file":
            return LocalStorage("file", Path("/"), self._file_folders)
        if scheme in WEB_SCHEMES:
            return WebStorage(scheme)
        if scheme == "ftp":
            return FtpStorage(self._daemon)
        raise UsageError(f"no storage is named {scheme!r}; known are {', '.join(self.names)}")

    def close(self) -> None:
        """Close every storage that was opened."""
        with self._lock:
            opened, self._open = list(self._open.values()), {}
        for storage in opened:
            storage.close()
        self._daemon.close()
