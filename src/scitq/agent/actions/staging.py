"""An empty folder into which hostile names are put: every real path is checked before anything is made (UNT-4)."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import BinaryIO, Final

from scitq.errors import StorageError

_DRIVE: Final = re.compile(r"[A-Za-z]:(?:[\\/]|$)")
_MOST_NAME_BYTES: Final = 255


class Staging:
    """Makes folders, files and links below `root`, which nobody else writes to meanwhile.

    Raises StorageError, naming `uri` and the member, for whatever would land outside.
    """

    def __init__(self, root: Path, uri: str) -> None:
        self.root, self.uri = root, uri
        self._real_root = os.path.realpath(root)
        self._checked: set[str] = {self._real_root}
        self._folder_modes: dict[str, int] = {}

    def folder(self, name: str, mode: int = 0o755) -> None:
        """Make a folder with its parents; `mode` is set by `finish`."""
        parts = self._parts(name)
        if parts:
            path = self._inside(parts, name)
            self._folder_modes[path] = mode

    def file(self, name: str, mode: int) -> BinaryIO:
        """A new file to write to, in place of an older file or link of that name; setuid, setgid and sticky are dropped."""
        path = self._target(name)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, mode & 0o777 | 0o600)
        return os.fdopen(descriptor, "wb", buffering=0)

    def symlink(self, name: str, target: str) -> None:
        """A link with whatever target, kept as it is and never followed to the outside by us."""
        if not target or "\0" in target:
            raise self._refuse(name, "is a link to nowhere")
        path = self._target(name)
        Path(path).symlink_to(target)
        self._checked = {self._real_root}

    def hard_link(self, name: str, target: str) -> None:
        """A second name of a member that came before."""
        parts = self._parts(target)
        if not parts:
            raise self._refuse(name, "is a link to the folder itself")
        parent = os.path.realpath(self._join(parts[:-1]))
        source = f"{parent}/{parts[-1]}"
        if not self._is_inside(parent):
            raise self._refuse(name, f"is a hard link to {target!r}, outside of the archive")
        try:
            kind = os.lstat(source).st_mode
        except OSError:
            raise self._refuse(name, f"is a hard link to {target!r}, which is not in the archive") from None
        if stat.S_ISDIR(kind):
            raise self._refuse(name, f"is a hard link to the folder {target!r}")
        path = self._target(name)
        if not os.path.lexists(source):
            raise self._refuse(name, "is a hard link to itself")
        os.link(source, path, follow_symlinks=False)
        if stat.S_ISLNK(kind):
            self._checked = {self._real_root}

    def finish(self) -> None:
        """Give folders their modes; the owner may always enter and write, so that they can be moved and deleted."""
        for path, mode in self._folder_modes.items():
            if stat.S_ISDIR(os.lstat(path).st_mode):
                Path(path).chmod(mode & 0o777 | 0o700)

    def _parts(self, name: str) -> list[str]:
        if name.startswith(("/", "\\")) or _DRIVE.match(name):
            raise self._refuse(name, "has an absolute path")
        if "\0" in name:
            raise self._refuse(name, "has a NUL in its name")
        if ".." in name.replace("\\", "/").split("/"):
            raise self._refuse(name, "has .. in its path")
        parts = [part for part in name.split("/") if part not in {"", "."}]
        for part in parts:
            if len(os.fsencode(part)) > _MOST_NAME_BYTES:
                raise self._refuse(name, f"has a name longer than {_MOST_NAME_BYTES} bytes")
        return parts

    def _target(self, name: str) -> str:
        parts = self._parts(name)
        if not parts:
            raise self._refuse(name, "has no name")
        parent = self._inside(parts[:-1], name)
        path = f"{parent}/{parts[-1]}"
        try:
            if stat.S_ISDIR(os.lstat(path).st_mode):
                raise self._refuse(name, "lies where a folder of that name is")
            Path(path).unlink()
            self._checked = {self._real_root}
        except FileNotFoundError:
            pass
        return path

    def _inside(self, parts: list[str], name: str) -> str:
        """The real path of the folder `parts`, made if missing, sure to be below the root."""
        path = self._join(parts)
        if path in self._checked:
            return path
        current = self._real_root
        for part in parts:
            below = f"{current}/{part}"
            try:
                found = os.lstat(below)
            except FileNotFoundError:
                Path(below).mkdir(0o755)
                current = below
                continue
            except NotADirectoryError:
                raise self._refuse(name, "lies in a folder whose name is that of a file") from None
            if stat.S_ISLNK(found.st_mode):
                below = os.path.realpath(below)
                if not self._is_inside(below):
                    raise self._refuse(name, f"goes through the link {part!r} that leads outside")
                if not os.path.isdir(below):  # noqa: PTH112 - a checked real path
                    raise self._refuse(name, f"goes through the link {part!r} that leads to no folder")
            elif not stat.S_ISDIR(found.st_mode):
                raise self._refuse(name, "lies in a folder whose name is that of a file")
            current = below
        if current == path:
            self._checked.add(path)
        return current

    def _join(self, parts: list[str]) -> str:
        return "/".join([self._real_root, *parts])

    def _is_inside(self, real: str) -> bool:
        return real == self._real_root or real.startswith(f"{self._real_root}/")

    def _refuse(self, name: str, why: str) -> StorageError:
        return StorageError(f"{self.uri}: the archive is refused: its member {name[:200]!r} {why}")
