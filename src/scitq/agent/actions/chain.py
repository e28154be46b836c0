"""A URI's actions carried out on one file that came, in the order written; `mv:` is a place, not a step."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from scitq.agent.actions import content
from scitq.agent.actions.gunzip import gunzip, unzipped_name
from scitq.agent.actions.limits import Meter
from scitq.agent.actions.untar import extract
from scitq.errors import DiskFullError, StorageError
from scitq.model.uri import Action, Gunzip, Move, Untar

_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def steps_of(actions: Sequence[Action]) -> list[Untar | Gunzip]:
    """What is to be done to each file, without `mv:`."""
    return [action for action in actions if not isinstance(action, Move)]


def apply(steps: Sequence[Untar | Gunzip], folder: Path, meter: Meter) -> Path:
    """Carry out `steps` on all files in `folder` (a private one); returns the folder that then holds the result.

    The folder beside it, named `….N`, may be used; what was in `folder` is used up. Raises StorageError or DiskFullError,
    and leaves what is half made for the caller to drop with the parent of `folder`.
    """
    try:
        for number, step in enumerate(steps):
            target = folder.with_name(f"{folder.name}.{number}")
            _apply_one(step, folder, target, meter)
            folder = target
    except OSError as error:
        if error.errno in _FULL:
            raise DiskFullError(f"{meter.uri}: no room left on the worker's disk while its action was carried out") from error
        raise StorageError(f"{meter.uri}: {error.strerror or error}") from error
    return folder


def _apply_one(step: Untar | Gunzip, folder: Path, target: Path, meter: Meter) -> None:
    unpacking = folder.with_name(f"{target.name}.unpack")
    merged: dict[str, str] = {}
    target.mkdir()
    names = sorted(files_below(folder))
    for number, relative in enumerate(names):
        packed = folder / relative
        meter.look_at(relative if len(names) > 1 else "")
        parent = os.path.dirname(relative)  # noqa: PTH120 - relative texts, not paths
        if isinstance(step, Gunzip):
            name = os.path.join(parent, unzipped_name(os.path.basename(relative)))  # noqa: PTH118, PTH119 - as above
            _claim(merged, name, relative, meter)
            (target / parent).mkdir(parents=True, exist_ok=True)
            gunzip(packed, target / name, meter)
            continue
        unpacking.mkdir(exist_ok=True)
        content_folder = unpacking / str(number)
        extract(packed, content_folder, meter)
        meter.look_at("")
        for inner in everything_below(content_folder):
            _claim(merged, os.path.join(parent, inner), relative, meter, content_folder / inner)  # noqa: PTH118 - as above
        merge(content_folder, target / parent)


def _claim(merged: dict[str, str], name: str, source: str, meter: Meter, path: Path | None = None) -> None:
    if path is not None and stat.S_ISDIR(os.lstat(path).st_mode):
        return
    other = merged.setdefault(name, source)
    if other != source:
        raise StorageError(f"{meter.uri}: {other!r} and {source!r} would both give {name!r}; fetch them apart, each with |mv:FOLDER")


def merge(source: Path, target: Path) -> None:
    """Move everything in the folder `source` into `target` (made if missing), folders merged; names are known not to collide."""
    waiting, emptied = [(source, target)], []
    while waiting:
        folder, aim = waiting.pop()
        aim.mkdir(parents=True, exist_ok=True)
        emptied.append(folder)
        with os.scandir(folder) as children:
            found = list(children)
        for child in found:
            there = aim / child.name
            if child.is_dir(follow_symlinks=False) and os.path.lexists(there):
                if there.is_symlink() or not there.is_dir():
                    raise StorageError(f"the folder {child.name!r} and another file or link have the same name")
                waiting.append((Path(child.path), there))
            elif os.path.lexists(there):
                raise StorageError(f"{child.name!r} comes twice")
            else:
                Path(child.path).rename(there)
    for folder in reversed(emptied):
        folder.rmdir()


def files_below(folder: Path) -> Iterator[str]:
    """Paths, relative, of all regular files; links are not followed."""
    for name, entry in entries_below(folder):
        if entry.is_file(follow_symlinks=False):
            yield name


def everything_below(folder: Path) -> Iterator[str]:
    """Paths, relative, of all files, links and folders, a folder before what is in it."""
    for name, _entry in entries_below(folder):
        yield name


def entries_below(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The same, each with its entry: for 100,000 files the making of paths is what costs."""
    root = os.fspath(folder)
    waiting = [""]
    while waiting:
        below = waiting.pop()
        prefix = f"{below}/" if below else ""
        with os.scandir(f"{root}/{below}") as children:
            for child in children:
                name = prefix + child.name
                yield name, child
                if child.is_dir(follow_symlinks=False):
                    waiting.append(name)


def make_programs_executable(folder: Path) -> None:
    """Give the right to run to what can be run: object stores keep no modes (contract RES-3)."""
    for _name, entry in entries_below(folder):
        if entry.is_file(follow_symlinks=False):
            found = entry.stat(follow_symlinks=False)
            if found.st_size > 1 and not found.st_mode & 0o100 and content.is_program(_first_bytes(entry.path)):
                Path(entry.path).chmod(stat.S_IMODE(found.st_mode) | 0o111)


def _first_bytes(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4)
    finally:
        os.close(descriptor)
