"""Files written so that a crash leaves the old or the new, and paths joined so that they stay inside."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from pathlib import Path

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
    """Delete a file, link or folder with all in it, read-only folders included; what is absent is fine."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return

    def allow_and_retry(_function: object, name: str, _error: object) -> None:
        parent = Path(name).parent
        for folder in (parent, Path(name)):
            if folder.is_dir() and not folder.is_symlink():
                folder.chmod(0o700)
        if Path(name).is_dir() and not Path(name).is_symlink():
            shutil.rmtree(name, ignore_errors=True)
        else:
            Path(name).unlink(missing_ok=True)

    shutil.rmtree(path, onerror=allow_and_retry)
    if path.exists():
        shutil.rmtree(path)


def free_bytes(path: Path) -> int:
    """Bytes that an ordinary user may still write on the file system that holds `path`."""
    usage = os.statvfs(path)
    return usage.f_bavail * usage.f_frsize
