"""What lies in a task's /output: files to upload, found without ever following a link to the outside (contract OUT-2, OUT-8)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scitq.storage.base import Cancel

_IN_CONTAINER: Final = "/output"
_MOST_LINKS: Final = 40
_MOST_WARNINGS: Final = 100
_MOST_COPIES: Final = 100_000
"""Names that come through links to folders: ten folders of ten links to the next one would make ten thousand millions."""
File = tuple[Path, str, int]
"""Real path on this disk, key below the output folder, bytes."""


@dataclass(slots=True)
class Outputs:
    """What is to be uploaded. warnings and failures are for people."""

    files: list[File] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    dropped_warnings: int = 0
    copies: int = 0

    def warn(self, text: str) -> None:
        """Add a warning; after a hundred they are only counted."""
        if len(self.warnings) < _MOST_WARNINGS:
            self.warnings.append(text)
        else:
            self.dropped_warnings += 1


def walk(root: Path, cancel: Cancel | None = None) -> Outputs:
    """Everything in the folder `root`, as a task left it: links inside give their content, all else that is no file a warning."""
    found = Outputs()
    top, token = os.path.realpath(root), cancel or Cancel()
    waiting = [_Item("", "", None)]
    while waiting:
        token.check()
        item = waiting.pop()
        folder = item if not item.shown else _take(top, item, found)
        if folder is not None:
            waiting += reversed(_children(top, folder, found))
    _refuse_doubles(found)
    found.files.sort(key=lambda file: file[1])
    if found.dropped_warnings:
        found.warnings.append(f"{found.dropped_warnings} more warnings like these")
    return found


@dataclass(frozen=True, slots=True)
class _Item:
    """real: the path below the root, without links once it was looked at; shown: the name under which it is uploaded.

    above: the folder that it was found in; is_copy: it was reached through a link to a folder.
    """

    real: str
    shown: str
    above: _Item | None
    is_copy: bool = False

    def is_within(self, real: str) -> bool:
        """Whether the folder `real` was passed on the way here."""
        folder = self.above
        while folder is not None and folder.real != real:
            folder = folder.above
        return folder is not None


def _children(root: str, folder: _Item, found: Outputs) -> list[_Item]:
    try:
        names = sorted(_names(os.path.join(root, folder.real)))  # noqa: PTH118 - texts
    except OSError as error:
        found.failures.append(f"/output/{folder.shown}: {error.strerror}")
        return []
    return [_Item(_below(folder.real, name), _below(folder.shown, name), folder, folder.is_copy) for name in names]


def _take(root: str, item: _Item, found: Outputs) -> _Item | None:
    """Note what `item` is; returns it when it is a folder to look into."""
    label, real, is_copy = f"/output/{item.shown}", item.real, item.is_copy
    try:
        kind = os.lstat(f"{root}/{real}")
        if stat.S_ISLNK(kind.st_mode):
            target = resolve_link(root, real)
            if target is None:
                found.warn(f"{label} is a link to the outside and is left out ({_target_of(root, real)})")
                return None
            real = target
            kind = os.lstat(f"{root}/{real}" if real else root)
            is_copy = is_copy or stat.S_ISDIR(kind.st_mode)
    except FileNotFoundError:
        found.warn(f"{label} is a link to nothing and is left out")
        return None
    except OSError as error:
        found.failures.append(f"{label}: {error.strerror}")
        return None
    found.copies += is_copy
    if found.copies > _MOST_COPIES:
        if found.copies == _MOST_COPIES + 1:
            found.failures.append(f"{label}: links to folders make more than {_MOST_COPIES} names of what is there once")
        return None
    if stat.S_ISDIR(kind.st_mode):
        if not item.is_within(real):
            return _Item(real, item.shown, item.above, is_copy)
        found.warn(f"{label} is a link to a folder that holds it and is left out")
    elif not stat.S_ISREG(kind.st_mode):
        found.warn(f"{label} is {_kind_name(kind.st_mode)} and is left out")
    else:
        _add_file(Path(root) / real, item.shown, kind, found)
    return None


def _add_file(path: Path, shown: str, kind: os.stat_result, found: Outputs) -> None:
    key = _as_key(shown)
    if key != shown:
        found.warn(f"the name of {f'/output/{shown}'!r} is no UTF-8 and is uploaded as {key!r}")
    if not os.access(path, os.R_OK):
        with suppress(OSError):
            path.chmod(stat.S_IMODE(kind.st_mode) | 0o400)
    found.files.append((path, key, kind.st_size))


def _refuse_doubles(found: Outputs) -> None:
    """Fail, rather than upload one over the other, what a name that is no UTF-8 shares with a name that looks like its key."""
    keys: set[str] = set()
    for _path, key, _size in found.files:
        if key in keys:
            found.failures.append(f"/output/{key}: two files would be uploaded by this name")
        keys.add(key)


def _names(folder: str) -> Iterator[str]:
    """Names in a folder of ours that the task may have closed to us."""
    if not os.access(folder, os.R_OK | os.X_OK):
        Path(folder).chmod(0o700)
    return iter(os.listdir(folder))  # noqa: PTH208 - names alone, quickly


def resolve_link(root: str, link: str) -> str | None:
    """Where `link` (relative to `root`) leads, relative to `root` and without further links; None when to the outside.

    Read as the task saw it: /output is `root`, in a container and by its path on this disk. Raises FileNotFoundError.
    """
    waiting = list(reversed(link.split("/")))
    current: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            if not current:
                return None
            current.pop()
            continue
        path = "/".join([root, *current, part])
        if not stat.S_ISLNK(os.lstat(path).st_mode):
            current.append(part)
            continue
        links += 1
        if links > _MOST_LINKS:
            raise FileNotFoundError(path)
        target = os.readlink(path)  # noqa: PTH115 - a text
        if target.startswith("/"):
            inside = _inside(target, root)
            if inside is None:
                return None
            current, target = [], inside
        waiting.extend(reversed(target.split("/")))
    return "/".join(current)


def _inside(target: str, root: str) -> str | None:
    for start in (root, _IN_CONTAINER):
        if target == start or target.startswith(f"{start}/"):
            return target[len(start) :]
    return None


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _as_key(name: str) -> str:
    """A key for a name on disk: bytes that are no UTF-8 become %XX."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "".join(f"%{ord(char) - 0xDC00:02X}" if 0xDC80 <= ord(char) <= 0xDCFF else char for char in name)
    return name


def _target_of(root: str, link: str) -> str:
    try:
        return os.readlink(f"{root}/{link}")  # noqa: PTH115 - a text
    except OSError:
        return "through another link"


def _kind_name(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"
