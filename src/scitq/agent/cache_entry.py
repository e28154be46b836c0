"""One entry of the cache on disk: a read-only folder, and beside it what it is and how to tell that it is still whole."""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from scitq.agent.actions.chain import entries_below
from scitq.util import clock, files

DATA = "data"
_META = "entry.json"
_SETTLED = "settled"
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Meta(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept beside the data. `stamp`: a digest of all names, sizes, modes and times, without the contents; `boot`: of the machine."""

    uri: str
    bytes: int
    files: int
    stamp: str
    created_ms: int
    boot: str = ""


@dataclass(slots=True)
class Entry:
    """A whole entry. `leases`: how many views in use hold it; `is_checked`: compared with its stamp by this process."""

    key: str
    folder: Path
    meta: Meta
    used_ms: int
    leases: int = 0
    is_checked: bool = False

    @property
    def data(self) -> Path:
        """The folder with the content."""
        return self.folder / DATA

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """The entry in `folder`; None when it is none, or may not have been written before the machine stopped."""
        try:
            meta = msgspec.json.decode((folder / _META).read_bytes(), type=Meta)
            used = (folder / _META).stat().st_mtime_ns // 1_000_000
        except (OSError, msgspec.MsgspecError):
            return None
        found = cls(folder.name, folder, meta, used)
        return found if found.is_settled or meta.boot == _boot() else None

    @classmethod
    def seal(cls, folder: Path, key: str, uri: str, final: Path) -> Self:
        """Make `folder/data` read-only, describe it, and move `folder` to `final` as a whole."""
        total, count = protect(folder / DATA)
        now = clock.now_ms()
        meta = Meta(uri=uri, bytes=total, files=count, stamp=stamp_of(folder / DATA), created_ms=now, boot=_boot())
        files.write_atomically(folder / _META, msgspec.json.encode(meta))
        folder.rename(final)
        return cls(key, final, meta, now, is_checked=True)

    def is_whole(self) -> bool:
        """Whether nothing was taken, added or changed since it was sealed."""
        try:
            return stamp_of(self.data) == self.meta.stamp
        except OSError:
            return False

    @property
    def is_settled(self) -> bool:
        """Whether all of it is known to be on the disk."""
        return (self.folder / _SETTLED).exists()

    def settle(self) -> None:
        """Have all written to the disk, and note that it is."""
        for _name, found in entries_below(self.data):
            if not found.is_symlink():
                descriptor = os.open(found.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
        (self.folder / _SETTLED).touch()

    def touch(self) -> None:
        """Remember that it is used now."""
        self.used_ms = clock.now_ms()
        os.utime(self.folder / _META)


def _boot() -> str:
    """The name of the machine's present run; a new one for each question where the system tells none."""
    try:
        return _BOOT.read_text().strip()
    except OSError:
        return secrets.token_hex(8)


def protect(folder: Path) -> tuple[int, int]:
    """Take the right to write from all files and folders; returns bytes and number of files."""
    total = count = 0
    folders = [os.fspath(folder)]
    for _name, entry in entries_below(folder):
        if entry.is_dir(follow_symlinks=False):
            folders.append(entry.path)
        elif entry.is_file(follow_symlinks=False):
            found = entry.stat(follow_symlinks=False)
            os.chmod(entry.path, 0o555 if found.st_mode & 0o111 else 0o444)  # noqa: PTH101 - often, and paths cost
            total += found.st_size
            count += 1
    for path in folders:
        Path(path).chmod(0o555)
    return total, count


def stamp_of(folder: Path, *, with_changes: bool = False) -> str:
    """A digest of names, kinds, sizes, modes and times of all below `folder`; contents are not read.

    with_changes: also of the times of the last change of anything, which no program can set back (but links change them too).
    """
    lines = []
    for name, entry in entries_below(folder):
        found = entry.stat(follow_symlinks=False)
        is_folder = stat.S_ISDIR(found.st_mode)
        size, modified = (0, 0) if is_folder else (found.st_size, found.st_mtime_ns)
        target = os.readlink(entry.path) if entry.is_symlink() else ""  # noqa: PTH115 - a text, not a path
        lines.append(f"{name!r} {found.st_mode} {size} {modified} {target!r} {found.st_ctime_ns if with_changes else 0}")
    lines.sort()
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
