"""The mark of a completed result: written last, so that half an upload never counts (docs/data.md, "skip-if-exists")."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Final

import msgspec

from scitq.errors import StorageError
from scitq.model.uri import Uri
from scitq.storage.base import Cancel, Entry, Storage

NAME: Final = ".scitq-complete.json"
_MOST_BYTES: Final = 256 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a completed result holds: (name below the folder, version) of every file, as the storage showed it."""

    task_id: int
    files: list[tuple[str, str]]


def write(storage: Storage, folder: Uri, task_id: int, files: Mapping[str, int], cancel: Cancel) -> None:
    """Mark the result in `folder` as complete; StorageError unless all `files` (name, bytes) are there."""
    there = _listed(storage, folder, cancel)
    for name, size in files.items():
        if name not in there or there[name].size not in {size, -1}:
            raise StorageError(f"{storage.uri(folder.path + name)}: it was uploaded, but is not there as it was sent")
    data = msgspec.json.encode(Manifest(task_id=task_id, files=[(name, there[name].version) for name in sorted(files)]))
    storage.put_stream(io.BytesIO(data), folder.path + NAME, size=len(data), cancel=cancel)


def remove(storage: Storage, folder: Uri) -> None:
    """Take the mark away, before the result changes."""
    storage.delete([folder.path + NAME])


def is_complete(storage: Storage, folder: Uri, cancel: Cancel) -> bool:
    """Whether `folder` is marked and still holds every file as it was when it was marked."""
    found = storage.stat(folder.path + NAME)
    if found is None or found.size > _MOST_BYTES:
        return False
    with storage.open_read(found.key, cancel=cancel) as stream:
        pieces = []
        while chunk := stream.read(1 << 20):
            pieces.append(chunk)
    try:
        manifest = msgspec.json.decode(b"".join(pieces), type=Manifest)
    except msgspec.MsgspecError:
        return False
    there = _listed(storage, folder, cancel)
    return all(name in there and there[name].version == version for name, version in manifest.files)


def _listed(storage: Storage, folder: Uri, cancel: Cancel) -> dict[str, Entry]:
    return {entry.key[len(folder.path) :]: entry for entry in storage.entries(folder.path, cancel=cancel)}
