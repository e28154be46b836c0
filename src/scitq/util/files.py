"""Files written so that a crash leaves the old or the new, and paths joined so that they stay inside."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from scitq.errors import ScitqError


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put `data` at `path` by a temporary name in the same folder, fsync and rename; makes no folders."""
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make renames in `folder` outlive a power cut; a file system that can't is let be."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def join_inside(root: Path, relative: str) -> Path:
    """`root/relative`, lexically inside `root`.

    Raises ScitqError for `..`, absolute paths, NUL and empty names. Links on disk are not looked at.
    """
    parts = relative.split("/")
    if not relative or relative.startswith("/") or ".." in parts or "\0" in relative:
        raise ScitqError(f"the path {relative!r} would leave its folder")
    return root.joinpath(*[part for part in parts if part not in {"", "."}])


def make_private_folder(path: Path) -> None:
    """Make `path` and its parents; the last one is 0700."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)


def is_private(path: Path) -> bool:
    """Whether nobody but the owner may read or write `path`."""
    return not stat.S_IMODE(path.stat().st_mode) & 0o077


def remove_tree(path: Path) -> None:
    """Delete a file, link or folder with all in it, read-only and very deep folders included; what is absent is fine.

    Folders are moved up to the first level before they are emptied: what a task nested deeper than any path may be long goes too.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    _allow(path)
    top = os.open(path, _FOLDER)
    try:
        while names := os.listdir(top):  # noqa: PTH208 - of an open folder
            for name in names:
                _remove_below(top, name)
    finally:
        os.close(top)
    with suppress(FileNotFoundError):
        path.rmdir()


_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _remove_below(top: int, name: str) -> None:
    """Delete `name` in the open folder `top`; the folders in it are now in `top`, by names of ours."""
    if _unlink(name, top):
        return
    try:
        _allow(Path(f"/proc/self/fd/{top}/{name}"))
        folder = os.open(name, _FOLDER, dir_fd=top)
    except FileNotFoundError:
        return
    try:
        for child in os.listdir(folder):  # noqa: PTH208 - as above
            if not _unlink(child, folder):
                with suppress(FileNotFoundError):
                    _allow(Path(f"/proc/self/fd/{folder}/{child}"))
                    os.rename(child, f".{secrets.token_hex(12)}", src_dir_fd=folder, dst_dir_fd=top)
    finally:
        os.close(folder)
    with suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=top)


def _unlink(name: str, folder: int) -> bool:
    """Delete a file or link in an open folder; False when `name` is a folder."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True


def _allow(folder: Path) -> None:
    """Take the right to change what is in a folder of ours, where it is missing."""
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_IRWXU != stat.S_IRWXU and found.st_uid == os.geteuid():
        folder.chmod(0o700)


def free_bytes(path: Path) -> int:
    """Bytes that an ordinary user may still write on the file system that holds `path`."""
    usage = os.statvfs(path)
    return usage.f_bavail * usage.f_frsize
