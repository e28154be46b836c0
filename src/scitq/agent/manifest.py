"""The mark of a completed result: written last, so that half an upload never counts (docs/data.md, "skip-if-exists")."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import msgspec

from scitq.model.uri import Uri
from scitq.storage.base import Cancel, Storage

NAME: Final = ".scitq-complete.json"
_MOST_BYTES: Final = 256 << 20


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a completed result holds: (name below the folder, bytes) of every file."""

    task_id: int
    files: list[tuple[str, int]]


def write(storage: Storage, folder: Uri, task_id: int, files: Sequence[tuple[str, int]], cancel: Cancel) -> None:
    """Mark the result in `folder` as complete."""
    data = msgspec.json.encode(Manifest(task_id=task_id, files=sorted(files)))
    storage.put_stream(io.BytesIO(data), folder.path + NAME, size=len(data), cancel=cancel)


def remove(storage: Storage, folder: Uri) -> None:
    """Take the mark away, before the result changes."""
    storage.delete([folder.path + NAME])


def is_complete(storage: Storage, folder: Uri, cancel: Cancel) -> bool:
    """Whether `folder` is marked and still holds every file in its size."""
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
    there = {entry.key[len(folder.path) :]: entry.size for entry in storage.entries(folder.path, cancel=cancel)}
    return all(there.get(name) == size for name, size in manifest.files)
