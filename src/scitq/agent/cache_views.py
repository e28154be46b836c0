"""What a task sees as /resource: a read-only folder of links to exactly its entries, or a copy for tasks of our own user."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scitq.agent.actions.chain import entries_below
from scitq.agent.cache_entry import Entry, protect, stamp_of
from scitq.agent.claims import Claims
from scitq.storage.base import Cancel
from scitq.util import files

_FICLONE: Final = 0x40049409
_CANT_LINK: Final = {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True, slots=True)
class Wanted:
    """An entry that a task wants. key: of the content; uri: for messages; folder: below /resource, empty for its root."""

    key: str
    uri: str
    folder: str = ""


@dataclass(slots=True, eq=False)
class View:
    """A folder made of entries. `stamp`: of a copy, to notice what a task did to it."""

    name: str
    path: Path
    entries: list[Entry]
    stamp: str = ""
    leases: int = 0

    def is_unchanged(self) -> bool:
        """Whether a copy is still as it was made."""
        try:
            return bool(self.stamp) and stamp_of(self.path, with_changes=True) == self.stamp
        except OSError:
            return False


def view_name(wanted: Sequence[Wanted], *, is_copied: bool) -> str:
    """The name that the same set of resources always has; that of the entry where one entry is all."""
    if len(wanted) == 1 and not wanted[0].folder and not is_copied:
        return wanted[0].key
    text = "\n".join(sorted(f"{item.key} {item.folder}" for item in wanted))
    return hashlib.sha256(f"{is_copied} {text}".encode(errors="surrogateescape")).hexdigest()[:40]


def make_view(path: Path, staging: Path, wanted: Sequence[Wanted], entries: Sequence[Entry], cancel: Cancel, *, is_copied: bool) -> str:
    """Make `path` of `entries`, whole or not at all; returns the stamp of a copy.

    Raises StorageError when two of them give one path.
    """
    claims = Claims("/resource")
    try:
        staging.mkdir()
        for item, entry in zip(wanted, entries, strict=True):
            _add(staging, item, entry, claims, cancel, is_copied)
        protect_folders(staging)
        staging.chmod(0o755)
        staging.rename(path)
        path.chmod(0o555)
    except BaseException:
        files.remove_tree(staging)
        raise
    if not is_copied:
        return ""
    protect(path)
    return stamp_of(path, with_changes=True)


def protect_folders(folder: Path) -> None:
    """Take the right to write from folders only: the files are links, whose mode is the entry's."""
    for _name, entry in entries_below(folder):
        if entry.is_dir(follow_symlinks=False):
            Path(entry.path).chmod(0o555)


def _add(root: Path, item: Wanted, entry: Entry, claims: Claims, cancel: Cancel, is_copied: bool) -> None:
    if item.folder:
        claims.add_folder(item.folder, item.uri)
        (root / item.folder).mkdir(parents=True, exist_ok=True)
    for number, (name, found) in enumerate(entries_below(entry.data)):
        if not number % 256:
            cancel.check()
        path = f"{item.folder}/{name}" if item.folder else name
        target = f"{root}/{path}"
        if found.is_dir(follow_symlinks=False):
            claims.add_folder(path, item.uri)
            Path(target).mkdir(parents=True, exist_ok=True)
            continue
        claims.add_file(path, item.uri)
        if found.is_symlink():
            Path(target).symlink_to(Path(found.path).readlink())
        elif is_copied:
            copy_file(Path(found.path), Path(target))
        else:
            link_or_copy(found.path, target)


def copied_bytes(entries: Sequence[Entry], folder: Path) -> int:
    """Bytes that a copy of `entries` below `folder` takes; none where copies share blocks."""
    with tempfile.TemporaryFile(dir=folder) as source, tempfile.TemporaryFile(dir=folder) as target:
        source.write(b"x" * 4096)
        source.flush()
        try:
            fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
        except OSError:
            return sum(entry.meta.bytes for entry in entries)
    return 0


def link_or_copy(source: str, target: str) -> None:
    """A hard link where the disk can, else a copy that shares blocks, else a plain one."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _CANT_LINK:
            raise
        copy_file(Path(source), Path(target))


def copy_file(source: Path, target: Path) -> None:
    """A copy with the same mode and times that shares blocks with `source` where the disk can do that."""
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError:
            shutil.copyfileobj(reader, writer, 1 << 20)
    with suppress(OSError):
        shutil.copystat(source, target)
